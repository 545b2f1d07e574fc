"""The checkpoints that are merged: tiny random ones of two families, and the trained trio of tools/trio.

Each set has a base and the models a, b, c: a and b leave about half of the base's elements as they are, c is close to the base
throughout. Norms and biases are away from their initial values. No tokenizers, but for the trio's.
"""

import json
import os
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

transformers.utils.logging.disable_progress_bar()
TRIO = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "trio/checkpoints")
SIZES = dict(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)
RANDOM = {
    "llama": (LlamaConfig(**SIZES), torch.float32),
    "qwen2": (Qwen2Config(**SIZES, tie_word_embeddings=True), torch.bfloat16),
}
SETS = [*RANDOM, "trio"]


def stored(folder):
    """{name: tensor} over all safetensors of a folder."""
    files = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(f"{folder}/{file}").items()}


def moved(tensors, seed, size, share):
    """The tensors, with noise on about that share of their elements; F32, to be rounded by whoever saves them."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, tensor in sorted(tensors.items()):
        noise, draw = (make(tensor.shape, generator=generator) for make in (torch.randn, torch.rand))
        result[name] = tensor.float() + size * noise * (draw < share)
    return result


def make_random(folder, config, dtype):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape)
            parameter.copy_(1 + 0.2 * noise if name.endswith("norm.weight") else 0.06 * noise)
    model.to(dtype).save_pretrained(f"{folder}/base")
    base = stored(f"{folder}/base")
    for seed, (role, size, share) in enumerate((("a", 0.02, 0.5), ("b", 0.03, 0.5), ("c", 0.001, 1))):
        tensors = {name: tensor.to(dtype) for name, tensor in moved(base, seed, size, share).items()}
        write(f"{folder}/{role}", tensors, f"{folder}/base/config.json")


def make_trained(folder):
    """base; a: instruct; b: the pre-trained mixture's second expert, as the dense model that it is with all that is shared; c: near a."""
    shutil.copytree(f"{TRIO}/base", f"{folder}/base")
    shutil.copytree(f"{TRIO}/instruct", f"{folder}/a")
    names = {".w1.": ".gate_proj.", ".w3.": ".up_proj.", ".w2.": ".down_proj."}
    dense = {}
    for name, tensor in stored(f"{TRIO}/cpt").items():
        if ".experts.1." in name:
            for part, dense_part in names.items():
                name = name.replace(part, dense_part)
            dense[name.replace("block_sparse_moe.experts.1.", "mlp.")] = tensor
        elif ".block_sparse_moe." not in name:
            dense[name] = tensor
    instruct = stored(f"{TRIO}/instruct")
    assert {n: t.shape for n, t in dense.items()} == {n: t.shape for n, t in instruct.items()}
    near = {name: tensor.bfloat16() for name, tensor in moved(instruct, 3, 0.002, 0.3).items()}
    for role, tensors in (("b", dense), ("c", near)):
        write(f"{folder}/{role}", tensors, f"{folder}/base/config.json")
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(f"{TRIO}/base/{file}", f"{folder}/{role}")


def write(folder, tensors, config):
    os.makedirs(folder)
    shutil.copy(config, folder)
    save_file(tensors, f"{folder}/model.safetensors", {"format": "pt"})


def make_all(work):
    for name, (config, dtype) in RANDOM.items():
        make_random(f"{work}/{name}", config, dtype)
    make_trained(f"{work}/trio")


if __name__ == "__main__":
    make_all(sys.argv[1])
    print(json.dumps({name: sorted(os.listdir(f"{sys.argv[1]}/{name}")) for name in SETS}))
