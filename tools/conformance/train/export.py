"""Runs what `polygraft export-cpt` writes: two stages of a few steps with transformers on CPU, then the graft: `python export.py`

Ends with a line "export: N passed, M failed".
"""

import glob
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(f"{HERE}/../../..")
TRIO, DATA = f"{ROOT}/tools/trio/checkpoints", f"{ROOT}/tools/trio/data"


def polygraft(*args):
    subprocess.run(["node", f"{ROOT}/apps/cli/bin/polygraft.js", *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def weights(folder):
    return {name: t for path in glob.glob(f"{folder}/*.safetensors") for name, t in load_file(path).items()}


def changed(before, after):
    """Names whose bytes differ."""
    assert set(before) == set(after), sorted(set(before) ^ set(after))[:3]
    return {name for name in before if before[name].dtype != after[name].dtype or not torch.equal(before[name], after[name])}


def main():
    results = []
    with tempfile.TemporaryDirectory() as work:
        polygraft("upcycle", f"{TRIO}/base", "-o", f"{work}/moe", "--languages", "c,d", "--seed", "0")
        polygraft("export-cpt", f"{work}/moe", "-o", f"{work}/recipe")
        stage = lambda name, model, out, *more: subprocess.run(
            [sys.executable, f"{work}/recipe/train_moe.py", name, "--model", model, "--out", out, "--steps", "6", "--context", "64",
             "--data", f"c={DATA}/raw-c.txt", *more, "--rate", "0.002"], check=True, capture_output=True, text=True,
        ).stdout
        log = stage("cpt", f"{work}/moe", f"{work}/cpt-1", "--data", f"d={DATA}/raw-d.txt")
        stage("review", f"{work}/cpt-1", f"{work}/cpt", "--data", f"a={DATA}/raw-a.txt", "--original", "a")
        moe, first, second = (weights(f"{work}/{name}") for name in ("moe", "cpt-1", "cpt"))
        routers = {name for name in moe if name.endswith(".gate.weight")}
        experts = {name for name in moe if ".experts.1." in name or ".experts.2." in name}
        results.append(("cpt logs its loss", '"step": 6' in log))
        results.append(("cpt changes experts 1 and 2 and the routers, and no other byte", changed(moe, first) == routers | experts))
        results.append(("review changes the routers, and no other byte", changed(first, second) == routers))
        pair = ["--base", f"{TRIO}/base", "--post", f"{TRIO}/instruct"]
        polygraft("graft", f"{work}/cpt", "-o", f"{work}/graft", *pair)
        polygraft("verify", f"{work}/graft", *pair, "--cpt", f"{work}/cpt")
        grafted, instruct = weights(f"{work}/graft"), weights(f"{TRIO}/instruct")
        shared = [name for name in instruct if name in grafted]
        same = all(torch.equal(grafted[name], instruct[name]) for name in shared)
        results.append(("grafted, all but the experts is the instruct's, bit for bit; verify agrees", same and len(shared) > 10))
    for name, holds in results:
        print("ok  " if holds else "FAIL", name)
    failed = sum(not holds for _, holds in results)
    print(f"export: {len(results) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
