#!/usr/bin/env bash
# One command: the environment with transformers 5; loss and gradients of training compared with PyTorch's; and the stages that
# `polygraft export-cpt` writes, really run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)

bash "$here/../environments.sh" v5
node "$root/tools/bootstrap.mjs"
export PYTHONWARNINGS=ignore OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
cd "$root"
passed=0 failed=0
for program in gradients export; do
  log=$("$here/../.venv-v5/bin/python" "$here/$program.py") || true
  printf '%s\n' "$log"
  if [[ $log =~ :\ ([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
  else
    failed=$((failed + 1)) # It ended before its last line.
  fi
done
printf 'train: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
