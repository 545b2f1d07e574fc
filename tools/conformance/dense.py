"""Writes the dense checkpoints: `python dense.py <work folder> v4|v5 <case> ...`, run in the environment of that major.

For each case <work>/<case>/base and post: random, with every kind of tensor (norms and biases too) away from its
initial value, and post equal to base in about half of the elements.
"""

import sys

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from cases import CASES, DENSE_CASES

transformers.utils.logging.disable_progress_bar()


def build(case, fields):
    """The base: seeded by the case's name alone, so that both majors make the same weights."""
    config = AutoConfig.for_model(case["model_type"], **case["config"] | fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(sum(map(ord, case["name"])))
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = name.endswith("norm.weight")
        parameter.data = 1 + 0.2 * noise if is_norm else 0.06 * noise
    return model


def perturb(model, case):
    generator = torch.Generator().manual_seed(1 + sum(map(ord, case["name"])))
    for _, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        moved = torch.rand(parameter.shape, generator=generator) < 0.5
        parameter.data = parameter.data + 0.02 * noise * moved


def main(work, major, names):
    for case in (c for c in CASES + DENSE_CASES if c["name"] in names):
        dtype = getattr(torch, case["dtype"])
        for role, writer in zip(("base", "post"), case["writers"]):
            if writer != major:
                continue
            model = build(case, case["post"] if role == "post" else {})
            model.to(dtype)
            if role == "post":
                model.float()  # the base as it is stored, then moved, then stored
                perturb(model, case)
                model.to(dtype)
            model.config.dtype = dtype
            model.save_pretrained(f"{work}/{case['name']}/{role}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], set(sys.argv[3:]))
