"""What a layer's own module, or its weight where it is a functional call, tells about it."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from binarize.capture.leaves import CONVOLUTIONS
from binarize.dataflow import Flow
from binarize.layers import binary_class, is_binary

__all__ = ["count_macs", "functional_facts", "module_facts", "obstacle_of", "shared_parameters"]


def module_facts(module: nn.Module) -> dict[str, Any]:
    """What the module itself tells: type, kind, kernel, channels, sizes."""
    bases = [
        cls.__name__ for cls in type(module).__mro__ if issubclass(cls, nn.Module) and cls is not nn.Module
    ]
    own = dict(module.named_parameters(recurse=False))
    facts: dict[str, Any] = {
        "type": bases[0],
        "bases": tuple(bases),
        "params": sum(p.numel() for p in module.parameters()),
        "weights": own["weight"].numel() if "weight" in own else 0,
        "bias": "bias" in own,
        "kind": "custom",
    }
    if isinstance(module, CONVOLUTIONS):
        padding = module.padding if isinstance(module.padding, str) else tuple(module.padding)
        facts.update(
            kind="conv_transpose" if module.transposed else "conv",
            kernel=tuple(module.kernel_size),
            stride=tuple(module.stride),
            padding=padding,
            dilation=tuple(module.dilation),
            groups=module.groups,
            in_channels=module.in_channels,
            out_channels=module.out_channels,
        )
    elif isinstance(module, nn.Linear):
        facts.update(kind="linear", in_channels=module.in_features, out_channels=module.out_features)
    elif isinstance(module, nn.MultiheadAttention):
        facts.update(kind="attention", in_channels=module.embed_dim, out_channels=module.embed_dim)
    elif isinstance(module, nn.RNNBase):
        facts.update(kind="recurrent", in_channels=module.input_size, out_channels=module.hidden_size)
    elif isinstance(module, nn.Embedding):
        facts.update(kind="embedding", in_channels=module.num_embeddings, out_channels=module.embedding_dim)
    return facts


def functional_facts(flow: Flow, site: int) -> dict[str, Any]:
    """A functional layer is known by its weight alone."""
    weight = flow.root
    for part in str(flow.functional_weight(site)).split("."):
        weight = getattr(weight, part)
    op = flow.op(site).strip("_")
    kind = "conv" if "conv" in op else "linear" if op == "linear" else "custom"
    shape: tuple[int, ...] = tuple(weight.shape)  # type: ignore[arg-type]
    count = math.prod(shape)
    return {
        "type": f"F.{op}",
        "bases": (f"F.{op}",),
        "kind": kind,
        "kernel": shape[2:] if kind == "conv" else (),
        "in_channels": shape[1] if len(shape) > 1 else 0,
        "out_channels": shape[0] if shape else 0,
        "params": count,
        "weights": count,
    }


def count_macs(flow: Flow, site: int, module: nn.Module | None, facts: dict[str, Any]) -> int:
    """Multiply-accumulates of one call on the whole example: every weight meets every position it is applied to."""
    out_shape, in_shape = (
        flow.shape(site),
        flow.shape(flow.data_inputs[site][0]) if flow.data_inputs[site] else (),
    )
    if facts["kind"] == "conv":
        positions = math.prod(out_shape) // max(facts["out_channels"], 1)
        return positions * facts["weights"]
    if facts["kind"] == "conv_transpose":
        return math.prod(in_shape) // max(facts["in_channels"], 1) * facts["weights"]
    if facts["kind"] == "linear":
        return math.prod(out_shape) * facts["in_channels"]
    if facts["kind"] == "attention" and in_shape:
        # Four projections a token; the products of queries, keys and values hold no weight.
        return math.prod(in_shape) * facts["in_channels"] * 4
    if facts["kind"] == "custom" and out_shape:
        return math.prod(out_shape) * facts["in_channels"]
    return 0


def shared_parameters(module: nn.Module) -> dict[str, str]:
    """Layer name -> the other place that holds one of its parameters."""
    owners: dict[int, list[str]] = {}
    for path, child in module.named_modules():
        for parameter in child._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(path)
    shared = {}
    for paths in owners.values():
        for path in set(paths) if len(set(paths)) > 1 else ():
            shared[path] = next(other for other in paths if other != path)
    return shared


def obstacle_of(module: nn.Module | None, name: str, shared: dict[str, str]) -> str | None:
    """Why no binary layer can take this one's place, None where one can."""
    if not name:
        return "it is the model itself; put it into a torch.nn.Sequential to have it replaced"
    if module is None:
        return "a functional call uses its weight, which no swap of modules reaches"
    if is_binary(module):
        return "it is binary already"
    if name in shared:
        return f"it shares a parameter with {shared[name]}"
    if binary_class(module) is not None:
        return None
    if hasattr(module, "parametrizations"):
        return "its weight is parametrized; torch.nn.utils.parametrize.remove_parametrizations(...) frees it"
    if "weight" not in module._parameters and hasattr(module, "weight"):
        return "its weight is computed by a hook of torch.nn.utils (weight_norm, spectral_norm)"
    if type(module).__module__.startswith("torch.nn."):
        return f"there is no binary {type(module).__name__}"
    return f"{type(module).__module__}.{type(module).__qualname__} has a forward of its own"
