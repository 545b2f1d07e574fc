#!/usr/bin/env bash
# Makes the trio anew: held-out data, base, instruct, upcycled base, CPT; then measures them and their graft.
# About six minutes on one CPU thread. `make.sh evaluate` only measures what is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
checkpoints=${OUT:-$here/checkpoints}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1
bash "$root/tools/conformance/environments.sh" v4
python() { nice "$root/tools/conformance/.venv-v4/bin/python" "$@"; }
polygraft() { node "$root/apps/cli/bin/polygraft.js" "$@"; }
node "$root/tools/bootstrap.mjs"

if [ "${1:-make}" = make ]; then
  rm -rf "$checkpoints"
  mkdir -p "$checkpoints"
  python "$here/heldout.py" --out "$here/data"
  python "$here/train.py" base --out "$checkpoints/base"
  python "$here/train.py" instruct --input "$checkpoints/base" --out "$checkpoints/instruct"
  polygraft upcycle "$checkpoints/base" -o "$scratch/upcycled" --experts 3 --top-k 2 --languages c,d --seed 0
  python "$here/train.py" cpt --input "$scratch/upcycled" --out "$checkpoints/cpt"
  chmod -R u=rwX,go=rX "$checkpoints"
fi
polygraft graft "$checkpoints/cpt" -o "$scratch/graft" --base "$checkpoints/base" --post "$checkpoints/instruct"
python "$here/evaluate.py" "$checkpoints"/{base,instruct,cpt} "$scratch/graft"
