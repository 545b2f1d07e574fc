"""Safetensors, BF16 and the graft in plain numpy, written apart from polygraft and from the safetensors library.

Values are the stored bits: BF16 as uint16, so that comparing arrays compares bits.
"""

import glob
import json
import os
import re

import numpy as np

STORED = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}


def read_checkpoint(folder):
    """{name: (dtype, array of stored values)} over all shards, and the parsed config."""
    tensors = {}
    for path in sorted(glob.glob(f"{folder}/*.safetensors")):
        data = np.fromfile(path, np.uint8)
        length = int(data[:8].view(np.uint64)[0])
        header = json.loads(data[8 : 8 + length].tobytes())
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            raw = data[8 + length + begin : 8 + length + end]
            tensors[name] = entry["dtype"], raw.view(STORED[entry["dtype"]]).reshape(entry["shape"])
    with open(f"{folder}/config.json") as file:
        return tensors, json.load(file)


def write_checkpoint(folder, tensors, config):
    """One model.safetensors, tensors sorted by name."""
    os.makedirs(folder, exist_ok=True)
    header, offset, names = {"__metadata__": {"format": "pt"}}, 0, sorted(tensors)
    for name in names:
        dtype, array = tensors[name]
        header[name] = dict(dtype=dtype, shape=list(array.shape), data_offsets=[offset, offset + array.nbytes])
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(np.uint64(len(text)).tobytes() + text)
        for name in names:
            file.write(np.ascontiguousarray(tensors[name][1]).tobytes())
    with open(f"{folder}/config.json", "w") as file:
        json.dump(config, file, indent=2)


def to_f32(dtype, array):
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def from_f32(dtype, values):
    """Rounded to nearest, ties to even; NaN canonical. BF16 by adding half of the last place on the bits."""
    if dtype != "BF16":
        return values.astype(STORED[dtype])
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def graft_values(cpt, base, post, scale=np.float32(1)):
    """METHOD: cpt + lambda (post - base) in F32, each operation rounded apart; elements that are equal pass through."""
    moved = cpt + scale * (post - base)
    moved = np.where((cpt == base) & (scale == 1), post, moved)
    return np.where(post == base, cpt, moved)


EXPERT = re.compile(r"(.*\.)(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(\w+)\.weight$")
FUSED = re.compile(r"(.*\.)block_sparse_moe\.(input_linear|output_linear)\.weight$")
SHARED = re.compile(r"(.*\.)mlp\.shared_expert\.(\w+)\.weight$")
MIXTRAL_PARTS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def expert_of(name):
    """The expert's index, or None for a tensor that is not one expert's."""
    match = EXPERT.match(name)
    return int(match[2]) if match else None


def experts_of(name, count, parts):
    """Where the elements belong to experts: the whole expert of each, in a shape that broadcasts; else None."""
    if FUSED.match(name):
        return np.arange(count).reshape(-1, 1, 1) // parts
    expert = expert_of(name)
    return None if expert is None else np.array(expert // parts)


def is_router(name):
    return name.endswith((".block_sparse_moe.gate.weight", ".mlp.gate.weight", ".router.layer.weight"))


def dense_name(name):
    """The dense tensor that a tensor of a mixture of plain copies comes from; None where there is none."""
    match = EXPERT.match(name)
    if match:
        return f"{match[1]}mlp.{MIXTRAL_PARTS.get(match[3], match[3])}.weight"
    return None if is_router(name) or ".shared_expert" in name else name


def origin(name, count, dense, case):
    """The F32 values that tensor `name` of a mixture of `count` experts comes from, of the dense model's tensors;
    None for what no dense tensor is the origin of (routers, placeholders, biases that the dense family lacks)."""

    def part(prefix, expert, matrix):
        values = to_f32(*dense[f"{prefix}mlp.{matrix}.weight"])
        pieces = np.split(values, case["parts"], axis=1 if matrix == "down_proj" else 0)
        made = pieces[expert % case["parts"]]
        # A token's experts weigh 1 / (parts * top k) each, and the shared one takes half of all.
        return made * np.float32(case["parts"] * (0.5 if case["shared"] else 1)) if matrix == "down_proj" else made

    if match := FUSED.match(name):
        of = ("gate_proj", "up_proj") if match[2] == "input_linear" else ("down_proj",)
        return np.stack([np.concatenate([part(match[1], e, m) for m in of]) for e in range(count)])
    if match := EXPERT.match(name):
        return part(match[1], int(match[2]), MIXTRAL_PARTS.get(match[3], match[3]))
    if match := SHARED.match(name):
        return to_f32(*dense[f"{match[1]}mlp.{match[2]}.weight"]) if case["shared"] else None
    return to_f32(*dense[name]) if name in dense else None


def with_head(tensors):
    """A tied head as a tensor of its own."""
    return {"lm_head.weight": tensors["model.embed_tokens.weight"], **tensors}


def graft_reference(cpt, base, post, case, scale=1.0, expert_scale=None):
    """The whole graft: what every output tensor must hold. Experts take `scale` times their own factor."""
    if "lm_head.weight" in post:  # an untied post unties the output
        cpt, base = with_head(cpt), with_head(base)
    result = {}
    count = router_rows(cpt)
    for name, (dtype, stored) in cpt.items():
        before, after = (origin(name, count, dense, case) for dense in (base, post))
        if before is None:
            result[name] = dtype, stored
            continue
        experts = experts_of(name, count, case["parts"])
        factor = np.float32(scale)
        if experts is not None and expert_scale:
            factor = np.vectorize(lambda e: np.float32(scale * expert_scale.get(e, 1.0)))(experts)
        result[name] = dtype, from_f32(dtype, graft_values(to_f32(dtype, stored), before, after, factor))
    return result


def router_rows(tensors):
    """E, the number of experts."""
    return next(stored.shape[0] for name, (_, stored) in tensors.items() if is_router(name))


def differences(ours, reference):
    """Names whose dtype, shape or bits differ, and names that only one of the two has."""
    wrong = sorted(set(ours) ^ set(reference))
    for name in set(ours) & set(reference):
        (dtype, a), (wanted, b) = ours[name], reference[name]
        if dtype != wanted or a.shape != b.shape or a.tobytes() != b.tobytes():
            wrong.append(name)
    return wrong
