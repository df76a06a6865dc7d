"""Float convolutions of a packed model: the stem, the 1x1 of a shortcut. One pass, where torch takes four.

    binarize::float_conv    convolution with its norm folded in, ReLU or a table of slopes, max pooling

On images with few channels and for 1x1 the libraries behind torch are far from what the processor can do, and beside
packed layers these steps are what is left to wait for. The kernels add up in one fixed order, torch in its own:
results agree as two float programs do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from binarize.errors import UsageError
from binarize.kernels import native, variants
from binarize.kernels.buffers.arguments import check_tensor
from binarize.kernels.buffers.kept import kept
from binarize.kernels.buffers.memory import NOTHING, aligned, extent
from binarize.kernels.buffers.readable import NCHW, NHWC
from binarize.kernels.geometry import Geometry
from binarize.kernels.reference import piecewise
from binarize.kernels.tracing import is_recorded
from binarize.kernels.variants import Variant
from binarize.layers.gradient_bound import refuse_gradient
from binarize.packed.buffers import check_device, check_there

__all__ = ["FloatConv", "suits"]

# Input channels up to which a larger kernel than 1x1 is worth it.
_FEW = 16
_Pair = tuple[int, int]


class FloatConv(nn.Module):
    """A float convolution with zero padding, then ReLU, then max pooling by (side, stride, padding), if wanted.

    `activation` (4, O) bends each channel as `reference.piecewise` does, in place of ReLU.

    Shapes: (N, C, H, W) -> (N, O, H', W') with channels last in memory.
    """

    weight: Tensor
    bias: Tensor
    activation: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.stride, self.padding = (
            list(_pair(conv.stride)),
            list(_pair([int(side) for side in conv.padding])),
        )
        self.relu, self.pool = False, list[int]()
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().clone()
        self.register_buffer("weight", conv.weight.detach().clone())
        self.register_buffer("bias", bias)
        self.register_buffer("activation", None)

    def forward(self, x: Tensor) -> Tensor:
        if not is_recorded():
            check_there(self, ("weight", "bias"), ("activation",))
            check_device(self, x)
        y: Tensor = torch.ops.binarize.float_conv(
            x, self.weight, self.bias, self.stride, self.padding, self.relu, self.pool, self.activation
        )
        return refuse_gradient(y, x)


def suits(conv: nn.Conv2d) -> bool:
    """Whether the kernels know this convolution and are faster at it than torch."""
    plain = conv.groups == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    simple = plain and conv.dilation == (1, 1) and conv.weight.dtype == torch.float32
    return simple and (conv.kernel_size == (1, 1) or conv.in_channels <= _FEW)


class _Given(NamedTuple):
    """The arguments of the operator, for all forms of it."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    stride: Sequence[int]
    padding: Sequence[int]
    relu: bool = False
    pool: Sequence[int] = ()
    activation: Tensor | None = None


def _native(given: _Given) -> Tensor:
    variant = variants.active(needed=False)
    if variant is None or not variant.float_lanes or given.x.dtype != torch.float32:
        return _reference(given)
    _check(given.x, given.weight, given.bias, given.activation)
    stride, padding = _pair(given.stride), _pair(given.padding)
    weight, pool = given.weight, tuple(given.pool)
    out_channels, _, kh, kw = weight.shape
    x = aligned(given.x)
    if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        x = x.contiguous(memory_format=torch.channels_last)
    planes = not x.is_contiguous(memory_format=torch.channels_last)
    (height, width), pooled = _sizes(tuple(x.shape[2:]), tuple(weight.shape), stride, padding, pool)
    out = torch.empty((x.shape[0], out_channels, *pooled), memory_format=torch.channels_last)
    blocks = kept(weight, variant.name, lambda: _layout(weight, variant))
    padded, bent = _kept(given.bias, variant), NOTHING
    if given.activation is not None:
        bent = _kept(given.activation, variant)
    module = variants.native()
    assert module is not None
    with native.refusals():
        module.floats(
            variant.index, *extent(x), NCHW if planes else NHWC, *x.shape, out_channels, height, width,
            kh, kw, *stride, *padding, int(given.relu), *(pool or (0, 0, 0)), *pooled, *extent(blocks), *padded, *bent,
            *extent(out), torch.get_num_threads(),
        )  # fmt: skip
    return out


def _reference(given: _Given) -> Tensor:
    _check(given.x, given.weight, given.bias, given.activation)
    _sizes_of(given)
    y = functional.conv2d(given.x, given.weight, given.bias, given.stride, given.padding)
    y = y.relu() if given.relu else y
    y = y if given.activation is None else piecewise(y, given.activation)
    if given.pool:
        side, step, margin = given.pool
        y = functional.max_pool2d(y, side, step, margin)
    return y.contiguous(memory_format=torch.channels_last)


