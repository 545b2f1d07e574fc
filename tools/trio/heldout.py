"""Held-out data, drawn with seeds that no training stage uses. `python heldout.py --out data` writes the test split.

data/raw-<language>.txt        48 documents, one on a line: for perplexity
data/instruct-<language>.jsonl instructions { task, prompt, answer }: for exact match
data/skills-<language>.jsonl   the same kind of skills phrased as raw text, for models without alignment
"""

import argparse
import json
import os
import random

from world import INSTRUCTION_TASKS, LANGUAGES, RAW_TASKS, World, chat

DOCUMENTS, INSTRUCTIONS, SKILLS = 48, 350, 240  # for each language


def draw(world, split, documents=DOCUMENTS, instructions=INSTRUCTIONS, skills=SKILLS):
    """{language: (documents, instructions, skills)}; the last two as (task, prompt, answer), all as words."""
    drawn = {}
    for letter in LANGUAGES:
        rng = random.Random(f"{split}/{letter}")
        tasks = [INSTRUCTION_TASKS[i % len(INSTRUCTION_TASKS)] for i in range(instructions)]
        skill_tasks = [RAW_TASKS[i % len(RAW_TASKS)] for i in range(skills)]
        drawn[letter] = (
            [world.document(letter, rng) for _ in range(documents)],
            [(task, *_instruction(world, letter, task, rng)) for task in tasks],
            [(task, *world.raw_item(letter, task, rng)) for task in skill_tasks],
        )
    return drawn


def _instruction(world, letter, task, rng):
    prompt, answer = world.instruction(letter, task, rng, held_out=True)
    return chat(prompt), [*answer, "<end>"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    # Fewer instructions than evaluate.py draws: these are committed, for programs that do not run Python.
    for letter, (documents, *items) in draw(World(options.seed), "test", instructions=140, skills=60).items():
        with open(f"{options.out}/raw-{letter}.txt", "w") as file:
            file.writelines(" ".join(document) + "\n" for document in documents)
        for name, rows in zip(("instruct", "skills"), items):
            with open(f"{options.out}/{name}-{letter}.jsonl", "w") as file:
                for task, prompt, answer in rows:
                    row = {"task": task, "prompt": " ".join(prompt), "answer": " ".join(answer)}
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
