"""Adapters of peft applied by polygraft, and polygraft's by peft; one line for each check, the last line counts. See README.md."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import warnings

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from prepare import COMMAND, polygraft  # noqa: E402

import subprocess  # noqa: E402

transformers.utils.logging.disable_progress_bar()
COUNTS = {"PASS": 0, "FAIL": 0}
SIZES = dict(vocab_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
BASES = {
    "llama-bf16": (LlamaConfig(hidden_size=64, intermediate_size=96, attention_bias=True, **SIZES), torch.bfloat16),
    "llama-f32": (LlamaConfig(hidden_size=64, intermediate_size=96, **SIZES), torch.float32),
    "tied-f16": (LlamaConfig(hidden_size=64, intermediate_size=96, tie_word_embeddings=True, **SIZES), torch.float16),
    # Matrices with a side above 256, so that extraction takes the random sketch.
    "large-bf16": (LlamaConfig(hidden_size=320, intermediate_size=512, **SIZES), torch.bfloat16),
    "gpt2-f32": (GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2, n_positions=64), torch.float32),
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# name: (base, options of LoraConfig)
ADAPTERS = {
    "plain": ("llama-bf16", dict(target_modules=["q_proj", "v_proj"], lora_alpha=16)),
    "plain F32": ("llama-f32", dict(target_modules=["q_proj", "v_proj"], lora_alpha=16)),
    "F16, tied embeddings": ("tied-f16", dict(target_modules=ATTENTION)),
    "all-linear, rsLoRA": ("llama-bf16", dict(target_modules="all-linear", use_rslora=True, r=6)),
    "rank and alpha patterns": ("llama-bf16", dict(
        target_modules=[*ATTENTION, "up_proj", "down_proj"], r=4,
        rank_pattern={r"layers\.1\..*q_proj": 7, "q_proj": 2, "^model.layers.0.mlp.up_proj": 9},
        alpha_pattern={"k_proj|v_proj": 3, r"layers\.1\.mlp\.down_proj": 5})),
    "patterns with rsLoRA": ("llama-f32", dict(
        target_modules=ATTENTION, r=4, use_rslora=True, rank_pattern={"o_proj": 9}, alpha_pattern={"q_proj": 1})),
    "targets by a regular expression": ("llama-bf16", dict(target_modules=r".*\.1\.(self_attn\.[qk]|mlp\.up)_proj")),
    "some layers": ("llama-bf16", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers")),
    "excluded modules": ("llama-bf16", dict(target_modules="all-linear", exclude_modules=r".*mlp.*")),
    "DoRA": ("llama-bf16", dict(target_modules="all-linear", use_dora=True)),
    "DoRA F32, rsLoRA": ("llama-f32", dict(target_modules=ATTENTION, use_dora=True, use_rslora=True)),
    "modules to save": ("llama-bf16", dict(target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"])),
    "all biases": ("llama-bf16", dict(target_modules=["q_proj"], bias="all")),
    "biases of adapted layers": ("llama-bf16", dict(target_modules=["q_proj", "v_proj"], bias="lora_only")),
    "a bias of B": ("llama-bf16", dict(target_modules=["q_proj"], lora_bias=True)),
    "embedding": ("llama-f32", dict(target_modules=["embed_tokens", "q_proj"])),
    "head": ("llama-bf16", dict(target_modules=["lm_head", "q_proj"])),
    "Conv1D, [in, out]": ("gpt2-f32", dict(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    "gaussian A": ("llama-bf16", dict(target_modules=["q_proj"], init_lora_weights="gaussian")),
}


def report(holds, where, check, detail=""):
    COUNTS["PASS" if holds else "FAIL"] += 1
    print(f"{'PASS' if holds else 'FAIL'} {where}: {check}" + (f" ({detail})" if detail else ""), flush=True)


def refusal(*arguments):
    """The codes of the problems with which the command ends; None if it does not fail with code 1."""
    done = subprocess.run([*COMMAND, *map(str, arguments), "--json"], capture_output=True, text=True)
    if done.returncode != 1:
        return None
    return [problem["code"] for problem in json.loads(done.stdout)["error"]["problems"]]


def make_bases(work):
    for name, (config, dtype) in BASES.items():
        torch.manual_seed(len(name))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # norms and biases, which begin as ones and zeros
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        model.to(dtype).save_pretrained(f"{work}/{name}")


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, dtype="auto", **options)


def stored(path):
    """All tensors of a folder's safetensors."""
    return {k: v for f in sorted(os.listdir(path)) if f.endswith(".safetensors") for k, v in load_file(f"{path}/{f}").items()}


def save_trained(base, folder, options):
    """An adapter as after training: everything that trains is moved."""
    torch.manual_seed(1)
    model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_((torch.randn_like(parameter, dtype=torch.float32) * 0.05).to(parameter.dtype))
    model.save_pretrained(folder)


