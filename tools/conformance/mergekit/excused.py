"""Elements whose result may be another one, each for a cause that docs/mergekit-differences.md names."""

import re

import torch

LAYERS = 4


def excused(name, config, inputs):
    """Of the tensor `name`: where the result may differ, [its shape]."""
    method, base = config["merge_method"], inputs["base"][name].double()
    models = [(inputs[m["model"]][name].double(), m["parameters"]) for m in config.get("models", [])]
    free = torch.zeros(base.shape, dtype=torch.bool)
    if any("density" in parameters for _, parameters in models):
        for model, parameters in models:
            free |= tied_ranks((model - base).abs(), at_layer(parameters["density"], name), outliers(method, parameters))
    elif method == "arcee_fusion":
        free = importance_and_threshold(models[0][0], base)[2]
    elif method == "nuslerp" and "base_model" in config:
        free |= without_direction([model - base for model, _ in models], by_rows="parameters" in config)
    return free


def outliers(method, parameters):
    """The share of the largest that a method drops; 0.01 is mergekit's default."""
    return parameters.get("gamma", 0.01) if method.startswith("breadcrumbs") else 0


def at_layer(value, name):
    """A parameter that is a number, or a gradient over the layers."""
    if not isinstance(value, list):
        return value
    layer = re.search(r"layers\.(\d+)\.", name)
    place = (len(value) - 1) * (int(layer[1]) / (LAYERS - 1) if layer else name != "model.embed_tokens.weight")
    low = min(int(place), len(value) - 2)
    return value[low] + (place - low) * (value[low + 1] - value[low])


def tied_ranks(size, density, gamma):
    """Magnitudes of which some rank before a threshold and some behind it."""
    order = size.flatten().sort(descending=True).values
    free = torch.zeros(size.shape, dtype=torch.bool)
    keep, top = int(density * len(order)), int(gamma * len(order))
    for end in (top, top + keep):
        if 0 < end < len(order) and order[end - 1] == order[end]:
            free |= size == order[end]
    return free


def importance_and_threshold(model, base):
    """Arcee Fusion, in F64: the importance of each element, what it must reach, and where it does or does not by a rounding to F32."""
    p, q = (tensor.softmax(dim=-1) + 1e-8 for tensor in (model, base))
    importance = (model - base).abs() * (p * (p / q).log()).sum(dim=-1, keepdim=True)
    order = importance.flatten().sort().values
    q1, q2, q3 = (order[quarter * (len(order) - 1) // 4] for quarter in (1, 2, 3))
    threshold = q2 + 1.5 * (q3 - q1)
    return importance, threshold, (importance - threshold).abs() <= 1e-6 * threshold


def without_direction(vectors, by_rows):
    """Task vectors of which one is 0: whole, or in a row."""
    if by_rows:
        return torch.stack([(v == 0).all(dim=-1, keepdim=True).expand(v.shape) for v in vectors]).any(dim=0)
    return torch.stack([(v == 0).all().expand(v.shape) for v in vectors]).any(dim=0)
