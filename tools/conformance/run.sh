#!/usr/bin/env bash
# One command: both Python environments, the command (built if need be), and every check.
# Options are conformance.py's: --only <part of a case's name>, --keep <folder>.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

bash "$here/environments.sh"
[ -n "${POLYGRAFT:-}" ] || node "$root/tools/bootstrap.mjs" # POLYGRAFT: another command to check, already built
export PYTHONWARNINGS=ignore OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
exec "$here/.venv-v5/bin/python" "$here/conformance.py" "$@"
