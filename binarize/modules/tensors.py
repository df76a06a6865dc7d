"""The tensors of a model: each once, which are tied, and their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "is_dense",
    "is_permuted",
    "set_as_saved",
    "tensor_digest",
    "tensors_of",
    "tied_tensors",
    "unique_tensors",
]


def tied_tensors(module: nn.Module) -> list[list[str]]:
    """The groups of names under which one tensor appears in the state dict more than once."""
    groups: dict[int, list[str]] = {}
    for name, tensor in _entries(module):
        groups.setdefault(id(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _entries(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]


def unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with tied tensors once and everything contiguous."""
    tied = {name for group in tied_tensors(model) for name in group[1:]}
    unique: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in tensors_of(model).items():
        if name in tied:
            continue
        value = value.detach().contiguous()
        # Views of one tensor are written one by one.
        storage = value.untyped_storage().data_ptr()
        unique[name] = value.clone() if storage in storages else value
        storages.add(storage)
    return unique


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without what is no tensor (extra state of modules)."""
    state = model.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether these strides fill the memory in some order of the axes: without gaps, and no element is shown twice."""
    expected = 1
    for stride, size in sorted(zip(strides, shape)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return len(shape) == len(strides)


def is_permuted(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a tensor fills its memory in another order than that of its axes."""
    return is_dense(shape, strides) and tuple(strides) != torch.empty(tuple(shape), device="meta").stride()


def is_reordered(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """The same, whatever the strides of axes of length 1 are."""
    longer = [stride for stride, size in zip(strides, shape) if size > 1]
    return 0 not in shape and is_dense(shape, strides) and longer != sorted(longer, reverse=True)


def set_as_saved(value: Tensor, saved: Tensor, strides: Sequence[int]) -> None:
    """Give a tensor the numbers of a saved one, its type, and its order in memory: last digits depend on it."""
    if value.dtype != saved.dtype or value.stride() != tuple(strides):
        value.data = torch.empty_strided(saved.shape, strides, dtype=saved.dtype, device=value.device)
    value.copy_(saved)


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    """The tensor's memory, not copied: a numpy array, which is a buffer."""
    return tensor.reshape(-1).view(torch.uint8).numpy()
