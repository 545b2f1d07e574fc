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


def graft_values(cpt, base, post, scale=1.0):
    """METHOD: cpt + lambda (post - base) in F32, each operation rounded apart; elements that are equal pass through."""
    scale = np.float32(scale)
    moved = cpt + scale * (post - base)
    if scale == 1:
        moved = np.where(cpt == base, post, moved)
    return np.where(post == base, cpt, moved)


EXPERT = re.compile(r"(.*\.)(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(\w+)\.weight$")
MIXTRAL_PARTS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def expert_of(name):
    """The expert's index, or None for a tensor that is not an expert's."""
    match = EXPERT.match(name)
    return int(match[2]) if match else None


def is_router(name):
    return name.endswith((".block_sparse_moe.gate.weight", ".mlp.gate.weight"))


def dense_name(name):
    """The dense tensor that a tensor of the mixture comes from; None where there is none (routers, placeholders)."""
    match = EXPERT.match(name)
    if match:
        return f"{match[1]}mlp.{MIXTRAL_PARTS.get(match[3], match[3])}.weight"
    return None if is_router(name) or ".shared_expert" in name else name


def with_head(tensors):
    """A tied head as a tensor of its own."""
    return {"lm_head.weight": tensors["model.embed_tokens.weight"], **tensors}


def graft_reference(cpt, base, post, scale=1.0, expert_scale=None):
    """The whole graft: what every output tensor must hold. Experts take `scale` times their own factor."""
    if "lm_head.weight" in post:  # an untied post unties the output
        cpt, base = with_head(cpt), with_head(base)
    result = {}
    for name, (dtype, stored) in cpt.items():
        source, expert = dense_name(name), expert_of(name)
        if source is None:
            result[name] = dtype, stored
            continue
        factor = scale * (expert_scale or {}).get(expert, 1.0)
        values = graft_values(to_f32(dtype, stored), to_f32(*base[source]), to_f32(*post[source]), factor)
        result[name] = dtype, from_f32(dtype, values)
    return result


def differences(ours, reference):
    """Names whose dtype, shape or bits differ, and names that only one of the two has."""
    wrong = sorted(set(ours) ^ set(reference))
    for name in set(ours) & set(reference):
        (dtype, a), (wanted, b) = ours[name], reference[name]
        if dtype != wanted or a.shape != b.shape or a.tobytes() != b.tobytes():
            wrong.append(name)
    return wrong
