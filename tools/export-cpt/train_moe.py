"""Trains a mixture that `polygraft upcycle` wrote: `python train_moe.py cpt|review --model DIR --data el=a.jsonl --out DIR [--steps N]`

Stage cpt trains the experts from 1 on and the routers on text of the new languages, with balance loss; stage review the routers
alone on a little text of all languages, with LPR (MoE-LPR, arXiv:2408.11396). Everything else keeps its bytes, which is what makes the graft exact.
What each stage trains and its losses are in stages.json. Needs torch and transformers 5; with accelerate it runs on many GPUs.
"""

import argparse
import contextlib
import json
import math
import os
import re

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

try:
    from accelerate import Accelerator
except ImportError:  # one process
    Accelerator = None

HERE = os.path.dirname(os.path.abspath(__file__))
FUSED = ("gate_up_proj", "down_proj")  # transformers 5 holds all experts of a layer in these, [E, ...]


def is_experts(module):
    return all(isinstance(getattr(module, name, None), torch.nn.Parameter) for name in FUSED) and module.gate_up_proj.dim() == 3


def freeze_first_expert(module):
    """Cuts expert 0 out of the gradient where it is used, so that it works on whole, gathered and unsharded parameters alike."""
    inner = module.forward

    def forward(*args, **kwargs):
        held = {name: module._parameters.pop(name) for name in FUSED}
        try:
            for name, whole in held.items():
                module.__dict__[name] = torch.cat([whole[:1].detach(), whole[1:]])
            return inner(*args, **kwargs)
        finally:
            for name, whole in held.items():
                module.__dict__.pop(name, None)
                module._parameters[name] = whole

    module.forward = forward


def prepare(model, stage):
    """Freezes what the stage does not train. The groups of the optimizer: fused experts never decay, since expert 0 would."""
    trained = [re.compile(pattern) for pattern in stage["train"]]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(pattern.fullmatch(name) for pattern in trained))
    fused = set()
    for module in model.modules():
        if is_experts(module) and module.gate_up_proj.requires_grad:
            freeze_first_expert(module)
            fused.update(id(getattr(module, name)) for name in FUSED)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise SystemExit(f"no parameter matches {stage['train']}: is this a mixture in transformers 5?")
    still = [p for _, p in named if id(p) in fused or p.dim() < 2]
    decays = [p for _, p in named if not (id(p) in fused or p.dim() < 2)]
    return [{"params": decays, "weight_decay": stage["weight_decay"]}, {"params": still, "weight_decay": 0.0}]


class Routers:
    """The routers' logits of one forward pass, with their graph."""

    def __init__(self, model):
        self.logits = []
        gates = [m for name, m in model.named_modules() if re.search(r"(mlp|block_sparse_moe)\.gate$", name)]
        for gate in gates:
            gate.register_forward_hook(lambda m, args, _: self.logits.append(F.linear(args[0].flatten(0, -2), m.weight)))
        self.count = len(gates)

    def loss(self, weights, original, top_k):
        """balance E sum f P, z mean(logsumexp^2), LPR -log p_0 on original tokens (0 without any); means over tokens and layers."""
        total = 0.0
        for logits in self.logits[: self.count]:
            logits = logits.float()
            p, experts = logits.softmax(-1), logits.shape[-1]
            share = F.one_hot(p.topk(top_k, -1).indices, experts).sum((0, 1)) / (p.shape[0] * top_k)
            total = total + weights["balance"] * experts * (share * p.mean(0)).sum()
            total = total + weights["z"] * logits.logsumexp(-1).square().mean()
            first = logits.logsumexp(-1) - logits[:, 0]
            total = total + weights["lpr"] * (first * original).sum() / original.sum().clamp(min=1)
        return total / max(1, self.count)


def documents(path):
    with open(path, encoding="utf-8") as file:
        if path.endswith(".jsonl"):
            yield from (json.loads(line)["text"] for line in file if line.strip())
        else:
            text = file.read()
            parts = re.split(r"\n\s*\n", text) if re.search(r"\n\s*\n\s*\S", text) else text.split("\n")
            yield from (part for part in parts if part.strip())


def rows_of(tokenizer, path, context, seed):
    """Endless rows of `context` tokens: documents one after the other, cut where a row ends, in an order shuffled every epoch."""
    texts = list(documents(path))
    if not texts:
        raise SystemExit(f"{path} holds no document")
    epoch, ids, places = 0, [], []
    while True:
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        epoch += 1
        for i in order:
            tokens = tokenizer(texts[i])["input_ids"]
            ids += tokens
            places += range(len(tokens))
            while len(ids) >= context:
                yield ids[:context], positions_of(places[:context])
                ids, places = ids[context:], places[context:]


