"""Runs a command and writes what it used to a file as JSON: measure.py <file> <command> [argument ...]

Wall and CPU time in seconds, CPU of all processes that were waited for; peak memory in bytes of the largest of them. A
process is reported with at least what this one held when it started it, some 10 MB.
"""

import json
import os
import sys
import time

report, *command = sys.argv[1:]
start = time.monotonic()
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.monotonic() - start
unit = 1 if sys.platform == "darwin" else 1024
with open(report, "w", encoding="utf-8") as file:
    json.dump(
        {
            "code": os.waitstatus_to_exitcode(status),
            "wallSeconds": wall,
            "cpuSeconds": usage.ru_utime + usage.ru_stime,
            "peakBytes": usage.ru_maxrss * unit,
        },
        file,
    )
