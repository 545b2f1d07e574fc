#!/usr/bin/env bash
# One command: the Python environment with peft, the command (built if need be), and every check of LoRA adapters.
# Options are adapters.py's: --only <part of a case's name>, --keep <folder>.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)

bash "$here/../environments.sh" peft
[ -n "${POLYGRAFT:-}" ] || node "$root/tools/bootstrap.mjs" # POLYGRAFT: another command to check, already built
export PYTHONWARNINGS=ignore OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
exec "$here/../.venv-peft/bin/python" "$here/adapters.py" "$@"
