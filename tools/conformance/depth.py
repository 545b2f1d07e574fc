"""Depth expansion: `polygraft expand` and a graft onto it, in numpy. For each of DEPTH <work>/<case>/ gets
  deep         base with layers inserted
  deep-cpt     the inserted layers trained: moved by noise, saved without polygraft.json as trainers do
  deep-graft   the delta on deep-cpt
  deep-fresh   the delta on deep
"""

import re

import numpy as np

from prepare import moved, polygraft
from stored import differences, read_checkpoint, write_checkpoint

# The layer of the base that each layer of the result is, None for inserted ones.
DEPTH = {
    "llama": [0, None, 1, None],
    "llama-tied": [0, 1, None],
    "mistral-window": [0, None, 1, None],
    "qwen2": [0, 1, None],
    "qwen2-window": [0, None, 1, None],
    "qwen3": [0, None, 1, None],
    "depth-mixed-window": [0, 1, None, 2, 3, None],
}
LAYER = re.compile(r"model\.layers\.(\d+)\.")
OUTPUT = re.compile(r"\.(o_proj|down_proj)\.")


def layer_of(name):
    match = LAYER.match(name)
    return int(match[1]) if match else None


def is_inserted(name, layers):
    layer = layer_of(name)
    return layer is not None and layers[layer] is None


def renamed(name, layers):
    """The base's name of a tensor: that of its own layer, or for an inserted one of the layer before it."""
    layer = layer_of(name)
    if layer is None:
        return name
    original = [each for each in layers[: layer + 1] if each is not None][-1]
    return LAYER.sub(f"model.layers.{original}.", name)


def make_deep(case, folder):
    layers = DEPTH[case["name"]]
    blocks = layers.count(None)
    dense = ["--base", f"{folder}/base", "--post", f"{folder}/post"]
    polygraft("expand", f"{folder}/base", "-o", f"{folder}/deep", "--blocks", blocks)
    tensors, config = read_checkpoint(f"{folder}/deep")
    trained = moved(tensors, lambda name: is_inserted(name, layers), np.random.default_rng(2))
    write_checkpoint(f"{folder}/deep-cpt", trained, config)
    polygraft("graft", f"{folder}/deep", "-o", f"{folder}/deep-fresh", *dense)
    polygraft("graft", f"{folder}/deep-cpt", "-o", f"{folder}/deep-graft", *dense, "--upcycled", f"{folder}/deep")


def deep_checks(case, folder):
    """(check, names of the tensors that fail it)"""
    layers = DEPTH[case["name"]]
    base, post, deep, cpt, graft, fresh = (
        read_checkpoint(f"{folder}/{name}")[0]
        for name in ("base", "post", "deep", "deep-cpt", "deep-graft", "deep-fresh")
    )

    def expanded(dense, inserted):
        """`dense` with the inserted layers of `inserted`."""
        return {n: inserted[n] if is_inserted(n, layers) else dense[renamed(n, layers)] for n in inserted}

    def copied(name):
        dtype, stored = base[renamed(name, layers)]
        return dtype, np.zeros_like(stored) if is_inserted(name, layers) and OUTPUT.search(name) else stored

    yield "expanded: copies of base, outputs of inserted layers zero", differences(deep, {n: copied(n) for n in deep})
    yield "every tensor of base is there", sorted(set(base) - {renamed(n, layers) for n in deep})
    yield "graft onto trained layers = post, with cpt's inserted layers", differences(graft, expanded(post, cpt))
    yield "graft onto fresh layers = post, with base's inserted layers", differences(fresh, expanded(post, deep))
