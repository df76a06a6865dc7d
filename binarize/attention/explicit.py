"""Which attentions can be taken apart, and taking them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from binarize.attention.multihead import Explicit, ExplicitAttention

__all__ = ["explicit_attentions", "explicit_for", "leave_fast_path", "make_explicit", "why_not_explicit"]


def why_not_explicit(attention: nn.Module) -> str | None:
    """Why the projections of an attention cannot be linear layers of their own, None where they can."""
    kind = type(attention)
    if _may_separate(attention) or _has_windows(attention):
        return None
    if kind is not nn.MultiheadAttention:
        return f"{kind.__module__}.{kind.__qualname__} has a forward of its own"
    if attention._parameters.get("in_proj_weight") is not None:
        return None
    # A hook (pruning) leaves a plain tensor under the name.
    computed = "in_proj_weight" not in attention._parameters
    return (
        "its weight is computed by a hook of torch.nn.utils"
        if computed
        else "its queries, keys and values have widths of their own"
    )


def _may_separate(attention: nn.Module) -> bool:
    of_timm = type(attention).__module__.startswith("timm.")
    return of_timm and isinstance(getattr(attention, "qkv_bias_separate", None), bool)


def _has_windows(attention: nn.Module) -> bool:
    kind = type(attention)
    names = ("ShiftedWindowAttention", "ShiftedWindowAttentionV2")
    return kind.__module__ == "torchvision.models.swin_transformer" and kind.__name__ in names


def explicit_attentions(model: nn.Module) -> list[str]:
    """Make every attention of a model explicit that can be, and return their paths. In place."""
    found = dict(model.named_modules())
    paths = [path for path, attention in found.items() if path and why_not_explicit(attention) is None]
    for path in paths:
        make_explicit(found[path])
    return paths


def explicit_for(layer: str, modules: Mapping[str, nn.Module]) -> str | None:
    """Path of the attention that must be explicit for this layer to be replaced, None where none must be.

    `modules` are those of a model whose attentions are explicit.
    """
    path, _, name = layer.rpartition(".")
    attention = modules.get(path)
    if isinstance(attention, Explicit):
        return path if name in ("in_proj", "out_proj", "qkv", "proj") else None
    return path if attention is not None and name == "qkv" and _may_separate(attention) else None


def make_explicit(attention: nn.Module) -> None:
    """Let the projections of an attention be linear layers on the same parameters. In place: the object stays.

    `attention` must be one that `why_not_explicit` has nothing against.
    """
    if _has_windows(attention):
        from binarize.attention.windows import make_explicit_windows  # torchvision is loaded where it is used

        make_explicit_windows(attention)
        return
    if not isinstance(attention, nn.MultiheadAttention):
        cast(Any, attention).qkv_bias_separate = True
        return
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    projection = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    projection.weight = weight
    if bias is not None:
        projection.bias = bias
    attention.__class__ = ExplicitAttention
    for name in ("in_proj_weight", "in_proj_bias"):
        attention.register_parameter(name, None)
    explicit = cast(ExplicitAttention, attention)
    # In the order of use, which is that of the parameters as well.
    last = explicit._modules.pop("out_proj")
    explicit.in_proj = projection.train(attention.training)
    explicit._modules["out_proj"] = last


def leave_fast_path(root: nn.Module, path: str) -> None:
    """Let the modules around a layer call it in evaluation mode too.

    Without gradients, torch's encoder layers compute by a function that reads the weights of the float layers.
    """
    names = path.split(".")
    for length in range(len(names)):
        module = root.get_submodule(".".join(names[:length]))
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
