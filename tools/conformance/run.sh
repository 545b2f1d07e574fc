#!/usr/bin/env bash
# One command: both Python environments, the CLI if it is not built, and every check.
# Options are conformance.py's: --only <part of a case's name>, --keep <folder>.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

bash "$here/environments.sh"
if [ -z "${POLYGRAFT:-}" ] && [ ! -d "$root/apps/cli/dist" ]; then
  echo "conformance: building the command ..."
  (cd "$root" && npx -y pnpm@12.21.0 --filter "polygraft..." build) >/dev/null
fi
export PYTHONWARNINGS=ignore OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
exec "$here/.venv-v5/bin/python" "$here/conformance.py" "$@"
