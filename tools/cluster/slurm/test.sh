#!/usr/bin/env bash
# Runs submit.sh for real: a Slurm of one node in a temporary folder, the tiny trio, and the bytes of a direct run.
# One command on Debian as root; installs slurm-wlm and munge when they are not there. All daemons are children of this
# script, listen on loopback, and end with it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)

skip() {
  echo "skipped: $1"
  echo 'slurm: 0 passed, 0 failed'
  exit 0
}

has() { for name in slurmctld slurmd sbatch munged; do command -v $name >/dev/null || return 1; done; }
[ "$(id -u)" -eq 0 ] || skip 'slurmd runs jobs only as root'
if ! has; then
  command -v apt-get >/dev/null || skip 'there is neither Slurm nor apt-get'
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
fi

node "$root/tools/bootstrap.mjs"

dir=$(mktemp -d "${TMPDIR:-/tmp}/polygraft-slurm-XXXXXX")
pids=()
stop() {
  local status=$?
  trap - EXIT
  if [ "$status" -ne 0 ]; then tail -n 20 "$dir"/log/*.log "$dir"/job/*.log >&2 2>/dev/null || true; fi
  timeout 10 scancel --full --state=PENDING --state=RUNNING --user="$(id -un)" 2>/dev/null || true
  # The last one started ends first; munged is needed until then.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[i]}" 2>/dev/null || true
    for _ in {1..50}; do
      jobs -pr | grep -qx "${pids[i]}" || break
      sleep 0.2
    done
    kill -KILL "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
  rm -rf "$dir"
  if [ "$status" -ne 0 ]; then echo 'slurm: 0 passed, 1 failed'; fi
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Two ports that are free now.
read -r controller_port node_port < <(node -e '
  const { createServer } = require("node:net")
  const servers = [0, 0].map(() => createServer())
  Promise.all(servers.map((server) => new Promise((done) => server.listen(0, "127.0.0.1", done)))).then(() => {
    console.log(servers.map((server) => server.address().port).join(" "))
    for (const server of servers) server.close()
  })')

node=$(uname -n | cut -d. -f1)
mkdir -p "$dir"/{bin,etc,log,munge,spool,state,job}
chmod 755 "$dir" "$dir/munge"
export SLURM_CONF=$dir/etc/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=polygraft-test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
# What a container lets a process do: no cgroups, no accounting, no mail.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# The node is what is said below, whatever the machine: two tasks run at a time.
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,defer_batch
KillWait=5
NodeName=$node NodeAddr=127.0.0.1 CPUs=4 RealMemory=4096 State=UNKNOWN
PartitionName=test Nodes=$node Default=YES MaxTime=10 State=UP
CONF
# Before plug-ins ask for control groups of their own accord.
echo 'IgnoreSystemd=yes' >"$dir/etc/cgroup.conf"

# within <seconds> <what> <command...>: waits until the command succeeds.
within() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "waited too long: $what" >&2
      return 1
    fi
    sleep 0.2
  done
}

dd if=/dev/urandom of="$dir/munge/key" bs=128 count=1 status=none
chmod 400 "$dir/munge/key"
# --force: a temporary folder is not where it likes its socket to be.
munged --foreground --force --num-threads=2 --key-file="$dir/munge/key" --socket="$dir/munge/socket" \
  --pid-file="$dir/munge/pid" --seed-file="$dir/munge/seed" --log-file="$dir/munge/log" >"$dir/log/munged.log" 2>&1 &
pids+=($!)
within 20 'munged' munge --socket="$dir/munge/socket" --no-input
slurmctld -D >"$dir/log/slurmctld.log" 2>&1 &
pids+=($!)
slurmd -D >"$dir/log/slurmd.log" 2>&1 &
pids+=($!)
is_idle() { timeout 5 sinfo --noheader --format=%T | grep -qx idle; }
within 40 'the node to be idle' is_idle

# As if it were installed.
ln -s "$root/apps/cli/bin/polygraft.js" "$dir/bin/polygraft"
export PATH=$dir/bin:$PATH NO_COLOR=1
trio=$root/tools/trio/checkpoints
graft=(graft "$trio/cpt" --base "$trio/base" --post "$trio/instruct" --max-shard-size 200KB)

cd "$dir/job"
polygraft "${graft[@]}" -o direct
tasks=4
bash "$here/submit.sh" "$tasks" plan.json "${graft[@]}" -o out
is_empty() { [ -z "$(timeout 5 squeue --noheader --all || echo unknown)" ]; }
within 90 'the jobs to end' is_empty

[ "$(cat polygraft-*-?.log | grep -c '^task ./4: ')" -eq "$tasks" ]
diff -r direct out
[ "$(find . -name '.*' -not -name . | wc -l)" -eq 0 ]
echo "Slurm $(sinfo --version | cut -d' ' -f2): $tasks tasks and finish wrote the $(find out -name '*.safetensors' | wc -l) shards of the direct run"
echo 'slurm: 1 passed, 0 failed'
