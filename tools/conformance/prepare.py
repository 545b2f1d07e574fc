"""Runs the polygraft command on every case and checks the bytes of what it wrote, with numpy alone.

For each case <work>/<case>/ holds base, post (dense.py) and then
  up-base, up-post     upcycled with 3 experts, top 2, the same seed
  up-top1              the base upcycled with 1 active expert
  resaved              up-base as transformers loads and saves it (resave.py), so its config is a trainer's
  cpt                  resaved with other routers and experts 1.., what training under the default freeze changes
  cpt-all              resaved with every tensor changed
  graft-up, graft, ... the delta on up-base, on cpt and on cpt-all
  permuted             graft with experts and router rows in another order
"""

import json
import os
import re
import shlex
import subprocess

import numpy as np

from cases import EXPERTS, TOP_K
from stored import (
    FUSED, differences, expert_of, experts_of, from_f32, graft_reference, is_router, origin, read_checkpoint,
    router_rows, to_f32, with_head, write_checkpoint,
)  # fmt: skip

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMAND = shlex.split(os.environ.get("POLYGRAFT", f"node {ROOT}/apps/cli/bin/polygraft.js"))


def polygraft(*arguments):
    """Runs the command; raises with its messages if it fails."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"polygraft {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}".strip())


def moved(tensors, chosen, rng):
    """The tensors, those elements that `chosen(name)` picks moved by a little noise."""
    result = {}
    for name, (dtype, stored) in tensors.items():
        noise = rng.standard_normal(stored.shape).astype(np.float32) * np.float32(0.02)
        result[name] = dtype, np.where(chosen(name), from_f32(dtype, to_f32(dtype, stored) + noise), stored)
    return result


def permuted(tensors, order):
    """Expert `order[e]` becomes expert e, with its router row."""
    result = {}
    for name, (dtype, stored) in tensors.items():
        expert = expert_of(name)
        if is_router(name) or FUSED.match(name):
            result[name] = dtype, stored[order]
        elif expert is None:
            result[name] = dtype, stored
        else:
            result[name.replace(f".experts.{expert}.", f".experts.{order.index(expert)}.")] = dtype, stored
    return result


def make_upcycled(case, folder):
    upcycle = ["--experts", EXPERTS, "--top-k", TOP_K, "--target", case["target"], "--seed", 7]
    upcycle += ["--granularity", case["parts"]] if case["parts"] > 1 else []
    upcycle += ["--dense-layers", ",".join(map(str, case["dense"]))] if case["dense"] else []
    upcycle += ["--shared-expert"] if case["shared"] else []
    polygraft("upcycle", f"{folder}/base", "-o", f"{folder}/up-base", *upcycle)
    polygraft("upcycle", f"{folder}/post", "-o", f"{folder}/up-post", *upcycle)
    upcycle[3] = 1
    polygraft("upcycle", f"{folder}/base", "-o", f"{folder}/up-top1", *upcycle)


def make_grafts(case, folder):
    tensors, config = read_checkpoint(f"{folder}/resaved")
    count = router_rows(tensors)
    rng = np.random.default_rng(1)

    def in_training(name):
        experts = experts_of(name, count, case["parts"])
        return is_router(name) if experts is None else experts > 0

    write_checkpoint(f"{folder}/cpt", moved(tensors, in_training, rng), config)
    write_checkpoint(f"{folder}/cpt-all", moved(tensors, lambda name: ".shared_expert" not in name, rng), config)
    dense = ["--base", f"{folder}/base", "--post", f"{folder}/post"]
    polygraft("graft", f"{folder}/up-base", "-o", f"{folder}/graft-up", *dense)
    # transformers has not kept the recipe, and without it nobody knows which part of which expert a part is.
    if case["parts"] > 1 or case["shared"]:
        dense += ["--upcycled", f"{folder}/up-base"]
    polygraft("graft", f"{folder}/cpt", "-o", f"{folder}/graft", *dense)
    tensors, grafted_config = read_checkpoint(f"{folder}/graft")
    write_checkpoint(f"{folder}/permuted", permuted(tensors, [*range(2, count), 0, 1]), grafted_config)
    polygraft("graft", f"{folder}/cpt-all", "-o", f"{folder}/graft-all", *dense, "--max-shard-size", "100KB")
    polygraft("graft", f"{folder}/cpt-all", "-o", f"{folder}/graft-scaled", *dense, "--lambda", 0.7,
              "--expert-lambda", "0=1,2=0.3")  # fmt: skip
    polygraft("graft", f"{folder}/cpt-all", "-o", f"{folder}/graft-zero", *dense, "--lambda", 0)
    polygraft("graft", f"{folder}/cpt-all", "-o", f"{folder}/graft-folded", *dense, "--fold-router")


def byte_checks(case, folder):
    """(check, names of the tensors that fail it) for everything that METHOD states bit for bit."""
    read = {
        name: read_checkpoint(f"{folder}/{name}")[0]
        for name in "resaved base post up-base up-post cpt cpt-all graft-up graft graft-all graft-scaled graft-zero "
        "graft-folded".split()
    }
    base, post = read["base"], read["post"]

    count = router_rows(read["cpt"])

    def against_dense(ours, dense, first_only=False):
        """Tensors of `ours` that differ from what they are made of; `first_only` looks at no other expert than the first."""
        dense = dense if "lm_head.weight" in dense or "lm_head.weight" not in ours else with_head(dense)
        wrong = []
        for name, (dtype, stored) in ours.items():
            made, experts = origin(name, count, dense, case), experts_of(name, count, case["parts"])
            if made is None:
                continue
            of = np.broadcast_to(experts == 0 if first_only and experts is not None else True, made.shape)
            if from_f32(dtype, made)[of].tobytes() != stored[of].tobytes():
                wrong.append(name)
        return wrong

    yield "transformers saves the upcycled tensors as they were", differences(read["resaved"], read["up-base"])
    graft, cpt = read["graft"], read["cpt"]
    routers = [n for n in cpt if is_router(n) and graft[n][1].tobytes() != cpt[n][1].tobytes()]
    yield "upcycled tensors are what METHOD makes of the base's", against_dense(read["up-base"], base)
    yield "graft(upcycle(base)) = upcycle(post), every byte", differences(read["graft-up"], read["up-post"])
    yield "expert 0 and all shared tensors of the graft = post, every byte", against_dense(graft, post, True)
    yield "routers of the graft = cpt, every byte", routers
    yield "graft = numpy", differences(graft, graft_reference(cpt, base, post, case))
    all_, scales = read["cpt-all"], {0: 1.0, 2: 0.3}
    whole = graft_reference(all_, base, post, case)
    yield "graft of a fully trained cpt, sharded = numpy", differences(read["graft-all"], whole)
    scaled = graft_reference(all_, base, post, case, 0.7, scales)
    yield "graft with lambda 0.7, experts 0=1,2=0.3 = numpy", differences(read["graft-scaled"], scaled)
    zero = graft_reference(all_, base, post, case, 0.0)
    yield "graft with lambda 0 = cpt, every byte", differences(read["graft-zero"], zero)
    yield "folded routers see what they saw: R' w' = R w within the dtype's rounding", unfolded(read["graft-folded"], all_)


def unfolded(graft, cpt):
    """Routers whose rows times the norm before them differ from cpt's. Rounded twice: R' and the new norm weight."""
    wrong = []
    for name in filter(is_router, cpt):
        norm = re.sub(r"(block_sparse_moe|mlp)\.(gate|router\.layer)\.weight$", "post_attention_layernorm.weight", name)
        seen, before = (to_f32(*c[name]) * to_f32(*c[norm]) for c in (graft, cpt))  # [E, H]
        place = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24}[cpt[name][0]]
        if (np.abs(seen - before) > 4 * place * np.abs(before) + 1e-6).any():
            wrong.append(name)
    return wrong


def index_problems(folder):
    """What is wrong with the shards of `graft-all` against its index; empty if nothing."""
    with open(f"{folder}/graft-all/model.safetensors.index.json") as file:
        weight_map = json.load(file)["weight_map"]
    missing = [file for file in set(weight_map.values()) if not os.path.exists(f"{folder}/graft-all/{file}")]
    return missing + sorted(set(weight_map) ^ set(read_checkpoint(f"{folder}/graft-all")[0]))
