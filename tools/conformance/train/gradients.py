"""Compares loss and gradients of @polygraft/train with PyTorch's autograd over transformers' models: `python gradients.py`

Same F32 weights, same batch of three documents, same losses. Documents are separate sequences here and packed there, so the block mask
is compared as well. Ends with a line "gradients: N passed, M failed".
"""

import json
import os
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers import LlamaConfig, MistralConfig, MixtralConfig, Qwen2Config, Qwen2MoeConfig, Qwen3Config, Qwen3MoeConfig

transformers.utils.logging.disable_progress_bar()
HERE = os.path.dirname(os.path.abspath(__file__))
TOLERANCE = 1e-5
SIZES = dict(
    vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.1,
)
MOE = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=40)
EXACT = dict(balance=0.1, z=0.01, lpr=0.3, language=0.2)
CASES = [
    ("llama", LlamaConfig(**SIZES), {}),
    ("llama tied", LlamaConfig(**{**SIZES, "tie_word_embeddings": True}), {}),
    ("mistral with a window", MistralConfig(**SIZES, sliding_window=5), {}),
    ("qwen2", Qwen2Config(**SIZES), {}),
    ("qwen3", Qwen3Config(**SIZES, head_dim=16), {}),
    ("mixtral", MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2), EXACT),
    ("mixtral, LPR as published", MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2), {**EXACT, "lprForm": "published"}),
    ("qwen2_moe", Qwen2MoeConfig(**SIZES, **MOE, shared_expert_intermediate_size=24, norm_topk_prob=True), EXACT),
    ("qwen3_moe, gate B", Qwen3MoeConfig(**SIZES, **MOE, head_dim=16, norm_topk_prob=False), EXACT),
]
SEGMENTS = [
    {"begin": 0, "end": 13, "isOriginal": True, "experts": [0]},
    {"begin": 13, "end": 37, "experts": [1, 2]},
    {"begin": 37, "end": 60, "isOriginal": True},
]


def write_case(folder, config, losses, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager")
    model.save_pretrained(f"{folder}/model")
    tokens = torch.randint(0, config.vocab_size, (60,), generator=torch.Generator().manual_seed(seed)).tolist()
    targets = [*tokens[1:], -1]
    for segment in SEGMENTS:
        targets[segment["end"] - 1] = -1
    targets[4] = -1
    batch = {"tokens": tokens, "targets": targets, "segments": SEGMENTS, "losses": {"balance": 0, "z": 0, **losses}}
    with open(f"{folder}/batch.json", "w") as file:
        json.dump(batch, file)
    return model, batch


def router_losses(logits, weights, top_k):
    """logits: of one layer, [tokens, experts]"""
    p = logits.softmax(-1)
    experts = p.shape[-1]
    slots = F.one_hot(p.topk(top_k, -1).indices, experts).sum((0, 1)) / (p.shape[0] * top_k)
    loss = weights["balance"] * experts * (slots * p.mean(0)).sum() + weights["z"] * logits.logsumexp(-1).square().mean()
    of = lambda wanted: torch.cat([torch.arange(s["begin"], s["end"]) for s in SEGMENTS if wanted(s)])
    original = of(lambda s: s.get("isOriginal"))
    first = torch.zeros(len(original), dtype=torch.long)
    seen = p if weights.get("lprForm") == "published" else logits
    loss = loss + weights["lpr"] * F.cross_entropy(seen[original], first)
    named = [s for s in SEGMENTS if "experts" in s]
    language = sum(-p[s["begin"] : s["end"], s["experts"]].sum(-1).log().sum() for s in named)
    return loss + weights["language"] * language / sum(s["end"] - s["begin"] for s in named)


def reference(model, batch):
    """The loss; gradients are left in the model."""
    seen = {}
    gates = [(name, m) for name, m in model.named_modules() if name.endswith("mlp.gate") or name.endswith("block_sparse_moe.gate")]
    hooks = [
        gate.register_forward_hook(
            lambda m, args, _, name=name: seen.setdefault(name, []).append(F.linear(args[0].flatten(0, -2), m.weight))
        )
        for name, gate in gates
    ]
    tokens, targets = torch.tensor(batch["tokens"]), torch.tensor(batch["targets"])
    total = 0.0
    for segment in SEGMENTS:
        at = slice(segment["begin"], segment["end"])
        out = model(tokens[None, at], use_cache=False).logits[0]
        total = total + F.cross_entropy(out, targets[at], ignore_index=-1, reduction="sum")
    loss = total / (targets >= 0).sum()
    if gates:
        assert len(seen) == len(gates)
        each = [router_losses(torch.cat(parts), batch["losses"], model.config.num_experts_per_tok) for parts in seen.values()]
        loss = loss + sum(each) / len(each)
    loss.backward()
    for hook in hooks:
        hook.remove()
    return loss.item()


def named_gradients(model, folder):
    """Gradients under the names on disk: a copy of the model with its gradients as weights is saved, as transformers splits experts."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
    model.save_pretrained(f"{folder}/reference")
    return load_file(f"{folder}/reference/model.safetensors")


def main():
    torch.set_num_threads(1)
    passed = failed = 0
    with tempfile.TemporaryDirectory() as work:
        cases = []
        for i, (name, config, losses) in enumerate(CASES):
            os.makedirs(f"{work}/{i}")
            cases.append((name, f"{work}/{i}", *write_case(f"{work}/{i}", config, losses, i)))
        subprocess.run(["npx", "tsx", f"{HERE}/gradients.ts", *(folder for _, folder, _, _ in cases)], check=True)
        for name, folder, model, batch in cases:
            expected = reference(model, batch)
            with open(f"{folder}/loss.json") as file:
                loss = json.load(file)["loss"]
            ours, theirs = load_file(f"{folder}/gradients.safetensors"), named_gradients(model, folder)
            gaps = {t: ((ours[t] - theirs[t]).norm() / theirs[t].norm()).item() for t in theirs}
            worst = max(gaps, key=gaps.get)
            results = [
                ("loss", abs(loss - expected) / abs(expected), ""),
                ("gradients", gaps[worst], f" ({worst}, of {len(gaps)} tensors)"),
            ]
            if set(ours) != set(theirs):
                results.append(("names", 1.0, f" {sorted(set(ours) ^ set(theirs))[:3]}"))
            for what, gap, detail in results:
                holds = gap <= TOLERANCE
                passed, failed = passed + holds, failed + (not holds)
                print(f"{'ok  ' if holds else 'FAIL'} {name}: {what} {gap:.1e}{detail}")
    print(f"gradients: {passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
