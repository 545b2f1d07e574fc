#!/usr/bin/env bash
# One command: mergekit's environment, the command (built if need be), and every recipe through both.
# Options are differential.py's: --only <part of a recipe's name>, --keep <folder>.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)

bash "$root/tools/bench/mergekit/environment.sh"
[ -n "${POLYGRAFT:-}" ] || node "$root/tools/bootstrap.mjs" # POLYGRAFT: another command to check, already built
export PYTHONWARNINGS=ignore OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false TQDM_DISABLE=1
exec "$root/tools/bench/mergekit/.venv/bin/python" "$here/differential.py" "$@"
