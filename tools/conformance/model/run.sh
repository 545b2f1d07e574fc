#!/usr/bin/env bash
# One command: the Python environment of transformers 5, and the decoder compared with it. Options are model.py's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)

bash "$here/../environments.sh" v5
node "$root/tools/bootstrap.mjs" --only-install
export PYTHONWARNINGS=ignore OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
exec "$here/../.venv-v5/bin/python" "$here/model.py" "$@"
