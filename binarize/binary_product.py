"""The product of a binary input and a binary weight, which keeps for the backward pass only what they were made of.

Plain autograd would keep the two-valued tensors beside the real-valued ones: for a ResNet-18 that is a second copy of
every weight and of every activation. They are cheap to make again, so the backward pass does that:

    forward   a = A(x), (b, scale) = B(w), y = conv(a, b)        keeps x, w and parameters
    backward  a, b again with gradients; (da, db) by the convolution's own backward; dx, dw through A and B

A linear weight of more than `SLICE` elements is never two-valued as a whole: rows are taken in slices, both ways.

Results and gradients are those of plain autograd, bit for bit where a weight is not sliced. Plain autograd it is where a
part is not `Pure` or has hooks, where the graph is being traced or compiled, and where no gradient is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from binarize.binarizers.sign import Pure, WeightBinarizer

if TYPE_CHECKING:
    from binarize.layers import BinaryLayer

__all__ = ["SLICE", "binary_product"]

# Elements of a linear weight that are two-valued at a time: 16 MiB of float32.
SLICE = 1 << 22


def binary_product(
    layer: BinaryLayer, x: Tensor, bias: Tensor | None, size: list[int] | None
) -> tuple[Tensor, Tensor | None]:
    """(product of the layer's binary input and weight, scale of the weight or None). `x` is the layer's input."""
    weight: Tensor = layer.weight
    if not _can_recompute(layer, x, weight):
        a = layer.binarized_input(x)
        if not torch.is_grad_enabled() and _is_sliced(layer, weight):
            return _sliced_linear(layer, a, weight, bias)
        values, scale = layer.binarized_weight()
        return layer.multiply(a, values, bias, size), scale
    parameters = [p for part in _parts(layer) for p in part.parameters()]
    y, scale = _Recomputed.apply(layer, size, x, weight, bias, *parameters)
    return y, scale


def _parts(layer: BinaryLayer) -> list[nn.Module]:
    parts = (layer.threshold, layer.input_binarizer, layer.weight_binarizer)
    return [part for part in parts if part is not None]


def _can_recompute(layer: BinaryLayer, x: Tensor, weight: Tensor) -> bool:
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if type(x) is not Tensor or type(weight) is not nn.Parameter or (x.dim() != weight.dim() > 2):
        return False
    pure = all(isinstance(part, Pure) and not _has_hooks(part) for part in _parts(layer))
    return pure and isinstance(layer.weight_binarizer, WeightBinarizer)


def _has_hooks(part: nn.Module) -> bool:
    return any(
        bool(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)
        for m in part.modules()
    )


def _is_sliced(layer: BinaryLayer, weight: Tensor) -> bool:
    return weight.dim() == 2 and weight.numel() > SLICE and getattr(layer.weight_binarizer, "per_filter", False)


def _slices(weight: Tensor) -> list[slice]:
    rows = max(SLICE // weight.shape[1], 1)
    return [slice(start, start + rows) for start in range(0, weight.shape[0], rows)]


def _sliced_linear(
    layer: BinaryLayer, a: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The product for a weight taken in slices of rows; `weight` is the layer's, without gradients."""
    outputs, scales = [], []
    for rows in _slices(weight):
        values, scale = layer.binarized_weight(weight[rows])
        outputs.append(layer.multiply(a, values, None if bias is None else bias[rows], None))
        scales.append(scale)
    whole = [scale for scale in scales if scale is not None]
    return torch.cat(outputs, -1), torch.cat(whole) if whole else None


class _Recomputed(torch.autograd.Function):
    """See the top of the file. `parameters` are those of the binarizers, given so that gradients can reach them."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: BinaryLayer,
        size: list[int] | None,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.layer, ctx.size, ctx.bias_shape = layer, size, None if bias is None else list(bias.shape)
        ctx.save_for_backward(x, weight, *parameters)
        a = layer.binarized_input(x)
        if _is_sliced(layer, weight):
            return _sliced_linear(layer, a, weight, bias)
        values, scale = layer.binarized_weight()
        return layer.multiply(a, values, bias, size), scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gy: Tensor, gscale: Tensor | None) -> tuple[Tensor | None, ...]:
        layer: BinaryLayer = ctx.layer
        x, weight, *parameters = ctx.saved_tensors
        needs = ctx.needs_input_grad
        with torch.enable_grad():
            x = x.detach().requires_grad_(needs[2])
            a = layer.binarized_input(x)
        wanted = [p for p, need in zip(parameters, needs[5:]) if need]
        gradients = _Gradients(wanted)
        if _is_sliced(layer, weight):
            ga, dw = _sliced_backward(layer, gy, gscale, a, weight, needs[3], gradients)
        else:
            ga, dw = _whole_backward(ctx, layer, gy, gscale, a, weight, needs[3], gradients)
        ...
