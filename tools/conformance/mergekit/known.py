"""Where mergekit does otherwise by itself: recipes that show each difference of docs/mergekit-differences.md, on both sides.

Each has a set, a recipe (`ours`, where polygraft's says it otherwise), and `shows(ours, theirs, inputs)`, which yields (what holds, whether it does, detail); tensors are by
name, or the message with which a program ended.
"""

import torch

from excused import importance_and_threshold
from recipes import DENSE, merge, shared, vectors

NORM = "model.norm.weight"


def float_of(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


def few_elements(ours, theirs, inputs):
    """64 elements x a density of 0.01 are less than one."""
    base = inputs["base"][NORM].float()
    yield "mergekit drops the whole task vector of a small tensor", torch.equal(theirs[NORM], base), ""
    changed = (ours[NORM] != base).sum().item()
    yield "polygraft keeps one element, as mergekit does in ties", changed == 1, changed


def zero_weights(ours, theirs, _):
    finite = isinstance(theirs, dict) and all(tensor.isfinite().all() for tensor in theirs.values())
    yield "mergekit divides by zero", not finite, theirs if isinstance(theirs, str) else ""
    yield "polygraft refuses", isinstance(ours, str) and "zero-weights" in ours, ours


def half_arithmetic(ours, theirs, inputs):
    """What is asked for is (base + sum of weighted differences) rounded once to BF16."""
    ours_right = theirs_right = total = 0
    for name, base in float_of(inputs["base"]).items():
        exact = base + sum(DENSE[m]["weight"] * (inputs[m][name].double() - base) for m in DENSE)
        right = exact.float().bfloat16()
        ours_right += (ours[name] == right).sum().item()
        theirs_right += (theirs[name] == right).sum().item()
        total += right.numel()
    yield "polygraft computes in F32 and rounds once", ours_right > 0.999 * total, f"{100 * ours_right / total:.3f} % right"
    yield "mergekit rounds every step to BF16", theirs_right < 0.9 * total, f"{100 * theirs_right / total:.3f} % right"


def dropped(rescale):
    """DARE at density 0.5: the masks are random, what is left of a task vector is scaled."""

    def shows(ours, theirs, inputs):
        for who, merged, factor in (("mergekit", theirs, "l1"), ("polygraft", ours, rescale)):
            kept = total = 0
            worst = 0.0
            for name, base in float_of(inputs["base"]).items():
                tau, left = inputs["a"][name].double() - base, merged[name].double() - base
                mask = (left != 0) & (tau != 0)
                kept, total = kept + mask.sum().item(), total + (tau != 0).sum().item()
                scale = tau.abs().sum() / tau[mask].abs().sum() if factor == "l1" else 2.0
                worst = max(worst, ((left - scale * tau)[mask].abs().max() / (base.abs().max() + tau.abs().max())).item())
            deviation = abs(kept - 0.5 * total) / (0.25 * total) ** 0.5
            yield f"{who} keeps half of the elements", deviation < 5, f"{kept} of {total}, {deviation:.1f} standard deviations apart"
            words = "the ratio of the L1 norms" if factor == "l1" else "the inverse of the probability to be kept"
            yield f"{who} scales them by {words}", worst < 1e-6, f"{worst:.1e} apart"

    return shows


def pruned(ours, theirs, inputs):
    """DELLA at density 0.5, epsilon 0.2: an element is kept with a probability that grows with its rank in its row."""
    for who, merged in (("mergekit", theirs), ("polygraft", ours)):
        kept, total, scales = torch.zeros(4), torch.zeros(4), []
        for name, base in float_of(inputs["base"]).items():
            tau, left = inputs["c"][name].double() - base, merged[name].double() - base
            width = base.shape[-1]
            # Of equal magnitudes that of lowest index ranks highest.
            ranks = width - 1 - tau.abs().argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
            quarter = (4 * ranks) // width
            for q in range(4):
                chosen = (quarter == q) & (tau != 0)
                kept[q] += (left[chosen] != 0).sum()
                total[q] += chosen.sum()
            if who == "polygraft":
                p = 0.3 + 0.4 * ranks / (width - 1)
                mask = (left != 0) & (tau != 0)
                scales.append(((left - tau / p)[mask].abs().max() / base.abs().max()).item())
        expected = torch.tensor([0.35, 0.45, 0.55, 0.65])  # the mean probability of each quarter of the ranks
        apart = ((kept / total - expected) / (expected * (1 - expected) / total).sqrt()).abs().max().item()
        shares = ", ".join(f"{100 * share:.1f} %" for share in kept / total)
        yield f"{who} keeps 35, 45, 55 and 65 % of the quarters by rank", apart < 5, f"{shares}; {apart:.1f} standard deviations apart"
    yield "polygraft scales each by the inverse of its probability", max(scales) < 1e-5, f"{max(scales):.1e} apart"


def no_direction(ours, theirs, inputs):
    """The trio's head was frozen in b: its task vector is 0, and t = 0.25."""
    name = "lm_head.weight"
    base, tau = inputs["base"][name].double(), inputs["a"][name].double() - inputs["base"][name].double()
    assert (inputs["b"][name] == inputs["base"][name]).all() and tau.norm() > 0
    for who, merged, factor in (("mergekit takes 0 for orthogonal: sin(0.75 * 90 degrees)", theirs, 0.9238795325), ("polygraft goes straight", ours, 0.75)):
        gap = (merged[name].double() - base - factor * tau).abs().max().item()
        yield who, gap < 1e-6, f"{gap:.1e} apart"


def important(ours, theirs, inputs):
    """Arcee Fusion in F32: which elements are the model's. Divergences of rows are small differences of large sums."""
    for who, merged, is_right in (("mergekit takes others than those above the threshold", theirs, False), ("polygraft takes those above the threshold", ours, True)):
        others = total = 0
        for name, base in float_of(inputs["base"]).items():
            model = inputs["c"][name].double()
            importance, threshold, either = importance_and_threshold(model, base)
            expected = torch.where(importance >= threshold, model, base)
            others += ((merged[name].double() - expected).abs() > 1e-6)[~either].sum().item()
            total += base.numel()
        yield who, (others == 0) == is_right, f"{others} of {total} elements otherwise"


def layer_types(ours, theirs, _):
    yield "mergekit ends with an error", isinstance(theirs, str) and "layer_types" in theirs, ""
    yield "polygraft writes as many types as layers", isinstance(ours, dict) and "model.layers.5.mlp.up_proj.weight" in ours, ""


MORE_LAYERS = [{"sources": [{"model": "a", "layer_range": part}]} for part in ([0, 3], [1, 4])]
FEW = {"a": {"weight": 1, "density": 0.01, "gamma": 0.01}}
HALF = {"a": {"weight": 1, "density": 0.5}}

KNOWN = {
    "breadcrumbs on small tensors": ("llama", vectors("breadcrumbs", FEW), few_elements),
    "weights that sum to zero": ("llama", merge("linear", {"a": {"weight": 1}, "b": {"weight": -1}}), zero_weights),
    "dtype bfloat16": ("qwen2", merge("task_arithmetic", DENSE, "base", dtype="bfloat16"), half_arithmetic),
    "dare_linear, rescaled": ("llama", vectors("dare_linear", HALF), dropped("probability")),
    "dare_linear, rescaled by norm": (
        "llama",
        vectors("dare_linear", HALF, rescale=True) | {"ours": vectors("dare_linear", HALF, rescale="l1")["config"]},
        dropped("l1"),
    ),
    "della": ("llama", vectors("della_linear", {"c": {"weight": 1, "density": 0.5, "epsilon": 0.2}}), pruned),
    "arcee_fusion, dtype float32": ("qwen2", shared("arcee_fusion", "c", "base"), important),
    "nuslerp with a task vector of 0": ("trio", merge("nuslerp", {"a": {"weight": 3}, "b": {"weight": 1}}, "base"), no_direction),
    "layer_types": ("qwen2", dict(config={"merge_method": "passthrough", "dtype": "float32", "slices": MORE_LAYERS}), layer_types),
}
