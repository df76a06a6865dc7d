"""The arithmetic of a packed layer in plain torch: slow, obvious; every kernel equals it bit for bit.

With a the two-valued input (+1 / -1, or 1 / 0), w the weight's signs and one output position:

    dot = sum over the window of a * w                                   an integer
    y   = A * dot + C * Sa + ((E * Sw + F * n) + B)                      per output channel

    Sa  the sum of a over the window, one for all filters of a group: a two-level weight {b1, b2} needs it
    Sw  the sum of w over the taps inside the image   } constants but at a zero-padded border:
    n   the number of weights inside the image        } a two-level input needs them

Each product and each sum is rounded to float32 in the order written, without fused multiply-add. Terms that
are not given are left out. With several thresholds an input channel (bit planes), A * dot is the sum of
A_k * dot_k from the first plane to the last.

Padding with 0 leaves the outside taps out of every sum; padding with 1 or -1 counts them as inputs of that
value. Sources: XNOR-Net (Rastegari et al. 2016, https://arxiv.org/abs/1603.05279) for the dot product; AdaBin
(Tu et al. 2022, https://arxiv.org/abs/2208.08084) for two-level sets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from binarize.errors import UsageError
from binarize.packed.geometry import Geometry
from binarize.packed.kernels.recording import is_recorded
from binarize.packed.pack import WORD, pack_words, signs, unpack_bits, unpack_words

__all__ = ["affine", "below", "conv_affine", "dot", "input_masks", "inside_sums", "piecewise", "window_sum"]


def input_masks(x: Tensor, geometry: Geometry, threshold: Tensor | None = None) -> list[Tensor]:
    """Where the input has its lower value: `x < threshold`, one mask a bit plane. NaN and a tie are upper.

    Shapes: x float (N, C, H, W) and threshold (C,) or (planes, C), or x packed int32 (N, H, W, ceil(C / 32))
    -> bool (N, C, H, W) each.
    Raises: UsageError, where a bit beyond the channels is set.
    """
    if x.dtype == torch.int32:
        filling = geometry.in_channels % WORD
        if filling and not is_recorded() and bool((x[..., -1] >> filling).any()):
            raise UsageError("a bit of a packed image beyond its channels is set")
        return [unpack_words(x, geometry.in_channels).permute(0, 3, 1, 2)]
    if threshold is None:
        return [x < 0]
    return [x < row.view(1, -1, 1, 1) for row in threshold.reshape(-1, geometry.in_channels)]


def dot(lower: Tensor, bits: Tensor, geometry: Geometry, zero_one: bool = False) -> Tensor:
    """Binary convolution of an input mask with a canonical weight stream.

    Shapes: bool (N, C, H, W), uint8 (O, ceil(K / 8)) -> int32 (N, O, H', W').
    """
    weight = signs(unpack_bits(bits, geometry.weight_shape))
    return _convolve(_padded(_values(lower, zero_one), geometry), weight, geometry)


def window_sum(lower: Tensor, geometry: Geometry, zero_one: bool = False) -> Tensor:
    """Sum of the input's values over each window, one a group.

    Shapes: bool (N, C, H, W) -> int32 (N, groups, H', W').
    """
    values = _padded(_values(lower, zero_one), geometry)
    ones = torch.ones(geometry.groups, *geometry.weight_shape[1:], device=lower.device)
    return _convolve(values, ones, geometry)


def inside_sums(bits: Tensor, geometry: Geometry, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Sw and n of each output position: sum and number of the weights whose tap lies inside the image.

    Taps on a border padded with 1 or -1 are inside. Shapes: -> int32 (1, O, H', W') and (1, 1, H', W').
    """
    inside = torch.ones(1, geometry.in_channels, height, width, device=bits.device)
    padded = _pad(inside, geometry, abs(geometry.pad_value))
    weight = signs(unpack_bits(bits, geometry.weight_shape))
    count = _convolve(padded, torch.ones_like(weight), geometry)
    return _convolve(padded, weight, geometry), count[:, :1]


