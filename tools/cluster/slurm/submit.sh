#!/bin/bash
# Plans here, runs the tasks as an array, and finishes once all of them have succeeded:
#   bash submit.sh <tasks> <plan.json> <writing command of polygraft ...>
#   bash submit.sh 8 plan.json graft ./moe-cpt -o ./out --base ./base --post ./instruct
# SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT and the like are sbatch's own.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tasks=$1 plan=$2
shift 2

polygraft "$@" --plan "$plan"
array=$(sbatch --parsable --array="1-$tasks" "$here/polygraft.sbatch" "$plan" "$tasks")
finish=$(sbatch --parsable --dependency="afterok:${array%%;*}" --kill-on-invalid-dep=yes \
  --job-name=polygraft-finish --output=polygraft-%j-finish.log \
  --wrap "exec polygraft finish $(printf %q "$plan")")
echo "tasks: job ${array%%;*}; finish: job ${finish%%;*}"
