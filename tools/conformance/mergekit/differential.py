"""The same recipes through mergekit and through polygraft; one line for each check, the last line counts. See README.md."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from excused import excused  # noqa: E402
from inputs import SETS, make_all, stored  # noqa: E402
from known import KNOWN  # noqa: E402
from mixtures import MIXTURES  # noqa: E402
from prepare import polygraft  # noqa: E402
from recipes import RECIPES  # noqa: E402

import torch  # noqa: E402
from mergekit.config import MergeConfiguration  # noqa: E402
from mergekit.merge import run_merge  # noqa: E402
from mergekit.options import MergeOptions  # noqa: E402

COUNTS = {"PASS": 0, "FAIL": 0}
ROLES = ("base", "a", "b", "c")
# Roundings of the arithmetic's dtype at the size of the largest operand: a few operations, or coefficients that follow from norms
# and products of whole tensors, which mergekit adds up in that dtype and polygraft in F64.
ROUNDINGS = {"elements": 8, "sums": 64}
DIGITS = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24, torch.float64: 53}


def report(holds, where, check, detail=""):
    COUNTS["PASS" if holds else "FAIL"] += 1
    print(f"{'PASS' if holds else 'FAIL'} {where}: {check}" + (f" ({detail})" if detail else ""), flush=True)


def placed(value, folder):
    """The recipe with the folders of a set for base, a, b, c."""
    if isinstance(value, dict):
        return {key: placed(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [placed(each, folder) for each in value]
    return f"{folder}/{value}" if value in ROLES else value


def run_theirs(recipe, out, seed=0):
    with open(recipe) as file:
        config = MergeConfiguration.model_validate(json.load(file))
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, random_seed=seed)
    run_merge(config, out, options)


def spacing(values, dtype):
    """Distance from each value to the next larger one of the dtype."""
    _, exponent = torch.frexp(values)
    return torch.exp2((exponent - DIGITS[dtype]).double()).clamp(min=2.0**-24 if dtype == torch.float16 else 0)


def differences(ours, theirs, inputs, recipe):
    """What is further apart than it may be; the largest gap in roundings; the shares of elements that are equal, and excused."""
    config, allowed = recipe["config"], ROUNDINGS[recipe["near"]]
    work = getattr(torch, config["dtype"])
    wrong, worst, equal, others, total = [], 0.0, 0, 0, 0
    if ours.keys() != theirs.keys():
        wrong.append(f"tensors of one alone: {sorted(ours.keys() ^ theirs.keys())[:3]}")
    for name in sorted(ours.keys() & theirs.keys()):
        x, y = ours[name], theirs[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            wrong.append(f"{name}: {x.dtype} {tuple(x.shape)}, mergekit {y.dtype} {tuple(y.shape)}")
            continue
        x64, y64 = x.double(), y.double()
        size = torch.maximum(x64.abs(), y64.abs())
        # Where layers were moved the operand of that name is not this one: all its elements together bound it.
        for role in inputs:
            operand = inputs[role].get(name)
            if operand is not None:
                size = torch.maximum(size, operand.double().abs() if "slices" not in config else operand.double().abs().max())
        unit = spacing(size, work)
        if x.dtype != work:
            unit = torch.maximum(spacing(torch.maximum(x64.abs(), y64.abs()), x.dtype) / allowed, unit)
        gap = (x64 - y64).abs() / unit
        free = excused(name, config, inputs) if "models" in config else torch.zeros(x.shape, dtype=torch.bool)
        beyond = ~(gap <= allowed)
        others += (beyond & free).sum().item()
        if (beyond & ~free).any():
            wrong.append(f"{name} by {gap[~free].max().item():.1f} roundings in {(beyond & ~free).sum().item()} of {x.numel()}")
        if (~free).any():
            worst = max(worst, gap[~free].max().item())
        equal += (x == y).sum().item()
        total += x.numel()
    return wrong, worst, equal / max(1, total), others / max(1, total)


def compare(where, ours, theirs, inputs, recipe):
    wrong, worst, equal, others = differences(stored(ours), stored(theirs), inputs, recipe)
    detail = "; ".join(wrong[:2]) or f"{100 * equal:.2f} % bit for bit, at most {worst:.1f} roundings"
    if others:
        detail += f"; {100 * others:.3f} % otherwise for a cause that is documented"
    report(not wrong, where, "every tensor as mergekit's", detail)


def attempt(where, step):
    """A step that fails is a line of the report, and the others go on."""
    try:
        return step()
    except Exception as error:
        report(False, where, "runs", " ".join(str(error).split())[:600])


def check_set(work, name, recipes, pool):
    folder = f"{work}/{name}"
    inputs = {role: stored(f"{folder}/{role}") for role in ROLES}
    jobs = []
    for i, (title, recipe) in enumerate(recipes.items()):
        file = f"{folder}/recipe-{i}.yml"
        with open(file, "w") as out:
            json.dump(placed(recipe["config"], folder), out)
        jobs.append((f"{name}, {title}", recipe, file, pool.submit(polygraft, "merge", file, "-o", f"{file}.ours", "--threads", 0)))
    for where, recipe, file, ours in jobs:

        def check():
            run_theirs(file, f"{file}.theirs")
            ours.result()
            compare(where, f"{file}.ours", f"{file}.theirs", inputs, recipe)

        attempt(where, check)


def outcome(run, out):
    """The tensors that were written, or the message with which it ended."""
    try:
        run()
        return stored(out)
    except Exception as error:
        return " ".join(str(error).split())[:600]


def check_known(work, only):
    for i, (title, (name, recipe, shows)) in enumerate(KNOWN.items()):
        if only not in title:
            continue
        folder = f"{work}/{name}"
        inputs = {role: stored(f"{folder}/{role}") for role in ROLES}
        file = f"{folder}/known-{i}.yml"
        with open(file, "w") as out:
            json.dump(placed(recipe["config"], folder), out)
        theirs = outcome(lambda: run_theirs(file, f"{file}.theirs"), f"{file}.theirs")
        with open(file, "w") as out:
            json.dump(placed(recipe.get("ours", recipe["config"]), folder), out)
        ours = outcome(lambda: polygraft("merge", file, "-o", f"{file}.ours", "--threads", 0), f"{file}.ours")

        def check():
            for what, holds, detail in shows(ours, theirs, inputs):
                report(holds, f"documented, {title}", what, detail)

        attempt(f"documented, {title}", check)


def check_mixtures(work, only):
    for i, (title, check) in enumerate(MIXTURES.items()):
        if only not in title:
            continue
        where = f"mergekit-moe, {title}"

        def run():
            for what, holds, detail in check(f"{work}/trio", f"{work}/mixture-{i}"):
                report(holds, where, what, detail)

        attempt(where, run)


def check_all(work, only):
    make_all(work)
    with ThreadPoolExecutor(1) as pool:
        for name in SETS:
            chosen = {t: recipe for t, recipe in RECIPES.items() if only in t and name in recipe.get("sets", SETS)}
            check_set(work, name, chosen, pool)
    check_known(work, only)
    check_mixtures(work, only)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the recipes whose name contains this")
    parser.add_argument("--keep", help="work in this folder and leave it behind")
    options = parser.parse_args()
    work = os.path.abspath(options.keep) if options.keep else tempfile.mkdtemp(prefix="polygraft-mergekit-")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    try:
        check_all(work, options.only)
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    print("mergekit: {PASS} passed, {FAIL} failed".format(**COUNTS))
    sys.exit(COUNTS["FAIL"] > 0)


if __name__ == "__main__":
    main()
