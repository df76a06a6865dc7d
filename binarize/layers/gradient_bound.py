"""Gradients between binary layers kept from growing without bound.

A sign forgets how large its input was, so that the norm behind a binary layer divides by whatever its channels vary, and
the gradient is divided by it too: where images hardly differ behind a deep net, each layer can make it ten times as
large, and after fifty layers it is infinite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from binarize.errors import UsageError

__all__ = ["BOUND", "bound_gradient", "bounded", "refuse_gradient"]

# No gradient of a training that works is as large; loss scaling stays below 1e6.
BOUND = 1e12


def bound_gradient(y: Tensor) -> Tensor:
    """y itself, whose gradient is made smaller as a whole where it holds a number above `BOUND`.

    Compiled and traced graphs are left as they are. Shapes: any -> the same.
    """
    if y.requires_grad and not torch.compiler.is_compiling() and not torch.jit.is_tracing():
        y.register_hook(bounded)
    return y


def bounded(g: Tensor) -> Tensor:
    """g, or a multiple of it whose largest number is `BOUND`; infinities stay, which tell a loss scaler of its own.

    Shapes: any -> the same.
    """
    if not g.numel() or torch.finfo(g.dtype).max < BOUND:
        return g
    if g.device.type == "cpu":
        low, high = torch.aminmax(g.detach())
        largest = max(-float(low), float(high))
        return g * (BOUND / largest) if BOUND < largest < math.inf else g
    size = g.detach().abs().amax()
    # Not asked for as a Python number, which would wait for the device.
    return g * torch.where((size > BOUND) & size.isfinite(), BOUND / size, 1.0)


class _Refused(torch.autograd.Function):
    """y as it is, as a result of x that cannot be differentiated."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        pass

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, Tensor]:
        raise UsageError(
            "a packed, fused or frozen layer has no gradient: it is made for inference\n"
            "  differentiate the trained model, which binarize.load gives, or run this one under torch.no_grad()"
        )


def refuse_gradient(y: Tensor, *inputs: Tensor | None) -> Tensor:
    """y, computed of inputs in a way that has no gradient: whoever asks for one is told so, and gets no part of it.

    Shapes: any -> that of y.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        for x in inputs:
            if x is not None and x.requires_grad:
                refused: Tensor = _Refused.apply(x, y)
                return refused
    return y
