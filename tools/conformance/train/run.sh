#!/usr/bin/env bash
# One command: the environment with transformers 5, and loss and gradients of training compared with PyTorch's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)

bash "$here/../environments.sh" v5
node "$root/tools/bootstrap.mjs"
export PYTHONWARNINGS=ignore OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
cd "$root"
"$here/../.venv-v5/bin/python" "$here/gradients.py"
