"""Grafts a large sharded BF16 trio and compares every byte with numpy: `python large.py --scratch <folder> [--gb 2]`

Makes, in the scratch folder, a Llama base and a post-trained model of `--gb` GB each and an upcycled, trained Mixtral of
2 experts (about 1.6 times that), in shards of three different sizes; grafts with the polygraft command; recomputes the
output from the files with numpy, chunk by chunk; prints the command's time and peak resident memory; removes it all.
Needs about 7 times `--gb` of disk. The values hold every BF16 bit pattern: subnormals, infinities, NaN, both zeros.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np

from prepare import COMMAND
from stored import dense_name, expert_of, from_f32, graft_values, is_router, to_f32

HIDDEN, FFN, VOCABULARY, EXPERTS = 2048, 5632, 32000, 2
CHUNK = 1 << 22  # elements
ALL_PATTERNS = np.arange(1 << 16, dtype=np.uint16)

# Run by a small process of its own: Linux counts the pages of the process that starts a child to the child's peak.
MEASURE = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=sys.stderr); sys.exit(code)"
)


def dense_shapes(layers):
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    shapes["model.norm.weight"] = (HIDDEN,)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (HIDDEN, HIDDEN)
        for name in ("gate", "up"):
            shapes[f"{prefix}mlp.{name}_proj.weight"] = (FFN, HIDDEN)
        shapes[f"{prefix}mlp.down_proj.weight"] = (HIDDEN, FFN)
        for name in ("input", "post_attention"):
            shapes[f"{prefix}{name}_layernorm.weight"] = (HIDDEN,)
    return shapes


def moe_shapes(dense):
    parts, shapes = {"gate": "w1", "up": "w3", "down": "w2"}, {}
    for name, shape in dense.items():
        layer, _, part = name.partition(".mlp.")
        if not part:
            shapes[name] = shape
            continue
        block = f"{layer}.block_sparse_moe"
        shapes[f"{block}.gate.weight"] = (EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            shapes[f"{block}.experts.{expert}.{parts[part.split('_')[0]]}.weight"] = shape
    return shapes


def config(model_type, layers, **fields):
    return dict(
        model_type=model_type, architectures=[f"{model_type.title()}ForCausalLM"], hidden_size=HIDDEN,
        intermediate_size=FFN, num_hidden_layers=layers, num_attention_heads=16, num_key_value_heads=16,
        vocab_size=VOCABULARY, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False,
        max_position_embeddings=4096, torch_dtype="bfloat16", **fields,
    )  # fmt: skip


# Values, as BF16 bits. One seed for each tensor of the base; the others are the base with some low bits flipped.


def base_values(name, shape):
    """Weights of the size of a real model's, and every bit pattern once at the front of each large tensor."""
    rng = np.random.default_rng(seed_of(name))
    count = int(np.prod(shape))
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    values = (bits & np.uint16(0x83FF)) | np.uint16(0x3800)  # sign and mantissa random, |x| from 2^-15 to 2^-7
    if count >= 2 * ALL_PATTERNS.size:
        values[: ALL_PATTERNS.size] = rng.permutation(ALL_PATTERNS)
    return values


