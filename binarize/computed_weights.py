"""Weights that are no parameters: what a layer makes of others in each forward pass.

    torch.nn.utils.parametrize      weight is a property of the layer's class (parametrizations.weight_norm, one's own)
    hooks of torch.nn.utils         weight is set by a hook in front of the forward pass (weight_norm, spectral_norm, prune)

The parameters behind it stay those that are trained, and what is made of them is what a binarizer sees.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = [
    "class_before",
    "class_without",
    "computed_weight",
    "computes_weight",
    "latent_parameters",
    "with_property",
]

Kind = TypeVar("Kind", bound=nn.Module)
# Class -> the same with a property for its weight.
_made: dict[type[nn.Module], type[nn.Module]] = {}


def class_before(layer: nn.Module) -> type[nn.Module]:
    """The class that a layer had before torch gave it one with properties for its parametrizations."""
    return cast(type[nn.Module], parametrize.type_before_parametrizations(layer))


def computes_weight(layer: nn.Module) -> bool:
    """Whether the layer's weight is made of other parameters in a way that is known here."""
    return parametrize.is_parametrized(layer, "weight") or _hook(layer) is not None


def computed_weight(layer: nn.Module) -> Tensor | None:
    """The weight as it is made now; None where it is the layer's own parameter. Shapes: the layer's own, (O, ...)."""
    if "weight" in layer._parameters:
        return None
    parametrizations: Any = layer._modules.get("parametrizations")
    if parametrizations is not None and "weight" in parametrizations:
        return cast(Tensor, parametrizations["weight"]())
    hook = _hook(layer)
    if isinstance(hook, BasePruningMethod):
        return hook.apply_mask(layer)
    if isinstance(hook, SpectralNorm):
        # The hook has done this pass's power iterations already.
        return hook.compute_weight(layer, do_power_iteration=False)
    return None if hook is None else cast(Tensor, hook.compute_weight(layer))


def latent_parameters(layer: nn.Module) -> list[nn.Parameter]:
    """What is trained for the layer's weight: the weight itself, or the parameters that it is made of."""
    weight = layer._parameters.get("weight")
    if weight is not None:
        return [weight]
    if parametrize.is_parametrized(layer, "weight"):
        return list(cast(Any, layer).parametrizations["weight"].parameters())
    return [one for name, one in layer._parameters.items() if one is not None and name.startswith("weight_")]


def _hook(layer: nn.Module) -> BasePruningMethod | SpectralNorm | WeightNorm | None:
    """The hook that sets the layer's weight, if there is one and no other."""
    found = []
    for hook in layer._forward_pre_hooks.values():
        named = hook._tensor_name if isinstance(hook, BasePruningMethod) else getattr(hook, "name", None)
        if isinstance(hook, (BasePruningMethod, SpectralNorm, WeightNorm)) and named == "weight":
            found.append(hook)
    return found[0] if len(found) == 1 else None


def class_without(layer: nn.Module) -> type[nn.Module]:
    """The class that `with_property` made a layer's class of, else the layer's class."""
    kind = type(layer)
    return kind.__mro__[1] if isinstance(kind.__dict__.get("weight"), property) else kind


def with_property(cls: type[Kind]) -> type[Kind]:
    """The class with a weight that its parametrizations make, as torch gives float layers; always the same one."""
    if cls in _made:
        return cast("type[Kind]", _made[cls])

    def weight(layer: nn.Module) -> Tensor:
        made = computed_weight(layer)
        assert made is not None
        return made

    _made[cls] = type(cls.__name__, (cls,), {"weight": property(weight), "__module__": cls.__module__})
    return cast("type[Kind]", _made[cls])
