"""Loads every output in one transformers major and compares logits: `python models.py <work folder> <case> ...`

Prints lines "PASS|FAIL|SKIP <tab> case <tab> check <tab> detail" for conformance.py. Run in either environment.
"""

import glob
import os
import shutil
import sys
import tempfile

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from cases import CASES, DENSE_CASES
from stored import differences, read_checkpoint

transformers.utils.logging.disable_progress_bar()
MAJOR = int(transformers.__version__.split(".")[0])
# Of the largest logit. Equal experts add up to w_1 y + w_2 y with rounded weights, in another order when permuted:
# 2.5e-7 to 4.6e-7 was measured over all cases.
F32_TOLERANCE = 1e-6
KEYS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs", "conversion_errors")


def load(path, dtype=torch.float32):
    """The model, and what its loading reported wrong."""
    options = {}
    if MAJOR == 5:
        options["experts_implementation"] = "eager"
    elif os.path.basename(path) in ("base", "post"):
        # A dense config that version 5 wrote holds RoPE where version 4 does not look. Ours must hold it in both.
        rope = dict(AutoConfig.from_pretrained(path).to_dict().get("rope_parameters") or {})
        options = {"rope_theta": rope["rope_theta"]} if rope else {}
    model, info = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, attn_implementation="sdpa", output_loading_info=True, **options
    )
    return model.eval(), {key: info[key] for key in KEYS if info.get(key)}


@torch.no_grad()
def logits(model):
    """[2, 24, V]"""
    tokens = torch.randint(3, model.config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(0))
    return model(tokens).logits.float()


def gap(a, b):
    """Largest difference, as a share of the largest logit."""
    return ((a - b).abs().max() / b.abs().max()).item()


class FirstExpertGate(torch.nn.Module):
    """A gate that gives expert 0 all of the weight, its `parts` equal shares. (A zero router would not: equal logits
    tie, at other experts.) It returns what the module `kind` in its place does."""

    def __init__(self, weight, kind, top_k, parts):
        super().__init__()
        self.weight, self.kind, self.top_k, self.parts = weight, kind, top_k, parts

    def forward(self, hidden):
        hidden = hidden.reshape(-1, hidden.shape[-1])
        router_logits = torch.full((hidden.shape[0], self.weight.shape[0]), -torch.inf, dtype=hidden.dtype)
        router_logits[:, : self.parts] = 0
        if MAJOR == 4:
            return router_logits
        scores, chosen = router_logits.float().softmax(-1).topk(self.top_k, -1)
        scores = scores.to(hidden.dtype)
        return (chosen, scores, router_logits) if self.kind == "router" else (router_logits, scores, chosen)


class FirstExpertUnfused(torch.nn.Module):
    """Version 5's experts with expert 0's gate and up as two products, as the dense model has them: version 5 fuses
    the two, and a product of another width may round its elements otherwise."""

    def __init__(self, experts):
        super().__init__()
        self.gate_up_proj, self.down_proj, self.act_fn = experts.gate_up_proj, experts.down_proj, experts.act_fn

    def forward(self, hidden, top_k_index, top_k_weights):
        assert (top_k_index[:, 0] == 0).all() and (top_k_weights[:, 0] == 1).all()
        gate, up = self.gate_up_proj[0].chunk(2)  # [I, H] each
        activated = self.act_fn(torch.nn.functional.linear(hidden, gate)) * torch.nn.functional.linear(hidden, up)
        return torch.nn.functional.linear(activated, self.down_proj[0])


def force_first_expert(model, parts):
    top_k = model.config.num_experts_per_tok
    for module in list(model.modules()):
        if hasattr(module, "gate") and hasattr(module, "experts"):
            module.gate = FirstExpertGate(module.gate.weight, "gate", top_k, parts)
        elif hasattr(module, "router") and hasattr(module, "input_linear"):
            module.router.layer = FirstExpertGate(module.router.layer.weight, "layer", top_k, parts)
        elif hasattr(module, "router") and hasattr(module, "experts"):
            module.router = FirstExpertGate(module.router.weight, "router", top_k, parts)
        if MAJOR == 5 and hasattr(module, "experts") and parts == 1:
            module.experts = FirstExpertUnfused(module.experts)
    return model


def reopened(model, source):
    """What differs after save_pretrained and reopening; empty if nothing."""
    folder = tempfile.mkdtemp()
    try:
        model.save_pretrained(folder)
        again, info = load(folder, model.dtype)
        wrong = differences(read_checkpoint(folder)[0], read_checkpoint(source)[0])
        if not torch.equal(logits(again), logits(model)):
            wrong.append("logits")
        return [*info, *wrong]
    finally:
        shutil.rmtree(folder)