def flipped(values, name, role, share):
    """About `share` of the values with other low mantissa bits; the front also in sign and exponent."""
    rng = np.random.default_rng(seed_of(role + name))
    draws = rng.integers(0, 1 << 16, values.size, dtype=np.uint16)
    result = values ^ np.where(draws < share * 65536, draws & np.uint16(0x1F), np.uint16(0))
    if values.size >= 2 * ALL_PATTERNS.size:
        front = slice(0, ALL_PATTERNS.size // 2)
        result[front] = rng.permutation(result[front])
    return result


def seed_of(text):
    return int.from_bytes(text.encode(), "little") % (1 << 64)


def write_sharded(folder, shapes, values_of, shard_bytes, config_json):
    """Shards filled in order, each tensor made when it is written, and their index."""
    os.makedirs(folder)
    shards, size = [[]], 0
    for name, shape in shapes.items():
        nbytes = 2 * int(np.prod(shape))
        if shards[-1] and size + nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file, header, offset = f"model-{number:05}-of-{len(shards):05}.safetensors", {}, 0
        for name in names:
            end = offset + 2 * int(np.prod(shapes[name]))
            header[name] = dict(dtype="BF16", shape=list(shapes[name]), data_offsets=[offset, end])
            weight_map[name], offset = file, end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(f"{folder}/{file}", "wb") as out:
            out.write(np.uint64(len(text)).tobytes() + text)
            for name in names:
                values_of(name, shapes[name]).tofile(out)
    with open(f"{folder}/model.safetensors.index.json", "w") as out:
        json.dump({"metadata": {}, "weight_map": weight_map}, out)
    with open(f"{folder}/config.json", "w") as out:
        json.dump(config_json, out)


def map_checkpoint(folder):
    """{name: memory-mapped BF16 bits, flat}"""
    tensors = {}
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        data = np.memmap(f"{folder}/{file}", np.uint8, "r")
        length = int(data[:8].view(np.uint64)[0])
        header = json.loads(data[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        for name, entry in header.items():
            assert entry["dtype"] == "BF16", (name, entry)
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = data[begin:end].view(np.uint16)
    return tensors


def make_trio(scratch, gb):
    layers = max(1, round((gb * 5e8 - 2 * VOCABULARY * HIDDEN) / (4 * HIDDEN * HIDDEN + 3 * HIDDEN * FFN)))
    dense = dense_shapes(layers)
    mixtral = config("mixtral", layers, num_local_experts=EXPERTS, num_experts=EXPERTS, num_experts_per_tok=2)

    def post(name, shape):
        return flipped(base_values(name, shape), name, "post", 0.9)

    def cpt(name, shape):
        if is_router(name):
            return base_values(name, shape)
        values = base_values(dense_name(name), shape)
        return values if expert_of(name) == 0 else flipped(values, name, "cpt", 0.9 if expert_of(name) else 0.1)

    write_sharded(f"{scratch}/base", dense, base_values, 7e8, config("llama", layers))
    write_sharded(f"{scratch}/post", dense, post, 5e8, config("llama", layers))
    write_sharded(f"{scratch}/cpt", moe_shapes(dense), cpt, 9e8, mixtral)


def graft(scratch, shard_size):
    """Seconds and peak bytes of the command."""
    sources = ["--base", f"{scratch}/base", "--post", f"{scratch}/post"]
    command = [*COMMAND, "graft", f"{scratch}/cpt", "-o", f"{scratch}/graft", *sources, "--max-shard-size", shard_size]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-S", "-c", MEASURE, *command], stderr=subprocess.PIPE, text=True)
    elapsed = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"polygraft failed:\n{done.stderr}")
    return elapsed, int(done.stderr.strip().splitlines()[-1])


def compare(scratch):
    """(elements compared, names of tensors that differ)"""
    base, post, cpt, ours = (map_checkpoint(f"{scratch}/{name}") for name in ("base", "post", "cpt", "graft"))
    wrong, compared = sorted(set(cpt) ^ set(ours)), 0
    for name in (name for name in cpt if name in ours):
        source = dense_name(name)
        for begin in range(0, cpt[name].size, CHUNK):
            part = slice(begin, begin + CHUNK)
            expected = cpt[name][part]
            if source is not None:
                values = [to_f32("BF16", bits[part]) for bits in (cpt[name], base[source], post[source])]
                expected = from_f32("BF16", graft_values(*values))
            compared += expected.size
            if not np.array_equal(expected, ours[name][part]):
                wrong.append(f"{name} from element {begin}")
                break
    return compared, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", required=True, help="a folder that does not exist yet; removed at the end")
    parser.add_argument("--gb", type=float, default=2.0, help="size of the base and of the post-trained model each")
    parser.add_argument("--max-peak-mb", type=float, default=512.0, help="fail above this peak, in MiB")
    parser.add_argument("--max-shard-size", default="1GB", help="of the output")
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder behind")
    options = parser.parse_args()
    np.seterr(all="ignore")  # infinities and NaN are part of the data
    os.makedirs(options.scratch)
    try:
        print(f"large: making a trio of {options.gb:g} GB ...", flush=True)
        make_trio(options.scratch, options.gb)
        elapsed, peak = graft(options.scratch, options.max_shard_size)
        moved = sum(
            os.path.getsize(f"{options.scratch}/{folder}/{file}")
            for folder in ("base", "post", "cpt", "graft")
            for file in os.listdir(f"{options.scratch}/{folder}")
        )
        print(f"large: graft took {elapsed:.1f} s, {moved / elapsed / 1e9:.2f} GB/s read and written", flush=True)
        compared, wrong = compare(options.scratch)
        print(f"large: {compared} elements compared with numpy, {len(wrong)} tensors differ", *wrong[:5], sep="\n  ")
        print(f"large: peak memory {peak / 2**20:.0f} MiB (limit {options.max_peak_mb:g})")
        sys.exit(bool(wrong) or peak > options.max_peak_mb * 2**20)
    finally:
        if not options.keep:
            shutil.rmtree(options.scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
