"""The product of a binary input and a binary weight, keeping for the backward pass only what they were made of.

Plain autograd would keep the two-valued tensors beside the real-valued ones: for a ResNet-18 a second copy of
every weight and of every activation. They are cheap to make, so the backward pass makes them again:

    forward   a = A(x), (b, scale) = B(w), y = conv(a, b)     keeps x, w and the binarizers' parameters;
                                                              on bits where `packed_product` can
    backward  a and b again; (da, db) from the convolution's own backward, for a 1x1 convolution by matrix
              products; dx and dw through A and B

A linear weight of more than `SLICE` elements is never two-valued as a whole: its rows are taken in slices,
both ways.

Results and gradients are those of plain autograd, bit for bit where a weight is neither sliced nor 1x1. Plain
autograd it is where a part is not `Pure` or has hooks, where the graph is traced or compiled, and where no
gradient is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from binarize.binarizers.ienet import OutputMultiSign
from binarize.binarizers.sign import FilterLevels, Levels, Pure, WeightBinarizer
from binarize.errors import UsageError
from binarize.kernels import elementwise
from binarize.layers.product_on_bits import Multiplies, packed_product

__all__ = ["SLICE", "binary_product"]

# Elements of a linear weight that are two-valued at a time: 16 MiB of float32.
SLICE = 1 << 22


def binary_product(layer: Multiplies, x: Tensor, size: list[int] | None) -> tuple[Tensor, Tensor | None]:
    """(product of the layer's binary input and weight, the weight's scale or None).

    Shapes: x is the layer's input, (N, C, ...) or (..., C); the product is its output; the scale (O, 1, ...) or ().
    `size` is the output size that a transposed convolution was asked for.
    """
    weight = layer.real_weight()
    if isinstance(layer.input_binarizer, OutputMultiSign):
        return _planes_apart(layer, layer.input_binarizer, x, weight, size)
    if _can_recompute(layer, x, weight):
        y, scale = _Recomputed.apply(layer, size, x, weight, *_parameters(layer))
        return y, scale
    if not torch.is_grad_enabled() and _is_plain(layer):
        packed = packed_product(layer, x, weight, exact=True)
        if packed is not None:
            return packed[0], layer.scale_of(packed[1][1])
    a = layer.operand(x)
    if torch.is_grad_enabled():
        values, scale = layer.binarized_weight(weight)
        return layer.multiply(a, values, size), scale
    return _sliced_product(layer, a, weight, size)


def _planes_apart(
    layer: Multiplies, binarizer: OutputMultiSign, x: Tensor, weight: Tensor, size: list[int] | None
) -> tuple[Tensor, Tensor | None]:
    """The products of the planes, each times its factor of each output channel, and the weight's scale."""
    values, scale = layer.binarized_weight(weight)
    products = []
    for k, factor in enumerate(binarizer.output_factors()):
        with binarizer.only(k):
            a = layer.operand(x)
        per_output = layer.scale_of(factor)
        assert per_output is not None
        y = layer.multiply(a, values, size)
        products.append(y * per_output.to(y.dtype))
    return torch.stack(products).sum(0), scale


def _parameters(layer: Multiplies) -> list[nn.Parameter]:
    # Module.parameters looks for doubles, which takes as long as a small product.
    found = [p for part in _parts(layer) for m in _modules(part) for p in m._parameters.values()]
    return [p for p in found if p is not None]


def _modules(part: nn.Module) -> Iterable[nn.Module]:
    return part.modules() if part._modules else (part,)


def _parts(layer: Multiplies) -> list[nn.Module]:
    parts = (layer.threshold, layer.input_binarizer, layer.weight_binarizer)
    return [part for part in parts if part is not None]


def _can_recompute(layer: Multiplies, x: Tensor, weight: Tensor) -> bool:
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if type(x) is not Tensor or type(weight) is not nn.Parameter or not layer.is_batch(x):
        return False
    return _is_plain(layer)


def _is_plain(layer: Multiplies) -> bool:
    """Whether nothing tells when its parts run, and how often."""
    if not isinstance(layer.weight_binarizer, WeightBinarizer):
        return False
    return all(isinstance(part, Pure) and not _has_hooks(part) for part in _parts(layer))


def _has_hooks(part: nn.Module) -> bool:
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in _modules(part)
    )


