"""Weights of the float model into its binary counterpart: another epoch, another run, another head start."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from binarize.attention.multihead import ExplicitAttention
from binarize.errors import UsageError
from binarize.layers.layer import BinaryLayer
from binarize.modules.float_check import bare
from binarize.sources.prefixes import stripped

__all__ = ["fill_float_model", "float_names", "load_float_state_dict"]


def float_names(model: nn.Module) -> dict[str, str]:
    """Name in the float model -> name in the converted one, where conversion moved a tensor.

    A convolution's bias lies in its new norm: {"features.3.bias": "features.3.norm.bias"}. An attention's projection
    is a layer of its own: {"self_attn.in_proj_weight": "self_attn.in_proj.weight"}.
    """
    moved: dict[str, str] = {}
    own = model.state_dict()
    for path, layer in model.named_modules(remove_duplicate=False):
        if isinstance(layer, BinaryLayer) and layer.bias is None and layer.norm is not None:
            target = f"{path}.norm.bias"
            if target in own:
                moved[f"{path}.bias"] = target
    for path, attention in model.named_modules(remove_duplicate=False):
        if isinstance(attention, ExplicitAttention):
            for leaf in ("weight", "bias"):
                name = f"{path}.in_proj.{leaf}"
                target = moved.pop(name, name)
                if target in own:
                    moved[f"{path}.in_proj_{leaf}"] = target
    return moved


def load_float_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Load a state dict of the float model into a converted model, in place, bit-equal.

    Names may have what DataParallel, torch.compile or an average of weights puts in front of them.

    Weights that a conversion scaled (`binaryconnect_stochastic`) have the float model's size again.

    Returns the names of the converted model that the float one has no value for: thresholds, levels, new norms.

    Raises: UsageError, where a tensor of the state dict has no place or another shape; nothing is loaded then.
    """
    model = bare(model)
    moved = float_names(model)
    own = model.state_dict(keep_vars=True)
    if any(moved.get(name, name) not in own for name in state_dict):
        state_dict, _ = stripped(dict(state_dict))
    targets = {name: moved.get(name, name) for name in state_dict}
    # A layer without a bias of its own leaves its norm's bias alone, so only names that are there are mapped.
    unknown = sorted(name for name, target in targets.items() if target not in own)
    shapes = sorted(
        name
        for name, target in targets.items()
        if target in own and own[target].shape != state_dict[name].shape
    )
    if unknown or shapes:
        raise UsageError(
            f"load_float_state_dict: no place for {unknown[:3]}, another shape for {shapes[:3]}"
            f"{' and more' if len(unknown) > 3 or len(shapes) > 3 else ''}\n"
            "  expected a state dict of the float model that was converted"
        )
    with torch.no_grad():
        for name, target in targets.items():
            own[target].copy_(state_dict[name])
    return sorted(set(own) - set(targets.values()))


@torch.no_grad()
def fill_float_model(float_model: nn.Module, model: nn.Module) -> None:
    """Give the float model that a model was converted from the numbers that the converted one has, in place.

    Its own may be uninitialised memory. What conversion left no counterpart of becomes 1 where it multiplies (a norm's
    weight, a variance) and 0 elsewhere.
    """
    moved, own = float_names(model), model.state_dict()
    for name, tensor in float_model.state_dict(keep_vars=True).items():
        value = own.get(moved.get(name, name))
        if value is not None and value.shape == tensor.shape:
            tensor.copy_(value)
        else:
            tensor.fill_(name.endswith(("weight", "running_var")) and tensor.dim() == 1)