def checks(case, folder):
    """(check, whether it holds, detail)"""
    models = {}
    for name in ("base", "post", "up-base", "up-post", "graft-up", "graft", "graft-all", "permuted"):
        models[name], info = load(f"{folder}/{name}")
        if name not in ("base", "post", "permuted"):  # those that polygraft wrote
            yield f"{name}: no missing, unexpected or mismatched key", not info, info or ""
    out = {name: logits(model) for name, model in models.items()}

    for dense, up in (("base", "up-base"), ("post", "up-post")):
        difference = gap(out[up], out[dense])
        yield f"{up}: logits of {dense} in F32", difference <= F32_TOLERANCE, f"{difference:.1e}"
    # In F32 it is not: an expert multiplies a part of the rows, and the matmul of fewer rows may round otherwise.
    if case["parts"] == 1:
        top1, dense = (logits(load(f"{folder}/{name}", torch.bfloat16)[0]) for name in ("up-top1", "base"))
        yield "upcycled with top 1: logits of base in BF16, bit for bit", torch.equal(top1, dense), f"{gap(top1, dense):.1e}"
    yield "graft(upcycle(base)): logits of upcycle(post), bit for bit", torch.equal(out["graft-up"], out["up-post"]), ""
    forced = logits(force_first_expert(models["graft"], case["parts"]))
    difference = gap(forced, out["post"])
    # Parts are summed in another order than the whole; version 4's Granite takes the activation of halves of rows, whose
    # last elements torch computes by another routine.
    if case["parts"] > 1 or (case["target"], MAJOR) == ("granitemoe", 4):
        yield "graft with routing forced to expert 0: logits of post", difference <= F32_TOLERANCE, f"{difference:.1e}"
    else:
        yield "graft with routing forced to expert 0: logits of post, bit for bit", torch.equal(forced, out["post"]), (
            f"{difference:.1e}"
        )
    difference = gap(out["permuted"], out["graft"])
    yield "experts and router rows permuted: same logits", difference <= F32_TOLERANCE, f"{difference:.1e}"
    differs = gap(out["graft"], out["up-post"])
    yield "graft differs from upcycle(post), so the checks above see the experts", differs > 1e-3, f"{differs:.1e}"
    wrong = reopened(load(f"{folder}/graft", getattr(torch, case["dtype"]))[0], f"{folder}/graft")
    yield "save_pretrained and reopen: same names, bytes and logits", not wrong, wrong[:5] or ""


def depth_checks(case, folder):
    models = {}
    for name in ("base", "post", "deep", "deep-fresh", "deep-graft"):
        models[name], info = load(f"{folder}/{name}")
        if name not in ("base", "post"):
            yield f"{name}: no missing, unexpected or mismatched key", not info, info or ""
    out = {name: logits(model) for name, model in models.items()}
    for dense, deep in (("base", "deep"), ("post", "deep-fresh")):
        difference = gap(out[deep], out[dense])
        yield f"{deep}: logits of {dense}, bit for bit", torch.equal(out[deep], out[dense]), f"{difference:.1e}"
    differs = gap(out["deep-graft"], out["post"])
    yield "deep-graft differs from post, so the checks above see inserted layers", differs > 1e-3, f"{differs:.1e}"
    wrong = reopened(load(f"{folder}/deep-graft", getattr(torch, case["dtype"]))[0], f"{folder}/deep-graft")
    yield "deep-graft, save_pretrained and reopen: same names, bytes and logits", not wrong, wrong[:5] or ""


def vocabulary_checks(work):
    for folder in sorted(glob.glob(f"{work}/vocabulary/graft-*")):
        _, info = load(folder)
        yield f"{os.path.basename(folder)}: no missing, unexpected or mismatched key", not info, info or ""


def report(name, results):
    """Prints each (check, whether it holds, detail); what raises is one failed check, and the other cases still run."""
    try:
        for check, holds, detail in results:
            print("PASS" if holds else "FAIL", name, check, detail, sep="\t", flush=True)
    except Exception as error:
        print("FAIL", name, "loads", " ".join(str(error).split())[:300], sep="\t", flush=True)


def main(work, names):
    torch.set_num_threads(1)
    for case in (c for c in CASES + DENSE_CASES if c["name"] in names):
        folder = f"{work}/{case['name']}"
        if os.path.exists(f"{folder}/deep-graft"):
            report(case["name"], depth_checks(case, folder))
        if case["target"] is None:
            continue
        if not os.path.exists(f"{folder}/graft"):
            print("SKIP", case["name"], "models", "nothing to load", sep="\t", flush=True)
            continue
        report(case["name"], checks(case, folder))
    report("vocabulary", vocabulary_checks(work))


if __name__ == "__main__":
    main(sys.argv[1], set(sys.argv[2:]))