def _slices(layer: Multiplies, weight: Tensor) -> list[slice]:
    """Rows of the weight to take at a time; all of them unless the weight is large and linear."""
    binarizer = layer.weight_binarizer
    independent = isinstance(binarizer, WeightBinarizer) and binarizer.per_filter
    if weight.dim() != 2 or weight.numel() <= SLICE or not independent:
        return [slice(None)]
    rows = max(SLICE // weight.shape[1], 1)
    return [slice(start, start + rows) for start in range(0, weight.shape[0], rows)]


def _sliced_product(
    layer: Multiplies, a: Tensor, weight: Tensor, size: list[int] | None
) -> tuple[Tensor, Tensor | None]:
    """The product and the scale, without gradients."""
    outputs, scales = [], []
    for rows in _slices(layer, weight):
        values, scale = layer.binarized_weight(weight[rows])
        outputs.append(layer.multiply(a, values, size))
        if scale is not None:
            scales.append(scale)
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
    if len(scales) < 2:
        return y, scales[0] if scales else None
    return y, torch.cat(scales)


def _rows_of(levels: FilterLevels | None, rows: slice) -> FilterLevels | None:
    if levels is None or rows == slice(None):
        return levels
    all_rows = (levels[0].threshold, levels[0].radius, levels[0].centre, levels[1])
    *some, scale = (None if numbers is None else numbers[rows] for numbers in all_rows)
    return Levels(*some), scale


class _Recomputed(torch.autograd.Function):
    """See the top of the file. The binarizers' parameters are arguments so that gradients can reach them."""

    @staticmethod
    def forward(
        ctx: Any, layer: Multiplies, size: list[int] | None, x: Tensor, weight: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        ctx.layer, ctx.size, ctx.parameters = layer, size, _parameters(layer)
        ctx.save_for_backward(x, weight, *parameters)
        packed = packed_product(layer, x, weight, exact=False)
        ctx.levels = None if packed is None else packed[1]
        if packed is not None:
            y, scale = packed[0], layer.scale_of(packed[1][1])
        else:
            y, scale = _sliced_product(layer, layer.operand(x), weight, size)
        if scale is not None and not layer.weight_binarizer.trains_scale:
            ctx.mark_non_differentiable(scale)
        return y, scale

    @staticmethod
    def backward(ctx: Any, gy: Tensor, gscale: Tensor | None) -> tuple[Tensor | None, ...]:
        layer: Multiplies = ctx.layer
        x, weight, *_ = ctx.saved_tensors
        if torch.is_grad_enabled():  # asked for with create_graph=True
            return None, None, *_differentiable(ctx, x, weight, gy, gscale)
        _, _, need_x, need_w, *_ = ctx.needs_input_grad
        parameters = _own_parameters(ctx)
        sums: dict[Tensor, Tensor] = {}
        with torch.enable_grad():
            x = x.detach().requires_grad_(need_x)
            a = layer.operand(x)
        ga: Tensor | None = None
        slices = _slices(layer, weight)
        # The gradient of a sliced weight is computed where it stays.
        whole = torch.empty_like(weight) if need_w and len(slices) > 1 else None
        for rows in slices:
            with torch.enable_grad():
                part = weight.detach()[rows].requires_grad_(need_w)
                values, scale = layer.binarized_weight(part, _rows_of(ctx.levels, rows))
            needs = (a.requires_grad, values.requires_grad)
            place = None if whole is None or whole.dtype != gy.dtype else whole[rows]
            ga, gvalues = layer.multiply_backward(
                gy[..., rows], a.detach(), values.detach(), needs, ctx.size, (ga, place)
            )
            roots = {values: gvalues}
            if scale is not None and gscale is not None:
                roots[scale] = gscale[rows]
            if len(slices) == 1:
                # Asking for all gradients at once takes half as long for a small product.
                _add_gradients(sums, {**roots, a: ga}, [x, part, *parameters])
                return (None, None, sums.get(x), sums.get(part), *(sums.get(p) for p in parameters))
            _add_gradients(sums, roots, [part, *parameters])
            if whole is not None:
                dw = sums.pop(part)
                if place is None or dw.data_ptr() != place.data_ptr():
                    whole[rows] = dw
        _add_gradients(sums, {a: ga}, [x, *parameters])
        return (None, None, sums.get(x), whole, *(sums.get(p) for p in parameters))


def _own_parameters(ctx: Any) -> list[nn.Parameter]:
    """The layer's own objects: a saved parameter may come back as a copy, which no gradient is known for."""
    parameters = _parameters(ctx.layer)
    if any(now is not then for now, then in zip(parameters, ctx.parameters, strict=True)):
        raise UsageError(
            f"{type(ctx.layer).__name__}: its parameters were exchanged between the forward and the backward pass; "
            "call backward() first"
        )
    return parameters


def _differentiable(
    ctx: Any, x: Tensor, weight: Tensor, gy: Tensor, gscale: Tensor | None
) -> list[Tensor | None]:
    """Gradients of x, the weight and the parameters that have gradients themselves, by torch's own operators."""
    inputs: list[Tensor] = [x, weight, *_own_parameters(ctx)]
    values, scale = ctx.layer.binarized_weight(weight)
    results = [(ctx.layer.multiply(ctx.layer.operand(x), values, ctx.size), gy), (scale, gscale)]
    known = [(y, g) for y, g in results if y is not None and g is not None and y.requires_grad]
    wanted = [one for one in inputs if one.requires_grad]
    roots, gradients = zip(*known)
    found = torch.autograd.grad(roots, wanted, gradients, create_graph=True, allow_unused=True)
    by_input = dict(zip(map(id, wanted), found))
    return [by_input.get(id(one)) for one in inputs]


def _add_gradients(
    sums: dict[Tensor, Tensor], roots: dict[Tensor, Tensor | None], inputs: list[Tensor]
) -> None:
    """Add to `sums` the gradients of the inputs, given those of the roots, which may be written over."""
    known = {root: g.to(root.dtype) for root, g in roots.items() if root.requires_grad and g is not None}
    inputs = [one for one in inputs if one.requires_grad]
    if not known or not inputs:
        return
    # What one Function alone reads is its to write over.
    spare = [g for root, g in known.items() if isinstance(root.grad_fn, BackwardCFunction)]
    with elementwise.overwriting(spare):
        found = torch.autograd.grad(list(known), inputs, list(known.values()), allow_unused=True)
    for one, g in zip(inputs, found):
        if g is not None:
            sums[one] = sums[one] + g if one in sums else g
