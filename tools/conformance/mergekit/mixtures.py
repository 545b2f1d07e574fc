"""mergekit-moe's configs through its own `build` and through `polygraft upcycle --config`: gates that are made of prompts.

Each check takes the folder of the trained trio and one to work in, and yields (what holds, whether it does, detail).
"""

import json
import re
from unittest.mock import patch

import torch
from inputs import stored
from mergekit.moe import router
from mergekit.moe.config import MoEMergeConfig
from mergekit.options import MergeOptions
from mergekit.scripts.moe import build
from prepare import polygraft
from transformers import AutoModelForCausalLM, AutoTokenizer

EQUAL = (["kona rina dima", "rina dima kona"], ["dima dima rina"], ["rina rina rina"])
UNEQUAL = (["kona rina dima", "rina"], ["dima", "kona dima rina rina"], ["rina rina rina", "dima kona"])
LOAD = AutoModelForCausalLM.from_pretrained
# Of the elements of rows of length 1.
NEAR, NEAR_BF16 = 2e-5, 0.05


def config_of(trio, mode, prompts):
    positive, negative, other = prompts
    experts = [
        {"source_model": f"{trio}/base", "positive_prompts": positive, "negative_prompts": negative},
        {"source_model": f"{trio}/a", "positive_prompts": other},
    ]
    return {"base_model": f"{trio}/base", "gate_mode": mode, "dtype": "float32", "experts": experts}


def gates_of(folder):
    """[layers, experts, hidden]"""
    found = {}
    for name, tensor in stored(folder).items():
        if name.endswith(".gate.weight"):
            found[int(re.search(r"layers\.(\d+)\.", name)[1])] = tensor.double()
    return torch.stack([found[layer] for layer in sorted(found)])


def in_float32(*args, **options):
    return LOAD(*args, **(options | {"torch_dtype": torch.float32}))


def both(trio, work, mode, prompts, wide=True):
    config = config_of(trio, mode, prompts)
    options = MergeOptions(copy_tokenizer=False, quiet=True)
    with patch.object(router.AutoModelForCausalLM, "from_pretrained", in_float32 if wide else LOAD):
        build(MoEMergeConfig.model_validate(config), f"{work}.theirs", options, device="cpu")
    with open(f"{work}.yml", "w") as file:
        json.dump(config, file)
    polygraft("upcycle", "--config", f"{work}.yml", "-o", f"{work}.ours")
    return gates_of(f"{work}.ours"), gates_of(f"{work}.theirs")


def gap_of(a, b):
    return (a - b).abs().max().item()


def same(mode, prompts, wide=True):
    def check(trio, work):
        ours, theirs = both(trio, work, mode, prompts, wide)
        near = NEAR if wide else NEAR_BF16
        yield "gates as mergekit's", ours.shape == theirs.shape and gap_of(ours, theirs) <= near, f"{gap_of(ours, theirs):.1e} apart"

    return check


def plain_average(trio, prompts):
    """The mean of the hidden states over the tokens of each prompt, then over prompts, by transformers, one prompt after the other."""
    tokenizer = AutoTokenizer.from_pretrained(f"{trio}/base")
    model = LOAD(f"{trio}/base", dtype=torch.float32)

    def mean(texts):
        states = []
        for text in texts:
            ids = tokenizer(tokenizer.bos_token + text, return_tensors="pt", add_special_tokens=False)
            with torch.no_grad():
                hidden = model(**ids, output_hidden_states=True).hidden_states[:-1]
            states.append(torch.stack(hidden)[:, 0].double().mean(dim=1))
        return torch.stack(states).mean(dim=0)  # [layers, hidden]

    positive, negative, other = prompts
    rows = torch.stack([mean(positive) - mean(negative), mean(other)], dim=1)
    return rows / rows.norm(dim=-1, keepdim=True)


def padded(trio, work):
    ours, theirs = both(trio, work, "hidden_avg", UNEQUAL)
    exact = plain_average(trio, UNEQUAL)
    yield "documented: mergekit averages over padding, too", gap_of(theirs, exact) > 1e-3, f"{gap_of(theirs, exact):.1e} from the mean over tokens"
    yield "documented: polygraft averages over tokens", gap_of(ours, exact) <= NEAR, f"{gap_of(ours, exact):.1e} from it"


def experts(trio, work):
    both(trio, work, "cheap_embed", UNEQUAL)
    ours, theirs = stored(f"{work}.ours"), stored(f"{work}.theirs")
    rest = [name for name in ours.keys() & theirs.keys() if "gate" not in name]
    yield "all that is not an expert or gate is equal", all(torch.equal(ours[name], theirs[name]) for name in rest) and len(rest) > 10, f"{len(rest)} tensors of one name"


MIXTURES = {
    "cheap_embed": same("cheap_embed", UNEQUAL),
    "hidden": same("hidden", UNEQUAL),
    "hidden_last": same("hidden_last", EQUAL),
    "hidden_avg, prompts of equal length": same("hidden_avg", EQUAL),
    "hidden, the model in BF16": same("hidden", UNEQUAL, wide=False),
    "hidden_avg, prompts of unequal length": padded,
    "all but gates": experts,
}
