"""Where numbers first became infinite or NaN: the layer's name is what one needs to mend it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.layers.layer import BinaryLayer

__all__ = ["broken_gradient", "broken_output", "broken_parameter", "finite_gradients"]


def broken_parameter(model: nn.Module) -> str | None:
    """The first parameter or buffer that is not finite."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return name
    return None


@torch.no_grad()
def broken_output(model: nn.Module, images: object) -> str | None:
    """The first module in execution order whose output is not finite though its input is; the model runs once for that."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: object, kwargs: object, output: object) -> None:
            if not found and _finite((args, kwargs)) and not _finite(output):
                found.append(f"{name} ({type(module).__name__})")

        return hook

    handles = [
        module.register_forward_hook(watch(name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, BinaryLayer) or not any(module.children())
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _finite(tree: object) -> bool:
    return all(
        bool(torch.isfinite(value).all())
        for value in pytree.tree_leaves(tree)
        if isinstance(value, Tensor) and value.is_floating_point()
    )


def finite_gradients(model: nn.Module) -> bool:
    """Whether all gradients are finite; one look at all of them together."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not gradients:
        return True
    norms = torch._foreach_norm(gradients)
    return bool(torch.isfinite(torch.stack([norm.float() for norm in norms])).all())


def broken_gradient(model: nn.Module) -> str | None:
    """The parameter nearest to the output whose gradient is not finite: those before it have it from there."""
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return name
    return None
