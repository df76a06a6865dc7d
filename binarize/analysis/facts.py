"""What a layer's own module, or its weight where it is a functional call, tells about it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from binarize.analysis.flow import Flow
from binarize.attention.explicit import why_not_explicit
from binarize.attention.multihead import ExplicitAttention
from binarize.capture.leaves import CONVOLUTIONS
from binarize.computed_weights import class_before, computes_weight
from binarize.layers.classes import binary_class
from binarize.layers.layer import is_binary

__all__ = [
    "count_macs",
    "entangled",
    "functional_facts",
    "functional_obstacle",
    "module_facts",
    "obstacle_of",
    "shared_layers",
]

_ROOT = "it is the model itself; put it into a torch.nn.Sequential to have it replaced"


def module_facts(module: nn.Module) -> dict[str, Any]:
    """What the module itself tells: type, kind, kernel, channels, sizes."""
    bases = [
        cls.__name__
        for cls in class_before(module).__mro__
        if issubclass(cls, nn.Module) and cls is not nn.Module
    ]
    own = dict(module.named_parameters(recurse=False))
    facts: dict[str, Any] = {
        "type": bases[0],
        "bases": tuple(bases),
        "params": sum(p.numel() for p in module.parameters()),
        "weights": _weights(module),
        "bias": "bias" in own,
        "kind": "custom",
        "in_channels": 0,
        "out_channels": 0,
    }
    if isinstance(module, CONVOLUTIONS):
        facts.update(
            _conv_facts(module),
            kind="conv_transpose" if module.transposed else "conv",
            in_channels=module.in_channels,
            out_channels=module.out_channels,
        )
    elif isinstance(module, nn.Linear):
        facts.update(kind="linear", in_channels=module.in_features, out_channels=module.out_features)
    elif isinstance(module, nn.MultiheadAttention):
        facts.update(kind="attention", in_channels=module.embed_dim, out_channels=module.embed_dim)
    elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        facts.update(kind="recurrent", in_channels=module.input_size, out_channels=module.hidden_size)
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        facts.update(kind="embedding", in_channels=module.num_embeddings, out_channels=module.embedding_dim)
    else:
        facts.update(_custom_facts(module, own))
    return facts


def _conv_facts(module: Any) -> dict[str, Any]:
    return {
        "kernel": tuple(module.kernel_size),
        "stride": tuple(module.stride),
        "padding": module.padding if isinstance(module.padding, str) else tuple(module.padding),
        "dilation": tuple(module.dilation),
        "groups": module.groups,
    }


def _weights(module: nn.Module) -> int:
    weight = getattr(module, "weight", None)
    return (
        weight.numel()
        if isinstance(weight, Tensor) and ("weight" in module._parameters or computes_weight(module))
        else 0
    )


def _custom_facts(module: nn.Module, own: dict[str, nn.Parameter]) -> dict[str, Any]:
    """Sizes of a layer of the model's own, by the names that torch gives them, else by its largest weight."""
    weights = sorted((p for p in own.values() if p.dim() > 1), key=lambda p: p.numel())
    sizes = weights[-1].shape if weights else (0, 0)
    facts: dict[str, Any] = {"weights": sum(p.numel() for p in weights)}
    binary = binary_class(module)
    if binary is not None and binary.kind is not None:
        inputs, outputs = binary.channels_of(module)
        own = _conv_facts(module) if binary.kind != "linear" else {}
        return {**facts, **own, "kind": binary.kind, "in_channels": inputs, "out_channels": outputs}
    for fact, name in (("in_channels", "in_features"), ("out_channels", "out_features")):
        size = getattr(module, fact, getattr(module, name, None))
        facts[fact] = size if isinstance(size, int) else int(sizes[1 if fact == "in_channels" else 0])
    return facts


def functional_facts(flow: Flow, site: int) -> dict[str, Any]:
    """A functional layer is known by its weight, and by the shapes of what goes in and out."""
    op = flow.op(site).strip("_")
    kind = "linear" if op == "linear" else "custom"
    if op.startswith("conv"):
        kind = "conv_transpose" if "transpose" in op else "conv"
    parameters = [flow.parameters[path] for path in flow.functional_weights(site)]
    shape = _weight_shape(flow, site) or tuple(parameters[0].shape)
    first, second = (shape[0], shape[1]) if len(shape) > 1 else (math.prod(shape), 1)
    facts: dict[str, Any] = {"kernel": (), "in_channels": first, "out_channels": second}
    if kind == "linear":
        facts.update(in_channels=second, out_channels=first)
    elif kind != "custom":
        # (..., channels, one size per axis of the kernel)
        axis = 1 - len(shape)
        channels = [flow.shape(i)[axis] for i in (flow.data_inputs[site][0], site)]
        groups = channels[0] // second if kind == "conv" else channels[1] // second
        facts.update(
            kernel=shape[2:], in_channels=channels[0], out_channels=channels[1], groups=max(groups, 1)
        )
    count = sum(parameter.numel() for parameter in parameters)
    return {
        "type": f"F.{op}",
        "bases": (f"F.{op}",),
        "kind": kind,
        "params": count,
        "weights": count,
        **facts,
    }


