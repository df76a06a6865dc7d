"""The arguments of the C function: each input and output of the model with its name, type and shape."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.errors import UsageError
from binarize.packed.freeze import Example

__all__ = ["Port", "arguments_of_c", "one_sample", "results_of"]

# Of torch, as the C function takes it.
_TYPES = {
    torch.float32: "float",
    torch.int64: "int32_t",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    torch.bool: "uint8_t",
}


@dataclass(frozen=True)
class Port:
    """A pointer that the C function takes."""

    name: str
    ctype: str
    shape: tuple[int, ...]
    # Where it stands among what the model takes or gives, as the user knows it; nothing where it is alone.
    path: str = ""

    @property
    def size(self) -> int:
        """Numbers behind the pointer."""
        return int(torch.Size(self.shape).numel())


def one_sample(example: Example) -> Example:
    """The arguments with a batch of 1, each tensor on its own memory. Raises: UsageError, where C cannot take them."""
    tensors = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor)]
    if not tensors:
        raise UsageError("export c: the model takes no tensor")
    for tensor in tensors:
        if tensor.dtype not in _TYPES:
            raise UsageError(
                f"export c: an input is {tensor.dtype}; expected float32 or whole numbers: convert the model to float32 "
                "first (model.float())"
            )
    rows = {len(tensor) for tensor in tensors if tensor.dim()}

    def first(tensor: Tensor) -> Tensor:
        batch = tensor.dim() > 0 and len(rows) == 1 and (tensor.dim() > 1 or len(tensors) > 1)
        return (tensor[:1] if batch else tensor).detach().cpu().contiguous().clone()

    sample: Example = pytree.tree_map_only(Tensor, first, example)
    return sample


def arguments_of_c(model: nn.Module, sample: Example) -> list[Port]:
    """A port for each tensor of the arguments, in their order."""
    args, keywords = sample
    named = dict(inspect.signature(model.forward).bind(*args, **keywords).arguments)
    paths = {id(leaf): path for path, leaf in _leaves(named)}
    tensors = [leaf for leaf in pytree.tree_leaves((args, dict(keywords))) if isinstance(leaf, Tensor)]
    alone = len(tensors) == 1
    return [
        Port(
            "input" if alone else f"input_{_word(paths[id(x)])}",
            _TYPES[x.dtype],
            tuple(x.shape),
            paths[id(x)],
        )
        for x in tensors
    ]


def results_of(
    structure: object, is_result: Callable[[object], bool]
) -> tuple[list[tuple[str, str, Any]], list[tuple[str, Any]]]:
    """([(name of the pointer, path, result)], [(path, what never changes)]) of what a model yields."""
    found = list(_leaves(structure))
    results = [(path, leaf) for path, leaf in found if is_result(leaf)]
    fixed = [(path, leaf) for path, leaf in found if not is_result(leaf) and leaf is not None]
    named, taken = [], set[str]()
    for path, leaf in results:
        name = wanted = f"output_{_word(path)}" if path else "output"
        n = 2
        while name in taken:
            name, n = f"{wanted}_{n}", n + 1
        taken.add(name)
        named.append((name, path, leaf))
    return named, fixed


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, Any]]:
    items: Any = None
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    if items is None:
        yield path, value
        return
    for key, item in items:
        yield from _leaves(item, f"{path}.{key}" if path else str(key))


def _word(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_") or "x"
