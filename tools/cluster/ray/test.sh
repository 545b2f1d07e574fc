#!/usr/bin/env bash
# Runs run_plan.py for real: Ray on this machine in a Python environment of its own, the tiny trio, the bytes of a direct run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
node "$root/tools/bootstrap.mjs"

venv=$here/.venv
if [ ! -f "$venv/ready" ] || ! cmp -s "$here/requirements.txt" "$venv/ready"; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/ready"
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/polygraft-ray-XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/bin" "$dir/work"
ln -s "$root/apps/cli/bin/polygraft.js" "$dir/bin/polygraft"
export PATH=$dir/bin:$venv/bin:$PATH NO_COLOR=1 RAY_TMPDIR=$dir/ray RAY_USAGE_STATS_ENABLED=0
trio=$root/tools/trio/checkpoints
graft=(graft "$trio/cpt" --base "$trio/base" --post "$trio/instruct" --max-shard-size 200KB)

cd "$dir/work"
polygraft "${graft[@]}" -o direct
timeout 100 python "$here/run_plan.py" 3 plan.json "${graft[@]}" -o out
diff -r direct out
[ "$(find . -name '.*' -not -name . | wc -l)" -eq 0 ]
echo 'ray: 1 passed, 0 failed'
