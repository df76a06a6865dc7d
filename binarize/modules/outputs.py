"""What a model gives, as lists, tuples and dicts: torch's pytrees know neither a user's dataclass nor other objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.errors import UsageError

__all__ = ["class_dim", "class_scores", "fields_of", "logits_of", "opened", "tensors_in"]


# Objects inside objects are looked into so often: they may point back at each other.
DEPTH = 4


def opened(output: object, depth: int = DEPTH) -> Any:
    """The same structure, with a dict of its attributes in place of every object that holds tensors.

    The dict is named after the class, so that outputs of different classes stay different.
    """

    def open_leaf(leaf: object) -> Any:
        held = fields_of(leaf)
        if held is None:
            return leaf
        if not depth:
            return type(leaf).__qualname__
        return {type(leaf).__qualname__: {name: opened(value, depth - 1) for name, value in held.items()}}

    return pytree.tree_map(open_leaf, output)


def fields_of(value: object) -> dict[str, Any] | None:
    """The attributes of an object that holds tensors; None for a tensor, a module, and what holds none."""
    if isinstance(value, (Tensor, nn.Module, type, str, bytes)):
        return None
    if isinstance(value, Mapping):  # of a class that torch does not know
        return {str(key): item for key, item in value.items()}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    held = getattr(value, "__dict__", None)
    return dict(held) if isinstance(held, dict) and _holds_tensor(held.values()) else None


def tensors_in(output: object) -> list[Tensor]:
    """Every tensor of an output, in order."""
    return [value for value in pytree.tree_leaves(opened(output)) if isinstance(value, Tensor)]


def class_scores(output: object) -> Tensor | None:
    """The tensor of an output that holds class scores: itself, "logits" or "out" by name, the first of a tuple; or None.

    Shapes: (N, C, ...) or (N, tokens, C).
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Sequence) and not isinstance(output, (str, bytes)):
        return output[0] if output and isinstance(output[0], Tensor) else None
    held = output if isinstance(output, Mapping) else fields_of(output) or {}
    return next((held[name] for name in ("logits", "out") if isinstance(held.get(name), Tensor)), None)


def _holds_tensor(values: Iterable[Any]) -> bool:
    return any(isinstance(leaf, Tensor) for value in values for leaf in pytree.tree_leaves(value))


def class_dim(logits: Tensor) -> int:
    """The axis of the classes: 1, but the last one for (N, tokens, classes)."""
    return -1 if logits.dim() == 3 else min(1, logits.dim() - 1)


def logits_of(output: object) -> Tensor:
    """The tensor of an output that holds class scores: itself, "logits" or "out" of a mapping, the first of a tuple.

    Raises: UsageError for anything else.

    Shapes: -> (N, classes, ...).
    """
    scores = class_scores(output)
    if scores is not None:
        return scores
    raise UsageError(f"the model's output, a {type(output).__name__}, holds no class scores")