def affine(
    dots: list[Tensor],
    scale: Tensor,
    shift: Tensor,
    *,
    window: tuple[Tensor, Tensor] | None = None,
    border: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """`y` of the module's formula. window = (C, Sa); border = ((E, F) as (2, O), Sw, n).

    Shapes: int32 (N, O, H', W') each; scale (O,) or (planes, O); shift (O,) -> float32 (N, O, H', W').
    """
    rows = scale.reshape(len(dots), -1)
    y = _channels(rows[0]) * dots[0].float()
    for row, plane in zip(rows[1:], dots[1:]):
        y = y + _channels(row) * plane.float()
    if window is not None:
        window_scale, sums = window
        per_channel = sums.repeat_interleave(rows.shape[1] // sums.shape[1], dim=1)
        y = y + _channels(window_scale) * per_channel.float()
    constant = _channels(shift)
    if border is not None:
        (per_weight, per_count), weights, count = border
        constant = _channels(per_weight) * weights.float() + _channels(per_count) * count.float() + constant
    return y + constant


def piecewise(y: Tensor, parameters: Tensor) -> Tensor:
    """`z = y + pre; (positive * z if z > 0 else negative * z) + post`, the four numbers of each channel.

    PReLU is (0, 1, slope, 0); RPReLU (-gamma, 1, slope, zeta); AdaBin's Maxout (0, positive, negative, 0).
    Shapes: float32 (N, O, H', W'), parameters (4, O) -> float32 (N, O, H', W').
    """
    pre, positive, negative, post = (_channels(row) for row in parameters)
    z = y + pre
    return torch.where(z > 0, positive * z, negative * z) + post


def below(values: Tensor, limit: Tensor, flip: Tensor | None = None) -> Tensor:
    """Words of the mask `values < limit`, per channel inverted where `flip` is set.

    Shapes: (N, O, H', W'), limit (O,), flip int32 (ceil(O / 32),) -> int32 (N, H', W', ceil(O / 32)).
    """
    mask = values < _channels(limit)
    if flip is not None:
        mask = mask ^ _channels(unpack_words(flip, limit.numel()))
    return pack_words(mask.permute(0, 2, 3, 1))


def conv_affine(
    x: Tensor,
    bits: Tensor,
    geometry: Geometry,
    scale: Tensor,
    shift: Tensor,
    *,
    threshold: Tensor | None = None,
    zero_one: bool = False,
    window_scale: Tensor | None = None,
    border: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Tensor | None = None,
    activation_first: bool = False,
) -> Tensor:
    """A whole layer: binarize the input, convolve, `affine`, then residual and activation in either order.

    Shapes: as in the functions above; residual like the result -> float32 (N, O, H', W').
    """
    masks = input_masks(x, geometry, threshold)
    window = None if window_scale is None else (window_scale, window_sum(masks[0], geometry, zero_one))
    edge = None if border is None else (border, *inside_sums(bits, geometry, *masks[0].shape[2:]))
    y = affine([dot(m, bits, geometry, zero_one) for m in masks], scale, shift, window=window, border=edge)
    if activation is not None and activation_first:
        y = piecewise(y, activation)
    if residual is not None:
        y = y + residual
    if activation is not None and not activation_first:
        y = piecewise(y, activation)
    return y


def _values(lower: Tensor, zero_one: bool) -> Tensor:
    return (~lower).float() if zero_one else signs(lower)


def _channels(row: Tensor) -> Tensor:
    return row.view(1, -1, 1, 1)


def _pad(x: Tensor, geometry: Geometry, value: float) -> Tensor:
    top, bottom, left, right = geometry.padding
    return functional.pad(x, (left, right, top, bottom), value=float(value))


def _padded(x: Tensor, geometry: Geometry) -> Tensor:
    return _pad(x, geometry, geometry.pad_value)


def _convolve(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """A float convolution of small integers: exact below 2^24; rounding absorbs fast algorithms."""
    y = functional.conv2d(x, weight, None, geometry.stride, 0, geometry.dilation, geometry.groups)
    return y.round().to(torch.int32)
