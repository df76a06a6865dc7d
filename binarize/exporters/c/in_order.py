"""Float sums in the order of their indices: the same bits on every machine, with any number of threads.

Torch adds up a convolution in whatever order is fastest on the processor, mostly with fused multiply-adds, so the
float layers of a packed model differ in the last bit from one machine to the next. Inside `in_order()`, they are

    convolution, linear   s = 0;  s = s + x * w  over (input channel, ky, kx);  y = s + bias
    batch norm            y = x * a + b,  a = gamma / sqrt(var + eps) and b = beta - mean * a rounded from float64
    mean, average pool    s = 0;  s = s + x  over the axes in memory order;  y = s / count
    norm over rows        mean m, then the mean v of the squares of x - m;  y = (x - m) * (1 / sqrt(v + eps))
    softmax               exp(x - largest) / sum of these
    interpolation         sums of weighted neighbours, along the last axis first
    exp, tanh, erf, ...   `transcendental`

with each product and each sum rounded by itself. Everything else that a packed model does is exact, or one
operation an element, and is left to torch. C computes the same bits: exporters rely on that.

Example:
    with in_order(), torch.no_grad():
        logits = packed(x)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from binarize.capture.tape import operation_name
from binarize.exporters.c.activations import ACTIVATIONS, chosen
from binarize.exporters.c.apart import APART
from binarize.exporters.c.arithmetic import UNARY
from binarize.exporters.c.sums import SUMS

__all__ = ["in_order"]

# Of these the result is no float.
_TRUTH = ("bool", "logical_not", "__invert__")


class in_order(TorchFunctionMode):
    """Float sums run in the order of their indices while this is active; slow, meant for checks."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name, keywords = operation_name(func), kwargs or {}
        if not _is_float(args, keywords):
            return func(*args, **keywords)
        if name in APART:
            with self:
                found = APART[name](*args, **keywords)
            return func(*args, **keywords) if found is NotImplemented else found
        if name in ACTIVATIONS and name not in _TRUTH:
            function, numbers = chosen(name, args, keywords)
            return UNARY[function].torch(args[0] if args else keywords["input"], *numbers)
        ours = SUMS.get(name)
        return (func if ours is None else ours)(*args, **keywords)


def _is_float(args: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    """Whether it computes with floats: sums of whole numbers are exact, in the model and in the kernels' own work."""
    tensors = [x for x in pytree.tree_leaves((args, keywords)) if isinstance(x, Tensor)]
    return bool(tensors) and tensors[0].is_floating_point()
