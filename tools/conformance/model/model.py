"""The decoder against transformers: `python model.py [--only <part of a case's name>] [--keep <folder>]`.

Random tiny checkpoints of every family, F32; logits of a prompt, and a greedy continuation with the cache, of both programs.
Ends in `model: N passed, M failed`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from cases import CASES, LONG_LENGTH, NEW_TOKENS, PROMPT_LENGTH, SMALL

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
# Of the largest logit.
TOLERANCE = 2e-4

transformers.utils.logging.disable_progress_bar()


def build(name, model_type, fields):
    """Seeded by the name; every kind of tensor away from its initial value."""
    config = AutoConfig.for_model(model_type, **SMALL | fields)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    for key, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.3 * noise if key.endswith("norm.weight") else 0.2 * noise
    return model


def reference(name, model_type, fields, folder):
    model = build(name, model_type, fields)
    model.save_pretrained(folder)
    # Beyond its trained length, dynamic RoPE changes.
    length = LONG_LENGTH if "dynamic" in name else PROMPT_LENGTH
    if length > SMALL["max_position_embeddings"]:
        new_tokens = 0
    else:
        new_tokens = NEW_TOKENS
    generator = torch.Generator().manual_seed(7)
    prompt = torch.randint(3, SMALL["vocab_size"], (1, length), generator=generator)
    with torch.no_grad():
        output = model(prompt, output_hidden_states=True)
        logits = output.logits[0].numpy()
        # The last one is that of the final norm.
        hidden = numpy.stack([states[0].numpy() for states in output.hidden_states[:-1]])
        tokens = []
        if new_tokens > 0:
            model.generation_config.eos_token_id = None
            output = model.generate(prompt, max_new_tokens=new_tokens, do_sample=False, pad_token_id=0)
            tokens = output[0, length:].tolist()
    return dict(folder=folder, prompt=prompt[0].tolist(), tokens=tokens), logits, hidden


def distance(values, expected):
    """Largest difference over the largest value."""
    actual = numpy.array(values, dtype=numpy.float32).reshape(expected.shape)
    return numpy.abs(actual - expected).max() / numpy.abs(expected).max()


def compare(result, expected, logits, hidden):
    """A line, and whether all holds."""
    if "error" in result:
        return False, result["error"]
    off = distance(result["logits"], logits)
    hidden_off = distance(result["hidden"], hidden)
    same = result["tokens"] == expected["tokens"]
    detail = (
        f"logits within {off:.1e} of the largest, hidden states {hidden_off:.1e}; "
        f"{len(expected['tokens'])} tokens {'equal' if same else 'DIFFER'}"
    )
    return bool(max(off, hidden_off) <= TOLERANCE) and same, detail


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--keep")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.keep or temporary
        references = {
            name: reference(name, model_type, fields, os.path.join(work, name))
            for name, model_type, fields in CASES
            if arguments.only in name
        }
        requests = [dict(name=name, **expected) for name, (expected, *_) in references.items()]
        command = ["npx", "tsx", os.path.join(HERE, "forward.ts")]
        ran = subprocess.run(command, input=json.dumps(requests), stdout=subprocess.PIPE, text=True, cwd=ROOT)
        ran.check_returncode()
        results = json.loads(ran.stdout)
    passed = failed = 0
    for name, (expected, logits, hidden) in references.items():
        ok, detail = compare(results[name], expected, logits, hidden)
        passed, failed = passed + ok, failed + (not ok)
        print(f"{'ok  ' if ok else 'FAIL'} {name}: {detail}")
    print(f"model: {passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


main()
