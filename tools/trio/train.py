"""Trains the trio: `python train.py base|instruct|cpt ...` (make.sh runs them in order).

Arithmetic is f32 on one thread; every stage starts from the BF16 weights that the stage before it wrote, so that what
a stage leaves frozen is bit for bit what the earlier checkpoint holds on disk.
B batch, T tokens, E experts, V vocabulary.
"""

import argparse
import json
import math
import os
import random
import time

import torch
import torch.nn.functional as F
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, MixtralForCausalLM

from tokenizer import build_tokenizer, token_ids
from world import DOCUMENT, INSTRUCTION_TASKS, NEW, ORIGINAL, World, chat

transformers.utils.logging.disable_progress_bar()
IDS = token_ids()
PAD, EOS, END = IDS["<pad>"], IDS["<eos>"], IDS["<end>"]
IGNORED = -100  # the label that a loss skips

CONFIG = dict(
    vocab_size=128, hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, rope_theta=10000.0, rms_norm_eps=1e-5, initializer_range=0.1,
    tie_word_embeddings=False, pad_token_id=PAD, bos_token_id=IDS["<bos>"], eos_token_id=EOS,
)  # fmt: skip


# Batches: (tokens, labels), both [B, T]


def raw_batch(world, rng, count, languages):
    """`count` documents, each in one of `languages`."""
    documents = [world.document(rng.choice(languages), rng) for _ in range(count)]
    tokens = torch.tensor([[IDS[word] for word in document] for document in documents])
    return tokens, tokens


def instruction_batch(world, rng, count, languages):
    """`count` instructions, padded to a document's length; the loss is on the answers alone."""
    tokens = torch.full((count, DOCUMENT), PAD)
    labels = torch.full((count, DOCUMENT), IGNORED)
    for row in range(count):
        prompt, answer = world.instruction(rng.choice(languages), rng.choice(INSTRUCTION_TASKS), rng)
        begin, line = len(prompt) + 3, [*chat(prompt), *answer, "<end>"]
        tokens[row, : len(line)] = torch.tensor([IDS[word] for word in line])
        labels[row, begin : len(line)] = tokens[row, begin : len(line)]
    return tokens, labels


# Losses


def next_token_loss(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED)


def balance_loss(router_logits, top_k):
    """E * sum_e f_e P_e for each layer, then the mean: f_e the share of the slots, P_e the mean probability.
    `router_logits`: for each layer [B*T, E]. 1 when the load is even (Switch Transformer, arXiv:2101.03961)."""
    losses = []
    for logits in router_logits:
        probabilities = logits.softmax(-1)
        chosen = probabilities.topk(top_k, -1).indices
        share = torch.bincount(chosen.flatten(), minlength=logits.shape[-1]) / chosen.numel()
        losses.append(logits.shape[-1] * (share * probabilities.mean(0)).sum())
    return torch.stack(losses).mean()


def prior_loss(router_logits, original):
    """Language-prior routing: -mean log p_0 over the tokens of original languages (MoE-LPR, arXiv:2408.11396, in the
    form with one softmax). `original` [B*T], bool; 0 for a batch without such tokens."""
    if not original.any():
        return torch.zeros(())
    return torch.stack([-logits.log_softmax(-1)[original, 0].mean() for logits in router_logits]).mean()


# Loop


