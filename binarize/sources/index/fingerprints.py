"""The names and shapes of a state dict as a few bytes: two hashes, and a sketch that tells how alike two are.

Counters of BatchNorm are left out, since old files lack them, and so is what is no tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from torch import Tensor

__all__ = ["EMPTY", "Shapes", "body_hash", "likeness", "names_hash", "shapes_of", "sketch"]

Shapes = Mapping[str, tuple[int, ...]]

LEFT_OUT = ("num_batches_tracked", "_extra_state")
# 48 bits: among 2,000 architectures two hashes meet by chance once in 10^8 tables.
HASH_BYTES = 6
# One-permutation hashing (Li, Owen, Zhang, 2012, https://arxiv.org/abs/1208.1259): the least of the 16-bit hashes that
# fall into each of the bins. The share of bins that agree estimates the share of common entries.
BINS, EMPTY = 32, 0xFFFF


def shapes_of(state: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """The names that count, with the shapes of their tensors."""
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if isinstance(value, Tensor) and not name.endswith(LEFT_OUT)
    }


def names_hash(names: Iterable[str]) -> str:
    """Of the names alone, whatever their order."""
    return _hash(sorted(names))


def body_hash(shapes: Shapes, heads: Iterable[str] = ()) -> str:
    """Of names and shapes without the `heads`, the tensors whose shape depends on the number of classes."""
    left_out = set(heads)
    return _hash(sorted(_entry(name, shape) for name, shape in shapes.items() if name not in left_out))


def sketch(shapes: Shapes) -> list[int]:
    """One number a bin, EMPTY where no name and shape falls into it."""
    least = [EMPTY] * BINS
    for name, shape in shapes.items():
        digest = hashlib.blake2b(_entry(name, shape).encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "little")
        place, value = number % BINS, (number // BINS) % EMPTY
        least[place] = min(least[place], value)
    return least


def likeness(mine: list[int], other: list[int]) -> float:
    """About the share of names and shapes that two state dicts have in common, of all that either has."""
    filled = [(a, b) for a, b in zip(mine, other) if (a, b) != (EMPTY, EMPTY)]
    return sum(a == b for a, b in filled) / max(len(filled), 1)


def _entry(name: str, shape: tuple[int, ...]) -> str:
    return f"{name}:{'x'.join(map(str, shape))}"


def _hash(lines: list[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=HASH_BYTES).hexdigest()
