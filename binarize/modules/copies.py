"""Copies of a model: with weights of its own, or without data, its parameters on the meta device."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from binarize.errors import REFUSALS
from binarize.modules.hooks import HOOK_TABLES, part_of_model
from binarize.modules.places import rebind

__all__ = ["computed_tensors", "copy_model", "meta_like", "shadow", "spread_sizes", "without_data"]


_SIZED: dict[int, tuple[type[nn.Module], ...]] = {
    1: (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d),
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d),
    3: (nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d),
}
_SIZES = ("kernel_size", "stride", "padding", "dilation", "output_padding")
# What a module holds of tensors, modules and hooks; these are copied.
_TABLES = frozenset(vars(nn.Module()))


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
    copied = _deepcopy(module, memo)
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


def copy_model(module: nn.Module, shared: Iterable[object] = ()) -> nn.Module:
    """A copy that shares no storage and no module with the original; hooks, flags, dtypes and devices carry over.

    What is in `shared` is not copied: with `module.parameters()` the copy has state of its own, and the same weights.

    A hook is copied like everything else, so that it speaks to the copy where it holds a part of the model. One that
    cannot be copied, since it holds an open file or an output of the model, is shared.
    """
    memo: dict[int, Any] = {id(hook): hook for hook in _uncopyable_hooks(module)}
    memo.update(computed_tensors(module))
    memo.update({id(one): one for one in shared})
    return _deepcopy(module, memo)


def _deepcopy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy. Attributes that cannot be copied are shared, but for dictionaries, whose items are copied.

    Dictionaries with attributes for keys (`args.hidden`) often answer any name that they are asked for with a KeyError.
    """
    copies = dict(memo)
    try:
        copied = copy.deepcopy(module, copies)
    except REFUSALS as error:
        more = _uncopyable(module, memo)
        if not more:
            raise error
        copies = {**memo, **more}
        copied = copy.deepcopy(module, copies)
    # Functions are never copied; what they hold of the model would be that of the original.
    rebind(copied, copies)
    spread_sizes(copied)
    return copied


def spread_sizes(module: nn.Module) -> None:
    """Let layers name a size for each axis where they name one for all (`nn.Conv2d(8, 8, 3, stride=[2])`)."""
    for part in module.modules():
        axes = next((n for n, kinds in _SIZED.items() if isinstance(part, kinds)), 0)
        for name in _SIZES if axes else ():
            size = vars(part).get(name)
            if not isinstance(size, (list, tuple)) or (len(size) >= axes and isinstance(size, tuple)):
                continue
            each = tuple(size) * (axes if len(size) == 1 else 1)
            setattr(part, name, each)
            if name == "padding" and "_reversed_padding_repeated_twice" in vars(part):
                sides = [side for side in reversed(each) for _ in range(2)]
                part.__dict__["_reversed_padding_repeated_twice"] = sides


def _uncopyable(module: nn.Module, memo: Mapping[int, Any]) -> dict[int, Any]:
    """id of an attribute that cannot be copied, beside modules and tensors -> what takes its place in a copy."""
    parts: dict[int, Any] = {id(part): part for part in module.modules()}
    found: dict[int, Any] = {}
    for part in module.modules():
        for name, value in vars(part).items():
            if name in _TABLES or isinstance(value, Tensor):
                continue
            try:
                copy.deepcopy(value, {**memo, **parts})
            except REFUSALS:
                found[id(value)] = _copied_dict(value) if isinstance(value, dict) else value
    return found


def _copied_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    copied: dict[Any, Any] = dict.__new__(type(value))
    dict.update(copied, {key: copy.deepcopy(item) for key, item in dict.items(value)})
    return copied


def _uncopyable_hooks(module: nn.Module) -> list[object]:
    parts = {id(part): part for part in module.modules()}
    found: list[object] = []
    for part in module.modules():
        for table in HOOK_TABLES:
            for hook in getattr(part, table).values():
                try:
                    # Modules stand for themselves: only what the hook holds besides is copied here.
                    copy.deepcopy(hook, dict(parts))
                except (TypeError, RuntimeError, pickle.PickleError):
                    found.append(hook)
    return found


def without_data(module: nn.Module, *, keep_unsaved: bool = False) -> nn.Module:
    """A copy on the meta device; the parameters are never held twice.

    `keep_unsaved` copies the non-persistent buffers with their data.
    """
    stand_ins: dict[int, object] = dict(computed_tensors(module))
    unsaved = {id(buffer) for buffer in _unsaved(module)} if keep_unsaved else set()
    for parameter in module.parameters():
        empty = torch.empty_like(parameter, device="meta")
        stand_ins[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
    for buffer in module.buffers():
        if id(buffer) not in unsaved:
            stand_ins[id(buffer)] = torch.empty_like(buffer, device="meta")
    return _deepcopy(module, stand_ins)


def _unsaved(module: nn.Module) -> list[Tensor]:
    return [
        buffer
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None and name in part._non_persistent_buffers_set
    ]
