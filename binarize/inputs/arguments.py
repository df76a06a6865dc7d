"""The arguments of one forward call: what is known of them, and made-up ones of that kind.

Made-up numbers are good for shapes and for recognizing a model, useless for calibration. Whole numbers stay what they are
and stay in the range of the example, so that an embedding finds them; what is constant (a mask of ones) stays constant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.errors import UsageError

__all__ = ["Arguments", "Images", "TensorKind", "arguments_of", "call", "parse_arguments"]


# `mask=1,16:bool`: a name, sizes, a type; the first and the last may be left out.
WORDS = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<sizes>\d+(?:[,x]\d+)*)(?::(?P<dtype>\w+))?")
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
}
FLOAT = "float"


@dataclass(frozen=True)
class TensorKind:
    """One tensor: its shape with the batch, its type, and the range of its numbers.

    `dtype` is "float" for the model's own precision. Without a range, floats are normal noise and whole numbers are what
    the model's embeddings hold.
    """

    shape: tuple[int, ...]
    dtype: str = FLOAT
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, tensor: Tensor, precision: torch.dtype) -> TensorKind:
        """The kind of a tensor beside a model of that precision."""
        name = FLOAT if tensor.dtype == precision else str(tensor.dtype).removeprefix("torch.")
        if tensor.is_meta or tensor.is_complex() or not tensor.numel():
            return cls(tuple(tensor.shape), name)
        # bfloat16 and bool know no minimum on every device.
        low, high = (float(end) for end in torch.aminmax(tensor.detach().double()))
        if tensor.is_floating_point() and low != high:
            return cls(tuple(tensor.shape), name)
        return cls(tuple(tensor.shape), name, low, high)

    def make(self, precision: torch.dtype, generator: torch.Generator | None, vocabulary: int) -> Tensor:
        """A tensor of this kind, without noise where there is no generator."""
        dtype = precision if self.dtype == FLOAT else DTYPES[self.dtype]
        if dtype.is_floating_point or dtype.is_complex:
            if self.low is not None:
                return torch.full(self.shape, self.low, dtype=dtype)
            if generator is None:
                return torch.zeros(self.shape, dtype=dtype)
            # In float32 first, so that a model in half precision sees the same numbers rounded.
            wide = torch.float32 if dtype.is_floating_point else dtype
            return torch.randn(self.shape, generator=generator, dtype=wide).to(dtype)
        low = int(self.low or 0)
        high = int(self.high) if self.high is not None else (1 if dtype == torch.bool else vocabulary - 1)
        if generator is None:
            return torch.full(self.shape, low, dtype=dtype)
        return torch.randint(low, max(high, low) + 1, self.shape, generator=generator).to(dtype)


@dataclass(frozen=True)
class Arguments:
    """Positional and keyword arguments, nested as they were given, with a TensorKind in place of every tensor."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, args: Sequence[Any], kwargs: Mapping[str, Any], precision: torch.dtype) -> Arguments | None:
        """What is known of the arguments of a call; None where an object among them can be written nowhere."""
        leaves = pytree.tree_leaves((tuple(args), dict(kwargs)))
        plain = (Tensor, bool, int, float, str, type(None))
        found = (
            None
            if not all(isinstance(leaf, plain) for leaf in leaves)
            else pytree.tree_map_only(
                Tensor, lambda t: TensorKind.of(t, precision), (tuple(args), dict(kwargs))
            )
        )
        if found is None or not _storable(found):
            return None
        return cls(*found)

    @property
    def kinds(self) -> list[TensorKind]:
        """All tensors, in order."""
        return [
            leaf
            for leaf in pytree.tree_leaves((self.args, dict(self.kwargs)))
            if isinstance(leaf, TensorKind)
        ]

    def make(
        self, module: nn.Module, *, seed: int = 0, batch: int | None = None, noise: bool = True
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments in the module's precision on its device, the same for the same seed.

        `batch` takes the place of the first size of every tensor that has the first one's.
        """
        first = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
        generator = torch.Generator().manual_seed(seed) if noise else None
        vocabulary = _vocabulary(module)
        size = next((kind.shape[0] for kind in self.kinds if kind.shape), None)

        def made(kind: TensorKind) -> Tensor:
            shape = kind.shape
            if batch is not None and shape and shape[0] == size:
                shape = (batch, *shape[1:])
            kind = TensorKind(shape, kind.dtype, kind.low, kind.high)
            if first.device.type == "meta":
                return torch.empty_like(kind.make(first.dtype, None, vocabulary), device="meta")
            return kind.make(first.dtype, generator, vocabulary).to(first.device)

        args, kwargs = pytree.tree_map_only(TensorKind, made, (self.args, dict(self.kwargs)))
        return args, kwargs

    def to_json(self) -> dict[str, Any]:
        """The arguments as JSON values."""
        return {
            "args": [_to_json(item) for item in self.args],
            "kwargs": {k: _to_json(v) for k, v in self.kwargs.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Arguments:
        """The arguments that `to_json` wrote."""
        return cls(
            tuple(_from_json(item) for item in data["args"]),
            {k: _from_json(v) for k, v in data["kwargs"].items()},
        )


def parse_arguments(texts: Sequence[str]) -> Arguments:
    """`["1,3,224,224", "mask=1,16:bool"]` as arguments: positional in their order, those with a name by keyword.

    Raises: UsageError for anything else.
    """
    args: list[TensorKind] = []
    kwargs: dict[str, TensorKind] = {}
    for text in texts:
        match = WORDS.fullmatch(re.sub(r"\s", "", text))
        sizes = tuple(int(size) for size in re.split("[,x]", match["sizes"])) if match else ()
        if match is None or 0 in sizes:
            raise UsageError(
                f'--input-shape "{text}": expected positive numbers such as 1,3,224,224; a name and a type may be added, '
                "as in ids=1,16:int64"
            )
        dtype = match["dtype"] or FLOAT
        if dtype != FLOAT and dtype not in DTYPES:
            raise UsageError(
                f'--input-shape "{text}": {dtype} is no type of torch; expected int64, bool, float32 ...'
            )
        kind = TensorKind(sizes, dtype)
        if match["name"]:
            kwargs[match["name"]] = kind
        else:
            args.append(kind)
    return Arguments(tuple(args), kwargs)


def _vocabulary(module: nn.Module) -> int:
    """How many whole numbers every embedding of the model holds; 2 where it has none."""
    sizes = [m.num_embeddings for m in module.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    return min(sizes, default=2)


def _storable(value: Any) -> bool:
    """Whether nothing but lists, tuples and dicts with names is around the leaves (a namedtuple has a class)."""
    if type(value) in (list, tuple):
        return all(_storable(item) for item in value)
    if isinstance(value, dict):
        return type(value) is dict and all(isinstance(k, str) and _storable(v) for k, v in value.items())
    return isinstance(value, (TensorKind, bool, int, float, str, type(None)))


def _to_json(value: object) -> Any:
    if isinstance(value, TensorKind):
        ends = {} if value.low is None else {"low": value.low, "high": value.high}
        return {"tensor": list(value.shape), "dtype": value.dtype, **ends}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [_to_json(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": {key: _to_json(item) for key, item in value.items()}}
    return {"value": value}


def _from_json(data: Mapping[str, Any]) -> Any:
    if "tensor" in data:
        return TensorKind(tuple(data["tensor"]), data["dtype"], data.get("low"), data.get("high"))
    if "dict" in data:
        return {key: _from_json(item) for key, item in data["dict"].items()}
    if "value" in data:
        return data["value"]
    items = [_from_json(item) for item in data.get("tuple", data.get("list", []))]
    return tuple(items) if "tuple" in data else items


# Arguments of one forward call: positional, keyword.
Images = tuple[tuple[Any, ...], Mapping[str, Any]]


def arguments_of(example: object) -> Images:
    """An example as arguments of one forward call: a tensor, a tuple of arguments, a dict of keyword arguments, or both.

    Both is `((x, y), {"mask": mask})`: a tuple of exactly a tuple and a dict. Raises: UsageError, where it is none.
    """
    if isinstance(example, tuple) and len(example) == 2 and isinstance(example[0], tuple):
        args, kwargs = example
        if isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs):
            return args, dict(kwargs)
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, (list, tuple)):
        return tuple(example), {}
    raise UsageError(f"example_input is a {type(example).__name__}; expected a tensor, a tuple or a dict")


def call(model: nn.Module, images: Images) -> Any:
    """Run the model on one batch."""
    args, kwargs = images
    return model(*args, **kwargs)
