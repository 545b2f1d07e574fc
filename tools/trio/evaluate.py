"""Measures checkpoints on held-out data: `python evaluate.py [--split test|dev] <checkpoint> ...`

For each checkpoint one row: perplexity, exact match of instructions, exact match of raw skills; each for the original
languages (O = A, B) and the new ones (N = C, D). Works on any folder that transformers loads: the trio, a graft, ....
Exact match is that of greedy decoding: greedy decoding gives the answer exactly when, with the answer as context, the
likeliest token at each of its places is the answer's. So one forward pass does.
"""

import argparse
import json

import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM

from heldout import draw
from tokenizer import token_ids
from world import INSTRUCTION_TASKS, NEW, ORIGINAL, World

transformers.utils.logging.disable_progress_bar()
IDS = token_ids()
GROUPS = {"O": ORIGINAL, "N": NEW}


@torch.no_grad()
def perplexity(model, documents):
    """exp of the mean loss over all tokens but each document's first."""
    tokens = torch.tensor([[IDS[word] for word in document] for document in documents])
    logits = model(tokens).logits[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).exp().item()


@torch.no_grad()
def exact_matches(model, items):
    """For each (task, prompt, answer) whether greedy decoding gives the whole answer."""
    matches = []
    for begin in range(0, len(items), 70):
        batch = items[begin : begin + 70]
        lines = [[IDS[word] for word in [*prompt, *answer]] for _, prompt, answer in batch]
        width = max(map(len, lines))
        tokens = torch.tensor([line + [IDS["<pad>"]] * (width - len(line)) for line in lines])
        guesses = model(tokens).logits.argmax(-1)
        for row, (_, prompt, answer) in enumerate(batch):
            first, last = len(prompt), len(prompt) + len(answer)
            matches.append(bool((guesses[row, first - 1 : last - 1] == tokens[row, first:last]).all()))
    return matches


def percent(matches):
    return 100 * sum(matches) / len(matches)


def measure(path, data):
    """The figures of one checkpoint as plain data: by group, and exact match by language and task."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    result, by_task = {"checkpoint": path}, {}
    for group, letters in GROUPS.items():
        raw = [document for letter in letters for document in data[letter][0]]
        result[f"ppl_{group}"] = perplexity(model, raw)
        for name, position in (("instruct", 1), ("skills", 2)):
            matches = {letter: exact_matches(model, data[letter][position]) for letter in letters}
            result[f"{name}_{group}"] = percent([m for ms in matches.values() for m in ms])
            if name == "instruct":
                for letter in letters:
                    count = len(INSTRUCTION_TASKS)
                    by_task[letter] = {t: percent(matches[letter][i::count]) for i, t in enumerate(INSTRUCTION_TASKS)}
    return result | {"tasks": by_task}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--split", choices=["test", "dev"], default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object for each checkpoint, with every task")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = draw(World(options.seed), options.split)
    columns = ["ppl_O", "ppl_N", "instruct_O", "instruct_N", "skills_O", "skills_N"]
    if not options.json:
        print(f"{'checkpoint':<12}" + "".join(f"{column:>12}" for column in columns))
    for path in options.checkpoints:
        result = measure(path, data)
        if options.json:
            print(json.dumps(result))
        else:
            name = path.rstrip("/").rsplit("/", 1)[-1]
            print(f"{name:<12}" + "".join(f"{result[c]:>12.2f}" if "ppl" in c else f"{result[c]:>11.1f}%" for c in columns))


if __name__ == "__main__":
    main()