def fit(model, name, steps, peak, loss_of_step):
    """AdamW, 30 steps of warm-up, cosine to 10 % of the peak rate. Parameters with requires_grad are trained."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    model.train()
    started, recent = time.time(), []
    for step in range(steps):
        progress = step / max(1, steps - 1)
        rate = min(1, (step + 1) / 30) * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        loss = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        recent.append(loss.item())
        if step % 200 == 199 or step == steps - 1:
            mean = sum(recent) / len(recent)
            print(f"{name}: step {step + 1}/{steps}, loss {mean:.3f}, {time.time() - started:.0f} s", flush=True)
            recent = []


# Stages


def train_base(world, out, steps):
    """A Llama on raw text of the original languages with 5 % of the new ones."""
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, attn_implementation="sdpa"))
    rng = random.Random("base")

    def loss(_step):
        tokens, labels = raw_batch(world, rng, 16, (ORIGINAL * 19 + NEW))  # 2 of 40 draws are new languages
        return next_token_loss(model(tokens).logits, labels)

    fit(model, "base", steps, 4e-3, loss)
    # Two shards and an index, as a large model has.
    save(model, out, instruct=False, max_shard_size="300KB")


def train_instruct(world, base, out, steps):
    """Supervised fine-tuning on instructions in the original languages; 30 % of the steps are raw text of theirs."""
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    rng = random.Random("instruct")

    def loss(_step):
        raw = rng.random() < 0.3
        tokens, labels = (raw_batch if raw else instruction_batch)(world, rng, 32, ORIGINAL)
        return next_token_loss(model(tokens).logits, labels)

    fit(model, "instruct", steps, 4e-4, loss)
    save(model, out, instruct=True)


def train_cpt(world, upcycled, out, steps, review_steps):
    """Continued pre-training of an upcycled base, in the two stages of MoE-LPR."""
    model = MixtralForCausalLM.from_pretrained(upcycled, dtype=torch.float32)
    top_k = model.config.num_experts_per_tok
    rng = random.Random("cpt")

    def is_router(name):
        return name.endswith("block_sparse_moe.gate.weight")

    def is_new_expert(name):
        return ".experts." in name and ".experts.0." not in name

    def train_only(chosen):
        for name, parameter in model.named_parameters():
            parameter.requires_grad = chosen(name)

    def expansion(_step):  # stage 1: the new experts and the routers, on new-language text only
        tokens, labels = raw_batch(world, rng, 16, NEW)
        output = model(tokens, output_router_logits=True)
        return next_token_loss(output.logits, labels) + 0.01 * balance_loss(output.router_logits, top_k)

    replay = {letter: [world.document(letter, rng) for _ in range(64)] for letter in ORIGINAL + NEW}

    def review(_step):  # stage 2: the routers, half of it a replay of a few original-language documents
        letters = [rng.choice(ORIGINAL) for _ in range(8)] + [rng.choice(NEW) for _ in range(8)]
        tokens = torch.tensor([[IDS[word] for word in rng.choice(replay[letter])] for letter in letters])
        original = torch.tensor([letter in ORIGINAL for letter in letters]).repeat_interleave(DOCUMENT)
        output = model(tokens, output_router_logits=True)
        return next_token_loss(output.logits, tokens) + 0.3 * prior_loss(output.router_logits, original)

    train_only(lambda name: is_router(name) or is_new_expert(name))
    fit(model, "cpt", steps, 2e-3, expansion)
    train_only(is_router)
    fit(model, "review", review_steps, 1e-2, review)
    save(model, out, instruct=False, max_shard_size="600KB")
    trained = {"op": "train", "by": "tools/trio/train.py", "steps": steps, "reviewSteps": review_steps}
    carry_provenance(upcycled, out, trained)


def carry_provenance(source, out, step):
    """What stays true of the upcycled checkpoint's polygraft.json after training: the steps so far and the experts'
    languages. Not the digests of its files. A trainer that does not do this loses the labels, and nothing else."""
    with open(f"{source}/polygraft.json") as file:
        manifest = json.load(file)
    kept = {key: manifest[key] for key in ("polygraft", "recipe", "experts", "skipped") if key in manifest}
    kept["recipe"] = [*kept["recipe"], step]
    with open(f"{out}/polygraft.json", "w") as file:
        json.dump(kept, file, indent=2)
        file.write("\n")


def save(model, out, instruct, **options):
    """The checkpoint as transformers writes it: BF16 weights, config, tokenizer, generation config."""
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    ends = [EOS, END] if instruct else EOS
    model.generation_config = GenerationConfig(bos_token_id=IDS["<bos>"], eos_token_id=ends, pad_token_id=PAD)
    model.config.eos_token_id = ends
    model.config.use_cache = True
    model.save_pretrained(out, **options)
    build_tokenizer(instruct).save_pretrained(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["base", "instruct", "cpt"])
    parser.add_argument("--input", help="the checkpoint to start from (instruct: the base; cpt: the upcycled base)")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--review-steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    world = World(options.seed)
    os.makedirs(options.out, exist_ok=True)
    if options.stage == "base":
        train_base(world, options.out, options.steps or 3500)
    elif options.stage == "instruct":
        train_instruct(world, options.input, options.out, options.steps or 800)
    else:
        train_cpt(world, options.input, options.out, options.steps or 600, options.review_steps)


if __name__ == "__main__":
    main()
