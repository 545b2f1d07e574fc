"""Plans once, runs the tasks on a Ray cluster, finishes.

    python run_plan.py <tasks> <plan.json> <writing command of polygraft ...>
    python run_plan.py 8 plan.json graft ./moe-cpt -o ./out --base ./base --post ./instruct

Every node sees the same files under the same paths and has `polygraft` on its PATH.
RAY_ADDRESS names the cluster; without it, Ray starts one on this machine.
"""

import os
import subprocess
import sys

import ray

CPUS = 2


# A task that fails, or whose node does, is simply run again: it goes on with the shards that it has handed in.
@ray.remote(num_cpus=CPUS, max_retries=3, retry_exceptions=[subprocess.CalledProcessError])
def run_task(plan: str, i: int, n: int) -> None:
    subprocess.run(["polygraft", "run", plan, "--task", f"{i}/{n}", "--threads", str(CPUS)], check=True)


def main() -> None:
    tasks, plan, command = int(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
    subprocess.run(["polygraft", *command, "--plan", plan], check=True)
    ray.init()
    ray.get([run_task.remote(plan, i, tasks) for i in range(1, tasks + 1)])
    subprocess.run(["polygraft", "finish", plan], check=True)


if __name__ == "__main__":
    main()