def _shape(given: _Given) -> Tensor:
    _check(given.x, given.weight, given.bias, given.activation)
    _, size = _sizes_of(given)
    shape = (given.x.shape[0], given.weight.shape[0], *size)
    return torch.empty(shape, dtype=given.x.dtype, device=given.x.device, memory_format=torch.channels_last)


def _sizes_of(given: _Given) -> tuple[_Pair, _Pair]:
    """`_sizes` where sizes may be symbols, which nothing is remembered of."""
    image, filters = given.x.shape[2:], given.weight.shape
    return _sizes.__wrapped__(image, filters, _pair(given.stride), _pair(given.padding), given.pool)


def _check(x: Tensor, weight: Tensor, bias: Tensor, activation: Tensor | None) -> None:
    """Raises: UsageError, where these make no convolution."""
    dense = x.layout == weight.layout == torch.strided
    if x.dim() != 4 or not x.dtype.is_floating_point or not dense or not all(x.shape[1:]):
        raise UsageError(
            f"float_conv: input is {x.dtype} {tuple(x.shape)} ({x.layout}); expected a float image (N, C, H, W) of at "
            "least one pixel"
        )
    if weight.dim() != 4 or not all(weight.shape) or weight.shape[1] != x.shape[1]:
        raise UsageError(
            f"float_conv: weight is {weight.dtype} {tuple(weight.shape)} for an image of {x.shape[1]} channels; "
            f"expected (O, {x.shape[1]}, kh, kw)"
        )
    n = weight.shape[0]
    check_tensor("input", x, tuple(x.shape), x.dtype, x.device)
    check_tensor("weight", weight, tuple(weight.shape), x.dtype, x.device)
    check_tensor("bias", bias, (n,), x.dtype, x.device)
    if activation is not None:
        check_tensor("activation", activation, (4, n), x.dtype, x.device)


def _pair(numbers: Sequence[int]) -> _Pair:
    """One number an axis, as torch spreads a single one. Raises: UsageError, where there are more."""
    if len(numbers) not in (1, 2):
        raise UsageError(
            f"float_conv: {list(numbers)} where one number an axis was expected, height and width"
        )
    return int(numbers[0]), int(numbers[-1])


@lru_cache(maxsize=4096)
def _sizes(image: Any, filters: Any, stride: _Pair, padding: _Pair, pool: Any) -> tuple[_Pair, _Pair]:
    """Height and width after the convolution, and after the pool.

    Shapes: image (H, W), filters (O, C, kh, kw). Raises: UsageError, where there is no such convolution or pool.
    """
    n, channels, kh, kw = map(int, filters)
    window = Geometry(channels, n, (kh, kw), stride, (padding[0], padding[0], padding[1], padding[1]))
    size = window.output_size(*image)
    if not pool:
        return size, size
    side, step, margin = pool if len(pool) == 3 else (0, 0, 0)
    if side < 1 or step < 1 or not 0 <= margin <= side // 2 or min(size) + 2 * margin < side:
        raise UsageError(
            f"float_conv: pool {list(pool)} on {size[0]}x{size[1]}; expected (side, stride, padding) with a padding of at "
            "most half the side, and room for one window"
        )
    high, wide = ((n + 2 * margin - side) // step + 1 for n in size)
    return size, (high, wide)


def _layout(weight: Tensor, variant: Variant) -> Tensor:
    """(O, I, kh, kw) -> (blocks, kh, kw, I, lanes)."""
    filled = _filled(weight.permute(2, 3, 1, 0), variant)
    return filled.unflatten(-1, (-1, variant.float_lanes)).movedim(-2, 0).contiguous()


def _kept(numbers: Tensor, variant: Variant) -> tuple[int, int]:
    """Where the numbers lie, filled up to whole blocks."""
    return extent(kept(numbers, variant.name, lambda: _filled(numbers, variant)))


def _filled(numbers: Tensor, variant: Variant) -> Tensor:
    """The last axis filled up to whole blocks."""
    missing = -numbers.shape[-1] % variant.float_lanes
    return functional.pad(numbers.detach(), (0, missing)).contiguous()


_library = torch.library.Library("binarize", "FRAGMENT")
_library.define(
    "float_conv(Tensor x, Tensor weight, Tensor bias, int[] stride, int[] padding, bool relu=False, int[] pool=[], "
    "Tensor? activation=None) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _taking(implementation: Callable[[_Given], Tensor]) -> Callable[..., Tensor]:
    def run(*arguments: Any, **options: Any) -> Tensor:
        return implementation(_Given(*arguments, **options))

    return run


_library.impl("float_conv", _taking(_native), "CPU")
_library.impl("float_conv", _taking(_reference), "CompositeExplicitAutograd")
torch.library.register_fake("binarize::float_conv", _taking(_shape), lib=_library)