def load_adapter(base, folder):
    """The adapter on its base, and what peft warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(load(base), folder)
    return model, [str(w.message)[:200] for w in caught if "adapter" in str(w.message).lower()]


def merged_by_peft(base, folder, scale=1.0):
    model, _ = load_adapter(base, folder)
    for module in model.modules():
        if isinstance(module, LoraLayer) and scale != 1:
            module.scale_layer(scale)
    merged = model.merge_and_unload()
    return {name: tensor.detach() for name, tensor in merged.state_dict().items()}


def spacing(tensor):
    """Distance from each value to the next larger one of its dtype; where a sum cancels, F32's own at the size of its operands (0.25)."""
    bits, least = {torch.bfloat16: (8, -26), torch.float16: (11, -24), torch.float32: (24, -26)}[tensor.dtype]
    _, exponent = torch.frexp(tensor.float())
    return torch.exp2((exponent - bits).float()).clamp(min=2.0**least)


def differences(ours, theirs):
    """Tensors further apart than one rounding of their dtype (F32: four, since sums of r products round r times), and the share that is equal."""
    wrong, equal, total = [], 0, 0
    for name, tensor in ours.items():
        other = theirs.get(name)
        if other is None or other.shape != tensor.shape or other.dtype != tensor.dtype:
            wrong.append(name)
            continue
        roundings = 4 if tensor.dtype == torch.float32 else 1
        unit = torch.maximum(spacing(tensor), spacing(other))
        gap = (tensor.float() - other.float()).abs()
        if (gap > roundings * unit).any() or not torch.isfinite(tensor).all():
            wrong.append(f"{name} by {(gap / unit).max().item():.1f} roundings")
        equal += (tensor == other).sum().item()
        total += tensor.numel()
    return wrong, equal / max(1, total)


def compare(where, check, ours, theirs):
    wrong, share = differences(ours, theirs)
    report(not wrong, where, check, ", ".join(wrong[:3]) or f"{100 * share:.3f} % bit for bit")


def check_applied(work, name, base, options):
    folder = f"{work}/{name.replace(' ', '-')}"
    save_trained(f"{work}/{base}", f"{folder}/adapter", options)
    polygraft("lora", "apply", f"{work}/{base}", f"{folder}/adapter", "-o", f"{folder}/merged")
    ours = stored(f"{folder}/merged")
    compare(name, "merged as peft merges it", ours, merged_by_peft(f"{work}/{base}", f"{folder}/adapter"))
    changed = [n for n, t in stored(f"{work}/{base}").items() if not torch.equal(t, ours[n])]
    report(bool(changed), name, "the adapter changes something, so the check above sees it", f"{len(changed)} tensors")
    _, info = load(f"{folder}/merged", output_loading_info=True)
    missing = {key: info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(key)}
    report(not missing, name, "transformers loads it: no missing or unexpected key", missing or "")


def check_scale(work):
    base, adapter = f"{work}/llama-bf16", f"{work}/rank-and-alpha-patterns/adapter"
    for scale in (0.5, -1):
        out = f"{work}/scaled{scale}"
        polygraft("lora", "apply", base, adapter, "-o", out, "--scale", scale, "--memory", "160MiB", "--threads", 0)
        compare(f"scale {scale}", "merged as peft merges it", stored(out), merged_by_peft(base, adapter, scale))


def check_refused(work):
    base, tied = f"{work}/llama-bf16", f"{work}/tied-f16"
    cases = {
        "PiSSA": (base, dict(target_modules=["q_proj"], init_lora_weights="pissa"), ["unsupported-adapter"]),
        "a head that is tied": (tied, dict(target_modules=["lm_head"]), ["tied-head"]),
        "trainable tokens": (base, dict(target_modules=["q_proj"], trainable_token_indices=[1, 2]), ["unsupported-adapter"]),
        "target parameters": (base, dict(target_modules=[], target_parameters=["q_proj.weight"]), ["unsupported-adapter"]),
    }
    for name, (model, options, expected) in cases.items():
        folder = f"{work}/refused-{name.replace(' ', '-')}"
        if "pissa" in options.values():  # which needs F32
            load(model).float().save_pretrained(f"{folder}/base")
            model = f"{folder}/base"
        save_trained(model, f"{folder}/adapter", options)
        codes = refusal("lora", "apply", model, f"{folder}/adapter", "-o", f"{folder}/out")
        report(codes == expected and not os.path.exists(f"{folder}/out"), name, "refused, and nothing written", codes)
    codes = refusal("lora", "apply", f"{work}/large-bf16", f"{work}/plain/adapter", "-o", f"{work}/none")
    report(codes == ["shape-mismatch"] * 4, "an adapter for other shapes", "every module is named", codes)


