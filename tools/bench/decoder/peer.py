"""The peer of main.ts: writes a random Llama to a folder, then runs what each line of stdin asks: `prefill N` or `decode N`.

`python peer.py <folder> <threads>`. Answers with a line of JSON for each: seconds. With the logits of the last token, so that it
is seen to compute the same.
"""

import json
import sys
import time

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

PROMPT = 64


def main(folder, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16384, hidden_size=512, intermediate_size=1792, num_hidden_layers=10, num_attention_heads=8,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).float().eval()
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    answer(dict(parameters=sum(p.numel() for p in model.parameters()), torch=torch.__version__))
    for line in sys.stdin:
        kind, count = line.split()
        with torch.inference_mode():
            answer((prefill if kind == "prefill" else decode)(model, int(count)))


def tokens(count):
    return (torch.arange(count)[None] * 7919) % 16384


def prefill(model, count):
    prompt = tokens(count)
    begin = time.perf_counter()
    logits = model(prompt, use_cache=True, logits_to_keep=1).logits
    return dict(seconds=time.perf_counter() - begin, logits=logits[0, -1, :8].tolist())


def decode(model, count):
    cache = model(tokens(PROMPT), use_cache=True, logits_to_keep=1).past_key_values
    following = tokens(PROMPT + count)[:, PROMPT:]
    begin = time.perf_counter()
    for i in range(count):
        logits = model(following[:, i : i + 1], past_key_values=cache, use_cache=True).logits
    return dict(seconds=time.perf_counter() - begin, logits=logits[0, -1, :8].tolist())


def answer(value):
    print(json.dumps(value), flush=True)


main(sys.argv[1], int(sys.argv[2]))
