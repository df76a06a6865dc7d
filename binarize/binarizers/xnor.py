"""XNOR-Net: signs scaled by the mean magnitude of a filter, and a scale per output position from the inputs.

Rastegari, Ordonez, Redmon, Farhadi, XNOR-Net, ECCV 2016, https://arxiv.org/abs/1603.05279
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.binarizers.bnn import SteSign
from binarize.binarizers.sign import Estimator, WeightBinarizer, sign
from binarize.binarizers.statistics import filter_size, mean_abs
from binarize.errors import UsageError
from binarize.kernels import elementwise
from binarize.kernels.tiles import index_blocks

__all__ = ["MappedSign", "ScaledSign", "UnscaledSign"]


class UnscaledSign(torch.autograd.Function):
    """sign(w), to be multiplied by a constant scale, with the gradient dw = g h(w) free of that scale.

    The product hands down v = g scale, so this divides by the scale again.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor, estimator: Estimator) -> Tensor:
        ctx.save_for_backward(w, scale)
        ctx.estimator = estimator
        return sign(w)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None]:
        w, scale = ctx.saved_tensors
        by_filter = scale.dim() > 0 and scale.numel() == w.shape[0] == scale.shape[0]
        rows = elementwise.filter_rows(w) if by_filter else None
        native = elementwise.estimate(w, v, rows, ctx.estimator.formula(), divisor=scale)
        if native is not None:
            return native[0], None, None
        if torch.is_grad_enabled():  # asked for with create_graph=True: nothing is written over
            return ctx.estimator.gradient(w, v / scale), None, None
        dw, scales = torch.empty_like(w), scale.expand_as(w)
        for at in index_blocks(w):
            dw[at] = ctx.estimator.gradient(w[at], v[at] / scales[at])
        return dw, None, None


class _PaperSign(torch.autograd.Function):
    """sign(w), to be multiplied by its mean magnitude, with the gradient dw = g / n + g scale h(w)."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor, estimator: Estimator, n: int) -> Tensor:
        ctx.save_for_backward(w, scale)
        ctx.estimator, ctx.n = estimator, n
        return sign(w)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None, None]:
        w, scale = ctx.saved_tensors
        return ctx.estimator.gradient(w, v) + v / (scale * ctx.n), None, None, None


class ScaledSign(WeightBinarizer):
    """alpha sign(w) with alpha = mean |w| per filter, the best approximation of w by a sign and a factor.

    With h = 1{|w| <= 1}, s = sign(w) and n weights in a filter:
    scale_grad="detached":  dw = g h                              alpha constant and left out, as is usual
    scale_grad="paper":     dw = g (1/n + alpha h)                section 3.1, training
    scale_grad="exact":     dw = g alpha h + s/n sum_i g_i s_i    the derivative through alpha = mean |w|

    centre: subtract the mean over the input channels first, as the authors' code does (not the paper).
    Source: section 3.1, binary-weight networks.
    """

    def __init__(
        self,
        estimator: Estimator | None = None,
        scale_grad: Literal["detached", "paper", "exact"] = "detached",
        centre: bool = False,
        axis: int = 0,
    ) -> None:
        super().__init__()
        self.estimator = SteSign() if estimator is None else estimator
        self.scale_grad = scale_grad
        self.trains_scale = scale_grad == "exact"
        self.centre = centre
        self.axis = axis

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(sign(w), alpha). Shapes: w (O, ...) -> the same, (O, 1, ...)."""
        inputs = 1 - self.axis
        if self.centre and w.shape[inputs] > 1:
            w = w - w.mean(inputs, keepdim=True)
        if self.scale_grad == "exact":
            return self.estimator(w), mean_abs(w, self.axis)
        scale = mean_abs(w.detach(), self.axis)
        if self.scale_grad == "detached":
            values: Tensor = UnscaledSign.apply(w, scale, self.estimator)
        else:
            values = _PaperSign.apply(w, scale, self.estimator, filter_size(w, self.axis))
        return values, scale

    def extra_repr(self) -> str:
        return f"scale_grad={self.scale_grad!r}, centre={self.centre}"


class MappedSign(SteSign):
    """sign(x), and a factor K per output position: the mean of |x| over the window and all channels.

    The layer multiplies its output by K, with the window, stride, padding and dilation of its convolution (a
    linear layer by the mean of |x| over its inputs). K is constant in the backward pass. It costs a float
    convolution of one channel, which is why the authors' code and our rules leave it out.

    Source: section 3.2, XNOR-networks; gradient of the sign as in BNN.
    """

    @torch.no_grad()
    def scale_map(self, x: Tensor, layer: nn.Module) -> Tensor:
        """K for the layer's real-valued input: (N, C, ...) -> (N, 1, ...), or (..., C) -> (..., 1)."""
        if isinstance(layer, nn.Linear):
            return x.abs().mean(-1, keepdim=True)
        if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            raise UsageError(f"xnor.MappedSign: no scale map for {type(layer).__name__}; use bnn.SteSign")
        size = x.abs().mean(1, keepdim=True)
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        size = F.pad(size, layer._reversed_padding_repeated_twice, mode=mode)
        box = size.new_full((1, 1, *layer.kernel_size), 1 / math.prod(layer.kernel_size))
        convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[len(layer.kernel_size) - 1]
        return convolve(size, box, None, layer.stride, 0, layer.dilation)