def make_post(work, name, noise):
    """Base and a few large directions and a little noise in every matrix; F32 for exact differences."""
    tensors = {k: v.float() for k, v in stored(f"{work}/{name}").items()}
    generator = torch.Generator().manual_seed(2)
    post = {}
    for key, tensor in tensors.items():
        delta = noise * torch.randn(tensor.shape, generator=generator)
        if tensor.dim() == 2:
            for k in range(12):
                x, y = (torch.randn(n, generator=generator) for n in tensor.shape)
                delta += 0.02 * 2.0 ** (-k / 2) * torch.outer(x, y) / tensor.shape[1] ** 0.5
        post[key] = tensor + delta
    for kind, values in (("base", tensors), ("post", post)):
        folder = f"{work}/{name}-{kind}"
        shutil.copytree(f"{work}/{name}", folder)
        config = json.load(open(f"{folder}/config.json"))
        json.dump({**config, "dtype": "float32", "torch_dtype": "float32"}, open(f"{folder}/config.json", "w"))
        save_file(values, f"{folder}/model.safetensors", {"format": "pt"})
    return f"{work}/{name}-base", f"{work}/{name}-post"


def extract(base, post, out, *options):
    done = subprocess.run(
        [*COMMAND, "lora", "extract", base, post, "-o", out, *map(str, options), "--json"], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return json.loads(done.stdout)


def check_extracted(work, name, where, *options, rank=None, energy=None):
    base, post = f"{work}/{name}-base", f"{work}/{name}-post"
    out = f"{work}/extracted-{where.replace(' ', '-')}"
    found = extract(base, post, out, *options)
    model, warned = load_adapter(base, out)
    report(not warned, where, "peft loads it and misses nothing", warned or "")
    merged = merged_by_peft(base, out)
    polygraft("lora", "apply", base, out, "-o", f"{out}-merged")
    compare(where, "peft merges it as polygraft does", stored(f"{out}-merged"), merged)
    before, after = stored(base), stored(post)
    worst, ranks, energies = 0.0, True, 0.0
    for row in found["matrices"]:
        delta = (after[row["tensor"]] - before[row["tensor"]]).double().numpy()
        u, s, v = np.linalg.svd(delta, full_matrices=False)
        share = np.cumsum(s**2) / (s**2).sum()
        wanted = rank or int(np.searchsorted(share, energy) + 1)
        r = row["rank"]
        ranks &= r == wanted
        nearest = (u[:, :r] * s[:r]) @ v[:r]
        ours = (merged[row["tensor"]].double() - before[row["tensor"]].double()).numpy()
        worst = max(worst, np.linalg.norm(ours - nearest) / np.linalg.norm(delta))
        energies = max(energies, abs(row["energy"] - share[r - 1]))
    report(ranks, where, f"{len(found['matrices'])} matrices have the ranks that numpy's SVD asks for")
    # The sum base + delta is rounded to F32, whose places are about 1e-5 of these deltas.
    report(worst < 1e-4, where, "as near to the delta as numpy's SVD", f"{worst:.1e} of its norm apart")
    report(energies < 1e-5, where, "the energy that it reports is numpy's", f"{energies:.1e}")
    return found


def check_bf16(work):
    """BF16 factors: peft takes them to F32, so that both still add the same numbers."""
    base, post = f"{work}/llama-f32-base", f"{work}/llama-f32-post"
    extract(base, post, f"{work}/extracted-bf16", "--rank", 4, "--dtype", "BF16")
    dtypes = {tensor.dtype for tensor in stored(f"{work}/extracted-bf16").values()}
    report(dtypes == {torch.bfloat16}, "BF16 factors", "stored as BF16", dtypes)
    polygraft("lora", "apply", base, f"{work}/extracted-bf16", "-o", f"{work}/merged-bf16")
    compare("BF16 factors", "peft merges it as polygraft does", stored(f"{work}/merged-bf16"), merged_by_peft(base, f"{work}/extracted-bf16"))


def attempt(where, step):
    """A step that fails is a line of the report, and the others go on."""
    try:
        step()
    except Exception as error:
        report(False, where, "runs", " ".join(str(error).split())[:400])


def check_all(work, only):
    make_bases(work)
    for name, (base, options) in ADAPTERS.items():
        if only in name:
            attempt(name, lambda: check_applied(work, name, base, options))
    if only:
        return
    attempt("scale", lambda: check_scale(work))
    attempt("refused", lambda: check_refused(work))
    for name in ("llama-f32", "large-bf16"):
        make_post(work, name, 1e-4)
        attempt(name, lambda: check_extracted(work, name, f"{name} rank 8", "--rank", 8, rank=8))
        attempt(name, lambda: check_extracted(work, name, f"{name} energy 0.9", "--energy", 0.9, energy=0.9))
    vocabulary = ["--rank", 3, "--targets", "embed_tokens,lm_head,q_proj"]
    attempt("vocabulary", lambda: check_extracted(work, "llama-f32", "embedding and head", *vocabulary, rank=3))
    attempt("bf16", lambda: check_bf16(work))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the adapters whose name contains this")
    parser.add_argument("--keep", help="work in this folder and leave it behind")
    options = parser.parse_args()
    work = options.keep or tempfile.mkdtemp(prefix="polygraft-peft-")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    try:
        check_all(work, options.only)
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    print("peft: {PASS} passed, {FAIL} failed".format(**COUNTS))
    sys.exit(COUNTS["FAIL"] > 0)


if __name__ == "__main__":
    main()