def positions_of(places):
    """Positions that begin anew with each document, by which transformers 5 tells where one ends; so they do after a cut."""
    end = next((i for i, place in enumerate(places) if i and place == 0), len(places))
    return [*range(end), *places[end:]]


def batches(args, tokenizer, original, rank, world):
    """Rows of each language in the shares of --mix; every process its own."""
    files = [pair.split("=", 1) for pair in args.data]
    mix = dict(pair.split("=") for pair in args.mix.split(",")) if args.mix else {}
    sources = [(lang, rows_of(tokenizer, path, args.context, args.seed), float(mix.get(lang, 1))) for lang, path in files]
    drawn = [0] * len(sources)
    while True:
        rows = []
        for slot in range(args.batch * world):
            best = min(range(len(sources)), key=lambda s: drawn[s] / sources[s][2])
            drawn[best] += 1
            row = next(sources[best][1])
            if slot % world == rank:
                rows.append((*row, sources[best][0] in original))
        tokens, positions, is_original = (torch.tensor(column) for column in zip(*rows))
        yield tokens, positions, is_original[:, None].expand(tokens.shape).flatten()


def next_token_loss(logits, tokens, positions):
    targets = tokens[:, 1:].masked_fill(positions[:, 1:] == 0, -100)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=-100)


def save(accelerator, model, tokenizer, args):
    """In the dtype that the checkpoint came in: what was frozen has its old bytes again."""
    unwrapped = accelerator.unwrap_model(model) if accelerator else model
    state = accelerator.get_state_dict(model) if accelerator else model.state_dict()
    if accelerator is None or accelerator.is_main_process:
        dtype = AutoConfig.from_pretrained(args.model).dtype or torch.float32
        unwrapped.save_pretrained(args.out, state_dict={name: value.to(dtype) for name, value in state.items()})
        unwrapped.config.dtype = dtype  # saving has put the model's there, F32
        unwrapped.config.save_pretrained(args.out)
        tokenizer.save_pretrained(args.out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["cpt", "review"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, action="append", metavar="LANGUAGE=FILE")
    parser.add_argument("--original", default="", help="languages that the model had before, for LPR: en,fr")
    parser.add_argument("--mix", default="", help="shares of the rows: el=2,hu=1")
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=4, help="rows for each process")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with open(f"{HERE}/stages.json", encoding="utf-8") as file:
        stage = json.load(file)[args.stage]
    rate = args.rate or stage["rate"]
    torch.manual_seed(args.seed)
    accelerator = Accelerator(gradient_accumulation_steps=args.accumulation) if Accelerator else None
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    # F32: the optimizer needs it, and mixed precision is accelerate's (--mixed_precision bf16).
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, experts_implementation="eager")
    model.config.use_cache = False
    groups, routers = prepare(model, stage), Routers(model)
    top_k = model.config.num_experts_per_tok
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8)
    warmup = max(1, args.steps // 50)
    wave = lambda step: min(1, (step + 1) / warmup) * (0.55 + 0.45 * math.cos(math.pi * min(1, step / args.steps)))
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    device = accelerator.device if accelerator else "cpu"
    if accelerator:
        model, optimizer = accelerator.prepare(model, optimizer)
    model.train()
    source = batches(args, tokenizer, set(args.original.split(",")), rank, world)
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * wave(step)
        for _ in range(args.accumulation):
            tokens, positions, original = (each.to(device) for each in next(source))
            routers.logits.clear()
            with accelerator.accumulate(model) if accelerator else contextlib.nullcontext():
                logits = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
                loss = next_token_loss(logits, tokens, positions) + routers.loss(stage["losses"], original, top_k)
                if not torch.isfinite(loss):
                    raise SystemExit(f"step {step + 1}: the loss is {loss.item()}")
                if accelerator:
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                else:
                    (loss / args.accumulation).backward()
        if accelerator is None:
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if rank == 0 and (step % 10 == 0 or step + 1 == args.steps):
            print(json.dumps({"step": step + 1, "loss": round(loss.item(), 4), "rate": rate * wave(step)}), flush=True)
    save(accelerator, model, tokenizer, args)


if __name__ == "__main__":
    main()
