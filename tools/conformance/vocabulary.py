"""Grafts where the three vocabularies differ, against numpy, on the weights of one dense case.

Tokens t0.. are common to all; u0.. were added by post-training, n0.. by continued pre-training.
"""

import json
import subprocess

import numpy as np

from prepare import COMMAND, polygraft
from stored import from_f32, graft_values, read_checkpoint, to_f32, write_checkpoint

ROWS = ("model.embed_tokens.weight", "lm_head.weight")
SHARED = [f"t{i}" for i in range(90)]  # of 96 rows: six are padding
USER = ["u0", "u1", "u2"]
NEW = [f"n{i}" for i in range(10)]


def write_with(folder, source, tokens, rows, rng):
    """The checkpoint `source` with this tokenizer, its vocabulary tensors grown to `rows` rows."""
    tensors, config = read_checkpoint(source)
    for name in ROWS:
        dtype, stored = tensors[name]
        grown = rng.standard_normal((rows - stored.shape[0], stored.shape[1])).astype(np.float32)
        tensors[name] = dtype, np.concatenate([stored, from_f32(dtype, grown)])
    write_checkpoint(folder, tensors, {**config, "vocab_size": rows})
    vocab = {token: i for i, token in enumerate(tokens)}
    with open(f"{folder}/tokenizer.json", "w") as file:
        json.dump({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab,
                  "unk_token": "t0"}, "pre_tokenizer": {"type": "WhitespaceSplit"}}, file)  # fmt: skip
    return tensors


def expected(cpt, base, post, shared, user):
    """Rows of the output: `shared` grafted, `user` copied from post, the others cpt's."""
    result = {}
    for name in ROWS:
        dtype, rows = cpt[name][0], cpt[name][1].copy()
        values = [to_f32(dtype, tensors[name][1][shared]) for tensors in (cpt, base, post)]
        rows[shared] = from_f32(dtype, graft_values(*values))
        rows[user] = post[name][1][user]
        result[name] = rows
    return result


def vocabulary_checks(case_folder, folder):
    """(check, what is wrong) for each; the outputs are left in `folder` for models.py."""
    rng = np.random.default_rng(5)
    dense = {"base": SHARED, "post": SHARED + USER}
    tensors = {
        "base": write_with(f"{folder}/base", f"{case_folder}/base", dense["base"], 96, rng),
        "post": write_with(f"{folder}/post", f"{case_folder}/post", dense["post"], 100, rng),
    }
    sources = ["--base", f"{folder}/base", "--post", f"{folder}/post"]
    for check, tokens, rows in (
        ("post has tokens of its own", SHARED, 96),
        ("post and cpt have tokens of their own", SHARED + USER + NEW, 104),
    ):
        name = "graft-" + check.split(" has")[0].split(" have")[0].replace(" ", "-")
        cpt = write_with(f"{folder}/cpt-{rows}", f"{case_folder}/cpt", tokens, rows, rng)
        polygraft("graft", f"{folder}/cpt-{rows}", "-o", f"{folder}/{name}", *sources)
        ours, config = read_checkpoint(f"{folder}/{name}")
        want = expected(cpt, tensors["base"], tensors["post"], slice(0, 90), slice(90, 93))
        wrong = [n for n in ROWS if ours[n][1].tobytes() != want[n].tobytes()]
        if config["vocab_size"] != rows:
            wrong.append(f"vocab_size {config['vocab_size']}")
        yield f"rows by token string = numpy where {check}", wrong
    write_with(f"{folder}/cpt-collides", f"{case_folder}/cpt", SHARED + NEW, 100, rng)
    refused = subprocess.run([*COMMAND, "graft", f"{folder}/cpt-collides", "-o", f"{folder}/never", *sources],
                             capture_output=True, text=True)  # fmt: skip
    text = refused.stdout + refused.stderr
    named = all(token in text for token in ("u0", "n0", "u2", "n2"))
    yield "an id of two tokens is refused with both names", [] if refused.returncode == 1 and named else [text[:300]]
