#!/usr/bin/env bash
# One command: large.py in its environment. Example: bash tools/conformance/large.sh --scratch /tmp/large --gb 2
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bash "$here/environments.sh" v5
[ -n "${POLYGRAFT:-}" ] || node "$here/../bootstrap.mjs"
exec "$here/.venv-v5/bin/python" "$here/large.py" "$@"