def _weight_shape(flow: Flow, site: int) -> tuple[int, ...]:
    """Shape of the weight that a functional convolution or linear layer multiplies by, which may be made of several."""
    op, read = flow.op(site).strip("_"), flow.inputs[site]
    weights = [i for i in read[1:] if len(flow.shape(i)) > 1]
    return flow.shape(weights[0]) if weights and op.startswith(("conv", "linear")) else ()


def functional_obstacle(flow: Flow, site: int, name: str) -> str:
    """Why a functional layer stays as it is."""
    if not name:
        return _ROOT
    paths = flow.functional_weights(site)
    owner = flow.modules.get(paths[0].rpartition(".")[0].rpartition(".")[0])
    if isinstance(owner, ExplicitAttention):
        return "queries, keys and values are made of different tensors, each with a part of its weight"
    if functional_facts(flow, site)["kind"] == "custom":
        return f"a product with a parameter ({paths[0]}), not a layer"
    if any(flow.is_data[i] for i in flow.inputs[site][1:]):
        return f"its weight is mixed from {' and '.join(paths[:2])} anew for each input"
    if len(paths) > 1:
        return f"its weight is computed from {' and '.join(paths[:2])}"
    return "a functional call uses its weight, which no swap of modules reaches"


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


def entangled(flow: Flow) -> dict[str, str]:
    """Layer name -> who else computes with one of its parameters, in words."""
    alike = {name for group in shared_layers(flow.root) for name in group}
    found = {
        name: f"it shares a parameter with {other}"
        for name, other in _shared(flow.root).items()
        if name not in alike
    }
    for i, node in enumerate(flow.nodes):
        owner, _, leaf = str(node.target).rpartition(".")
        if node.op == "get_attr" and leaf == "weight" and flow.descendants[i] >> len(flow.nodes) - 1 & 1:
            reader = flow.label(flow.users[i][0])
            found.setdefault(owner, f"the model reads its weight itself as well ({reader})")
    return found


def shared_layers(module: nn.Module) -> list[tuple[str, ...]]:
    """Groups of layers that share a parameter and could all be binary: they become binary together, or none does."""
    parts = dict(module.named_modules())
    groups: dict[int, list[tuple[str, str]]] = {}
    for path, part in parts.items():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                groups.setdefault(id(parameter), []).append((path, name))
    found: dict[tuple[str, ...], bool] = {}
    for owners in groups.values():
        paths = tuple(dict.fromkeys(path for path, _ in owners))
        if len(paths) > 1:
            same = len({name for _, name in owners}) == 1 and len(paths) == len(owners)
            fits = same and all(path and binary_class(parts[path]) is not None for path in paths)
            found[paths] = found.get(paths, True) and fits
    refused = {path for paths, fits in found.items() if not fits for path in paths}
    return [paths for paths, fits in found.items() if fits and not refused & set(paths)]


def _shared(module: nn.Module) -> dict[str, str]:
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


def obstacle_of(module: nn.Module, name: str, entangled: dict[str, str]) -> str | None:
    """Why no binary layer can take this one's place, None where one can."""
    if not name:
        return _ROOT
    if is_binary(module):
        return "it is binary already"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "an embedding is looked up and multiplies nothing"
    if name in entangled:
        return entangled[name]
    if binary_class(module) is not None:
        return None
    if hasattr(module, "parametrizations"):
        return "its weight is parametrized; torch.nn.utils.parametrize.remove_parametrizations(...) frees it"
    if "weight" not in module._parameters and hasattr(module, "weight") and not computes_weight(module):
        return "its weight is no parameter, and computed by a hook that is not torch's"
    if isinstance(module, nn.MultiheadAttention):
        return why_not_explicit(module) or "the model reads the weights of its projections itself"
    if type(module).__module__.startswith("torch.nn."):
        return f"there is no binary {type(module).__name__}"
    return f"{type(module).__module__}.{type(module).__qualname__} has a forward of its own"
