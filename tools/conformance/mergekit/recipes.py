"""Every recipe that both programs run: each method with each of its options, then what all methods share.

A recipe is mergekit's, with base, a, b, c for the paths of the models. `near` says how close the results must be, see differential.py.
"""


def merge(method, models, base=None, near="elements", dtype="float32", **rest):
    listed = [{"model": name, "parameters": parameters} for name, parameters in models.items()]
    config = {"merge_method": method, "dtype": dtype, **({"base_model": base} if base else {}), "models": listed}
    return dict(config=config | rest, near=near)


def vectors(method, models, near="elements", **parameters):
    """A method of task vectors."""
    return merge(method, models, "base", near, parameters=parameters)


def shared(method, names, base=None, near="sums", **parameters):
    """A method whose models have no parameters of their own."""
    return merge(method, {name: {} for name in names}, base, near, parameters=parameters)


def double(method, names, base=None, **parameters):
    """The same in F64."""
    return merge(method, {name: {} for name in names}, base, "sums", "float64", parameters=parameters)


WEIGHTS = {"a": {"weight": 0.7}, "b": {"weight": 0.4}, "c": {"weight": 1.3}}
DENSE = {"a": {"weight": 0.7, "density": 1}, "b": {"weight": 0.4, "density": 1}}
SPARSE = {"a": {"weight": 1, "density": 0.3}, "b": {"weight": 1, "density": 0.4}}
SPARSE_WEIGHTS = {"a": {"weight": 0.7, "density": 0.25}, "b": {"weight": 0.4, "density": 0.45}, "c": {"weight": 1.3, "density": 0.3}}
CRUMBS = {"a": {"weight": 0.7, "density": 0.35, "gamma": 0.05}, "b": {"weight": 0.4, "density": 0.3, "gamma": 0.1}}
# mergekit cannot change the depth of a Qwen2 whose config lists the types of its layers.
WITHOUT_LAYER_TYPES = ["llama", "trio"]
# Which of equal variances are selected changes the weights of the whole tensor; differences of BF16 have many that are equal.
WITHOUT_TIES = ["llama"]
# A number for each layer, and a filter by name.
GRADIENT = [{"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]}, {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]}, {"value": 0.5}]


def slices(*parts):
    return [{"sources": [{"model": model, "layer_range": list(layers)} for model, layers in part]} for part in parts]


METHODS = {
    "linear": merge("linear", WEIGHTS),
    "linear, not normalised": merge("linear", WEIGHTS, parameters={"normalize": False}),
    "linear, a negative weight": merge("linear", {"a": {"weight": 1.5}, "b": {"weight": -0.5}}),
    "slerp": shared("slerp", "a", "base", t=0.3),
    "slerp, nearly parallel": shared("slerp", "c", "base", t=0.3),
    "slerp, beyond the ends": shared("slerp", "a", "base", t=1.25),
    "nuslerp": merge("nuslerp", {"a": {"weight": 0.7}, "b": {"weight": 0.4}}, near="sums"),
    "nuslerp of task vectors": merge("nuslerp", {"a": {"weight": 0.7}, "b": {"weight": 0.4}}, "base", "sums"),
    "nuslerp by rows": merge("nuslerp", {"a": {"weight": 0.7}, "b": {"weight": 0.4}}, near="sums", parameters={"nuslerp_flatten": False}),
    "nuslerp by columns": merge(
        "nuslerp", {"a": {"weight": 1}, "b": {"weight": 3}}, near="sums", parameters={"nuslerp_flatten": False, "nuslerp_row_wise": True}
    ),
    "nuslerp of task vectors by rows": merge(
        "nuslerp", {"a": {"weight": 0.7}, "b": {"weight": 0.4}}, "base", "sums", parameters={"nuslerp_flatten": False}
    ),
    "multislerp": merge("multislerp", WEIGHTS, near="sums"),
    "multislerp of task vectors": merge("multislerp", WEIGHTS, "base", "sums"),
    "multislerp of one": merge("multislerp", {"a": {"weight": 0.7}}, near="sums"),
    "multislerp, weights as they are": merge("multislerp", WEIGHTS, near="sums", parameters={"normalize_weights": False}),
    "karcher": shared("karcher", "abc"),
    "karcher, one step": shared("karcher", "abc", max_iter=1),
    "karcher, a coarse end": shared("karcher", "abc", max_iter=100, tol=0.05),
    "task arithmetic": vectors("task_arithmetic", WEIGHTS),
    "task arithmetic, lambda": vectors("task_arithmetic", WEIGHTS, **{"lambda": 0.6}),
    "task arithmetic, normalised": vectors("task_arithmetic", WEIGHTS, normalize=True),
    "ties": vectors("ties", SPARSE),
    "ties, weights": vectors("ties", SPARSE_WEIGHTS),
    "ties, not normalised": vectors("ties", SPARSE_WEIGHTS, normalize=False),
    "ties, lambda, int8_mask": vectors("ties", SPARSE_WEIGHTS, int8_mask=True, **{"lambda": 1.4}),
    "ties, rescaled": vectors("ties", SPARSE_WEIGHTS, "sums", rescale=True),
    "ties, nothing trimmed": vectors("ties", DENSE),
    "dare_linear, nothing dropped": vectors("dare_linear", DENSE),
    "dare_linear, nothing dropped, normalised": vectors("dare_linear", DENSE, normalize=True),
    "dare_ties, nothing dropped": vectors("dare_ties", DENSE),
    "dare_ties, nothing dropped, normalised": vectors("dare_ties", DENSE, normalize=True, **{"lambda": 0.5}),
    "della, nothing dropped": vectors("della", DENSE),
    "della, nothing dropped, not normalised": vectors("della", DENSE, normalize=False, **{"lambda": 0.5}),
    "della_linear, nothing dropped": vectors("della_linear", DENSE),
    "breadcrumbs": vectors("breadcrumbs", CRUMBS),
    "breadcrumbs, the usual gamma": vectors("breadcrumbs", SPARSE_WEIGHTS),
    "breadcrumbs, rescaled": vectors("breadcrumbs", CRUMBS, "sums", rescale=True, **{"lambda": 0.8}),
    "breadcrumbs, normalised": vectors("breadcrumbs", CRUMBS, normalize=True),
    "breadcrumbs_ties": vectors("breadcrumbs_ties", CRUMBS),
    "breadcrumbs_ties, normalised": vectors("breadcrumbs_ties", CRUMBS, normalize=True),
    "sce": shared("sce", "abc", "base"),
    "sce, selected": shared("sce", "ab", "base", select_topk=0.3) | {"sets": WITHOUT_TIES},
    "model_stock": shared("model_stock", "abc", "base"),
    "model_stock of two": shared("model_stock", "ab", "base"),
    "model_stock by rows": shared("model_stock", "abc", "base", filter_wise=True),
    "nearswap": shared("nearswap", "a", "base", "elements", t=0.004),
    # In F64, since what mergekit takes for important in F32 is partly rounding: known.py shows that.
    "arcee_fusion": double("arcee_fusion", "a", "base"),
    "arcee_fusion of a small change": double("arcee_fusion", "c", "base"),
    "ram": shared("ram", "abc", "base", "elements"),
    "ram, epsilon": shared("ram", "abc", "base", "elements", epsilon=0.003),
    "ramplus_tl": shared("ramplus_tl", "abc", "base", "elements"),
    "ramplus_tl, r and alpha": shared("ramplus_tl", "abc", "base", "elements", epsilon=0.003, r=0.5, alpha=0.7),
    "passthrough": merge("passthrough", {"a": {}}),
    "passthrough, scaled": merge("passthrough", {"a": {"scale": 0.5}}),
}

FORMS = {
    "filters and gradients of t": dict(
        config={
            "merge_method": "slerp",
            "base_model": "base",
            "dtype": "float32",
            "slices": slices([("base", (0, 4)), ("a", (0, 4))]),
            "parameters": {"t": GRADIENT},
        },
        near="sums",
    ),
    "filters and gradients of a model's weight": vectors("task_arithmetic", {"a": {"weight": GRADIENT}, "b": {"weight": [0, 1]}}),
    "a gradient of density": vectors("ties", {"a": {"weight": 1, "density": [1, 0.3]}, "b": {"weight": 0.5, "density": 0.4}}),
    "layers of two models one after the other": dict(
        config={"merge_method": "passthrough", "dtype": "float32", "slices": slices([("a", (0, 2))], [("b", (2, 4))])}, near="elements"
    ),
    "more layers than before": dict(
        config={"merge_method": "passthrough", "dtype": "float32", "slices": slices([("a", (0, 3))], [("b", (1, 4))])},
        near="elements",
        sets=WITHOUT_LAYER_TYPES,
    ),
    "slices with a method": dict(
        config={
            "merge_method": "linear",
            "dtype": "float32",
            "parameters": {"weight": 0.5},
            "slices": slices([("a", (0, 2)), ("b", (0, 2))], [("b", (1, 3)), ("a", (1, 3))]),
        },
        near="elements",
    ),
    "parameters of a slice": dict(
        config={
            "merge_method": "task_arithmetic",
            "base_model": "base",
            "dtype": "float32",
            "parameters": {"weight": 0.5},
            "slices": [
                {**slices([("base", (0, 2)), ("a", (0, 2))])[0], "parameters": {"weight": 0.9}},
                *slices([("base", (2, 4)), ("a", (2, 4))]),
            ],
        },
        near="elements",
    ),
    "layers doubled with a scale of 0 where they add to the residual stream": dict(
        config={
            "merge_method": "passthrough",
            "dtype": "float32",
            "slices": [
                *slices([("a", (0, 3))]),
                {
                    "sources": [
                        {
                            "model": "a",
                            "layer_range": [2, 4],
                            "parameters": {
                                "scale": [{"filter": "o_proj", "value": 0}, {"filter": "down_proj", "value": 0}, {"value": 1}]
                            },
                        }
                    ]
                },
            ],
        },
        near="elements",
        sets=WITHOUT_LAYER_TYPES,
    ),
    "the form of modules": dict(
        config={
            "merge_method": "linear",
            "dtype": "float32",
            "modules": {"default": {"models": [{"model": "a", "parameters": {"weight": 1}}, {"model": "b", "parameters": {"weight": 2}}]}},
        },
        near="elements",
    ),
    "out_dtype bfloat16": merge("task_arithmetic", WEIGHTS, "base", out_dtype="bfloat16"),
    "out_dtype float16": merge("ties", SPARSE_WEIGHTS, "base", out_dtype="float16"),
    "out_dtype bfloat16 of a sphere": merge("multislerp", WEIGHTS, near="sums", out_dtype="bfloat16"),
    "dtype float64": merge("task_arithmetic", WEIGHTS, "base", dtype="float64"),
    # mergekit's sums in F64, too: what is left of the gaps above is the rounding of its sums in F32.
    "slerp, dtype float64": double("slerp", "a", "base", t=0.3),
    "karcher, dtype float64": double("karcher", "abc"),
    "model_stock, dtype float64": double("model_stock", "abc", "base"),
    "model_stock by rows, dtype float64": double("model_stock", "abc", "base", filter_wise=True),
    "sce, dtype float64": double("sce", "abc", "base"),
}

RECIPES = METHODS | FORMS
