"""Golden files for packages/tensor-io: what the reference writers make of the same tensors.

Every tensor's bytes are 0, 1, 2, ... modulo 251, so that the test can make them again. `cases.json` lists, for each
file, the tensors in the order in which they were handed over, and the metadata.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from huggingface_hub.serialization._base import split_state_dict_into_shards_factory
from safetensors import TensorSpec, serialize

# As the Python package names them; the two names differ for all that numpy does not know.
WRITER_NAMES = {
    "BOOL": "bool", "F4": "float4_e2m1fn_x2", "U8": "uint8", "I8": "int8",
    "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "bfloat16",
    "I32": "int32", "U32": "uint32", "F32": "float32", "C64": "complex64",
    "F64": "float64", "I64": "int64", "U64": "uint64",
}  # fmt: skip
BITS = {"BOOL": 8, "F4": 4, "U8": 8, "I8": 8, "C64": 64}


def bits(dtype):
    if dtype in BITS:
        return BITS[dtype]
    return 8 if dtype.startswith("F8") else int(dtype.lstrip("BFIU"))


def byte_size(dtype, shape):
    return int(np.prod(shape, dtype=np.int64)) * bits(dtype) // 8


def write(path, tensors, metadata=None):
    specs, keep = {}, []
    for name, dtype, shape in tensors:
        data = (np.arange(byte_size(dtype, shape)) % 251).astype(np.uint8)
        keep.append(data)
        # The writer counts pairs in float4_e2m1fn_x2 and doubles the last dimension itself.
        handed = [*shape[:-1], shape[-1] // 2] if dtype == "F4" else shape
        specs[name] = TensorSpec(
            dtype=WRITER_NAMES[dtype], shape=handed, data_ptr=data.ctypes.data, data_len=data.nbytes
        )
    path.write_bytes(serialize(specs, metadata=metadata))


def write_sharded(folder, tensors, max_shard_bytes):
    """The layout of `save_pretrained`."""
    split = split_state_dict_into_shards_factory(
        {name: (name, dtype, shape) for name, dtype, shape in tensors},
        get_storage_size=lambda t: byte_size(t[1], t[2]),
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    by_name = {t[0]: t for t in tensors}
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in split.filename_to_tensors.items():
        write(folder / file, [by_name[n] for n in names], {"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text)


SINGLE = {
    "all-dtypes": ([(f"t.{d}", d, [2, 8]) for d in WRITER_NAMES], None),
    "order": ([(f"{n}:{d}", d, [3]) for d in ("U8", "F32", "BF16", "I64") for n in ("b", "a", "B", "a.b", "a10", "a2")], None),
    "metadata": ([("w", "F32", [2])], {"format": "pt"}),
    "metadata-escapes": ([("w", "F32", [2])], {'quote " back \\ tab \t': "line\nfeed \u2028 \u0001 \u007f / é 😀"}),
    "empty": ([("none", "F32", [0]), ("some", "F32", [2]), ("two", "BF16", [3, 0, 5]), ("z", "F32", [0, 4])], None),
    "scalars": ([("s", "F32", []), ("b", "BOOL", []), ("h", "F16", [])], None),
    "no-tensors": ([], None),
    "no-tensors-metadata": ([], {"a": "b"}),
    "names": (
        [(n, "U8", [1]) for n in ("", " ", "é", "漢字", "\ufb01", "😀", "\uffff", 'q"', "b\\", "t\t", "\u0000", "__proto__", "10", "9", "constructor", "\u2028")],
        None,
    ),
    "deep-shape": ([("d", "I8", [1, 2, 1, 3, 1, 1, 1, 2])], None),
}  # fmt: skip

SHARDED = {
    "sharded": ([("embed", "BF16", [50]), ("l.0", "F32", [30]), ("l.1", "F32", [30]), ("é", "U8", [7]), ("😀", "U8", [7]), ("\uffff\u007f\t", "U8", [7]), ("head", "BF16", [50])], 250),
    # A tensor above the limit is numbered before the shard that is still open.
    "sharded-large": ([("a", "F32", [10]), ("huge", "F32", [100]), ("b", "F32", [10]), ("c", "F32", [40]), ("none", "F32", [0])], 160),
    "sharded-one": ([("a", "F32", [10]), ("b", "F32", [10])], 80),
}  # fmt: skip


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    cases = []
    for name, (tensors, metadata) in SINGLE.items():
        write(out / f"{name}.safetensors", tensors, metadata)
        cases.append({"file": f"{name}.safetensors", "tensors": tensors, "metadata": metadata or {}})
    sharded = []
    for name, (tensors, limit) in SHARDED.items():
        write_sharded(out / name, tensors, limit)
        sharded.append({"folder": name, "tensors": tensors, "maxShardBytes": limit})
    text = json.dumps({"files": cases, "folders": sharded}, indent=1, ensure_ascii=False)
    (out / "cases.json").write_text(text + "\n", encoding="utf-8")
    files = sorted(p for p in out.rglob("*") if p.is_file())
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()
    print(f"{len(files)} files, {sum(p.stat().st_size for p in files)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
