"""A graph from a file is run once on shapes alone, before it is run on numbers: what would it take of memory?

A few bytes can ask for any amount of it. What the steps of a graph give, all of them together, is bounded by a multiple
of what the file and its recorded input hold.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch._subclasses.fake_tensor
import torch.fx
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from binarize.errors import BinarizeError
from binarize.packed.graph.bounds import TooLarge, check_plain

__all__ = ["FOREIGN", "check_memory", "check_recorded"]

# What torch and Python raise where an operator does not take its arguments.
FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
# All results of one forward pass: of the bytes of the file and the input, and beside that.
_TIMES, _BESIDE = 1024, 1 << 30
# What a step gives that was not run.
_UNKNOWN = object()


class _Counting(FakeTensorMode):
    """Computes shapes, and counts the bytes that would be written."""

    def __init__(self, most: int) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.most, self.bytes = most, 0

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs or {})
        if not getattr(func, "is_view", False):
            self.bytes += sum(
                leaf.numel() * leaf.itemsize
                for leaf in pytree.tree_leaves(result)
                if isinstance(leaf, Tensor) and isinstance(leaf.numel(), int)
            )
        if func is torch.ops.aten.convolution.default:
            self.bytes += _padded_bytes(args[0], args[4])
        if self.bytes > self.most:
            raise TooLarge(
                f"graph: {func} brings its results to {self.bytes:,} bytes on its input; at most "
                f"{self.most:,} are expected of such a file"
            )
        return result


def _padded_bytes(x: Tensor, padding: Sequence[int]) -> int:
    """Of the image with its padding, which torch makes inside: a long step gives a small result of a large one."""
    sides = (size + 2 * pad for size, pad in zip(x.shape[2:], padding))
    return x.itemsize * math.prod((*x.shape[:2], *sides))


class _Rehearsal(torch.fx.Interpreter):
    """Runs a graph step by step. What a step gives that cannot be run is unknown, as is what needs it."""

    def __init__(self, model: GraphModule) -> None:
        super().__init__(model)
        self.extra_traceback = False
        self.complete = True

    def run_node(self, n: Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.op == "output" or any(leaf is _UNKNOWN for leaf in pytree.tree_leaves([args, kwargs])):
            return _UNKNOWN
        try:
            if n.op in ("call_function", "call_method"):
                check_plain(n.target, args, kwargs)
            return super().run_node(n)
        except TooLarge:
            raise
        except (BinarizeError, *FOREIGN):
            self.complete = False
            return _UNKNOWN


def check_memory(model: GraphModule, inputs: Sequence[Any], held: int) -> bool:
    """Run a model of a file without numbers, on inputs like these; `held` is what the file holds, in bytes.

    Gives whether all of it was run: a step that needs numbers, or another input, cannot be.

    Raises: TooLarge, where its results would take more than `1024 x (file + input) + 1 GiB` bytes.
    """
    given = sum(one.nbytes for one in inputs if isinstance(one, Tensor))
    log = logging.getLogger(torch._subclasses.fake_tensor.__name__)
    with torch.no_grad(), _silent(log), _Counting(_TIMES * (held + given) + _BESIDE):
        rehearsal = _Rehearsal(model)
        rehearsal.run(
            *(torch.empty(one.shape, dtype=one.dtype) if isinstance(one, Tensor) else one for one in inputs),
            enable_io_processing=False,
        )
    return rehearsal.complete


def check_recorded(model: GraphModule, shapes: Sequence[Sequence[int]], held: int) -> bool:
    """The same on inputs of recorded shapes. The file does not say of which type they are: two are tried.

    Raises: TooLarge, as above.
    """
    floats = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return any(
        check_memory(model, [torch.empty(tuple(shape), dtype=dtype, device="meta") for shape in shapes], held)
        for dtype in (floats, torch.int64)
    )


@contextmanager
def _silent(log: logging.Logger) -> Iterator[None]:
    """torch writes down, with a traceback, each step that cannot be run on shapes."""
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
