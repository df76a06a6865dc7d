"""A copy of a module without its data: same classes, shapes and dtypes, parameters on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["HOOK_TABLES", "computed_tensors", "meta_like", "part_of_model", "shadow", "silenced_hooks"]

HOOK_TABLES = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def shadow(module: nn.Module, *, meta: bool = True) -> nn.Module:
    """A deep copy to run and trace, so that the original's buffers, hooks and flags are never touched.

    With `meta` no parameter or buffer holds data: the copy costs no memory and running it no arithmetic.
    Hooks are left out, since a user's hook must not fire for our runs; those without which the model does not run stay.
    """
    memo: dict[int, Any] = computed_tensors(module)
    if meta:
        for parameter in module.parameters():
            memo[id(parameter)] = nn.Parameter(meta_like(parameter.detach()), parameter.requires_grad)
        for buffer in module.buffers():
            memo[id(buffer)] = meta_like(buffer)
    # Hooks may hold anything (open files, loggers): they must not even be copied.
    for child in module.modules():
        for name in HOOK_TABLES:
            hooks = getattr(child, name)
            kept = {key: hook for key, hook in hooks.items() if part_of_model(hook)}
            memo[id(hooks)] = type(hooks)(kept)
    copied = copy.deepcopy(module, memo)
    for child in copied.modules() if meta else ():
        if _keeps_shape(child):
            # Without data only the shape is asked for, which torch takes dozens of operations to find out.
            child.forward = _itself if getattr(child, "inplace", False) else torch.empty_like
    return copied


def computed_tensors(module: nn.Module) -> dict[int, torch.Tensor]:
    """id of a tensor that the modules hold beside their parameters and that was computed from them -> a copy of it.

    A memo for `copy.deepcopy`, which refuses such a tensor: the weight that the hooks of torch.nn.utils.weight_norm
    and spectral_norm leave in the layer, to be computed anew in the next forward pass.
    """
    held = [value for child in module.modules() for value in vars(child).values()]
    return {id(t): t.detach().clone() for t in held if isinstance(t, torch.Tensor) and t.grad_fn is not None}


def _keeps_shape(module: nn.Module) -> bool:
    """Norms and elementwise activations of the libraries, which yield what they are given, as far as shapes go."""
    if not type(module).__module__.startswith(("torch.nn.", "timm.")) or "forward" in vars(module):
        return False
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return True
    activation = type(module).__module__ == "torch.nn.modules.activation"
    return activation and not isinstance(module, (nn.MultiheadAttention, nn.GLU))


def _itself(x: torch.Tensor) -> torch.Tensor:
    """What an in-place operation yields: the tensor that it was given."""
    return x


def meta_like(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape, strides and dtype on the meta device."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def part_of_model(hook: object) -> bool:
    """Whether the model does not run without a hook, so that it is no user's.

    Those of torch.nn.utils compute weights (weight_norm, spectral_norm); with those of transformers a model hands its
    own inner values on, and marks that it has them (Segformer's decoder reads what its encoder's blocks gave).
    """
    owner = getattr(hook, "__module__", None) or type(hook).__module__
    return owner.startswith(("torch.nn.utils", "transformers.utils.output_capturing"))


@contextmanager
def silenced_hooks(model: nn.Module) -> Iterator[None]:
    """Take the user's hooks out while we run the model, and put them back; those of the model itself stay."""
    removed: list[tuple[Any, Any]] = []
    for module in model.modules():
        for name in HOOK_TABLES:
            table = getattr(module, name)
            mine = {key: hook for key, hook in table.items() if not part_of_model(hook)}
            if mine:
                removed.append((table, dict(table)))
                for key in mine:
                    del table[key]
    try:
        yield
    finally:
        for table, content in removed:
            added = dict(table)
            table.clear()
            table.update({**content, **added})
