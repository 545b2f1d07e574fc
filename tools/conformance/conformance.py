"""Every conformance check, one line each; the last line counts them. Exit code 1 if any fails. See README.md."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

from cases import CASES, DENSE_CASES
from depth import DEPTH, deep_checks, make_deep
from prepare import byte_checks, index_problems, make_grafts, make_upcycled
from vocabulary import vocabulary_checks

HERE = os.path.dirname(os.path.abspath(__file__))
COUNTS = {"PASS": 0, "FAIL": 0, "SKIP": 0}


def report(outcome, where, check, detail=""):
    COUNTS[outcome] += 1
    print(f"{outcome} {where}: {check}" + (f" ({detail})" if detail else ""), flush=True)


def python(major, script, *arguments):
    """A script in the environment of one major."""
    return [f"{HERE}/.venv-{major}/bin/python", f"{HERE}/{script}", *arguments]


def check_rounding():
    """Our numpy's BF16 rounding against torch's: every upper half with the lower halves around the ties."""
    import torch

    from stored import from_f32

    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        values = (upper | np.uint32(lower)).view(np.float32)
        ours = from_f32("BF16", values)
        theirs = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
        same = (ours == theirs) | np.isnan(values)
        report("PASS" if same.all() else "FAIL", "rounding", f"numpy BF16 = torch, lower half {lower:#06x}")


def attempt(name, step):
    """Runs a step that calls polygraft; a failure is a line of the report, and the other cases go on."""
    try:
        step()
    except (RuntimeError, OSError, KeyError) as error:
        report("FAIL", name, "polygraft runs", str(error))


def check_bytes(case, folder):
    name = case["name"]
    make_grafts(case, folder)
    for check, wrong in byte_checks(case, folder):
        report("FAIL" if wrong else "PASS", name, check, ", ".join(wrong[:3]))
    wrong = index_problems(folder)
    report("FAIL" if wrong else "PASS", name, "index names every tensor and file", ", ".join(wrong[:3]))


def check_depth(case, folder):
    make_deep(case, folder)
    for check, wrong in deep_checks(case, folder):
        report("FAIL" if wrong else "PASS", case["name"], check, ", ".join(wrong[:3]))


def check_vocabulary(work):
    for check, wrong in vocabulary_checks(f"{work}/llama", f"{work}/vocabulary"):
        report("FAIL" if wrong else "PASS", "vocabulary", check, ", ".join(wrong[:3]))


def check_models(major, work, names):
    process = subprocess.Popen(python(major, "models.py", work, *names), stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        outcome, name, check, detail = line.rstrip("\n").split("\t")
        report(outcome, f"{major} {name}", check, detail)
    if process.wait() != 0:
        report("FAIL", major, "models.py ran to its end", f"exit code {process.returncode}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--keep", help="work in this folder and leave it behind")
    options = parser.parse_args()
    cases = [case for case in CASES if options.only in case["name"]]
    deep = [case for case in CASES + DENSE_CASES if options.only in case["name"] and case["name"] in DEPTH]
    names = sorted({case["name"] for case in cases + deep})
    work = options.keep or tempfile.mkdtemp(prefix="polygraft-conformance-")
    shutil.rmtree(work, ignore_errors=True)
    try:
        print(f"conformance: {len(names)} cases, dense checkpoints ...", flush=True)
        for major in ("v4", "v5"):
            subprocess.run(python(major, "dense.py", work, major, *names), check=True)
        check_rounding()
        for case in cases:
            attempt(case["name"], lambda: make_upcycled(case, f"{work}/{case['name']}"))
        for major in ("v4", "v5"):
            subprocess.run(python(major, "resave.py", work, major, *names), check=True)
        for case in cases:
            if os.path.exists(f"{work}/{case['name']}/resaved"):
                attempt(case["name"], lambda: check_bytes(case, f"{work}/{case['name']}"))
        for case in deep:
            attempt(case["name"], lambda: check_depth(case, f"{work}/{case['name']}"))
        if os.path.exists(f"{work}/llama/cpt"):
            attempt("vocabulary", lambda: check_vocabulary(work))
        for major in ("v5", "v4"):
            check_models(major, work, names)
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    print("conformance: {PASS} passed, {FAIL} failed, {SKIP} skipped".format(**COUNTS))
    sys.exit(COUNTS["FAIL"] > 0)


if __name__ == "__main__":
    main()
