"""Elementwise work of training in one pass over memory, where plain torch takes one for each operation of a formula.

The kernels serve dense tensors on a CPU, weights in float32 and values of layers in bfloat16 too, which is widened when
it is read and rounded when it is written. For anything else, for a graph that is traced or compiled, and where the
extension was not built, the functions here that make tensors return None, and the caller goes on in torch.

A tensor is taken as rows, in the order of memory, with numbers of their own; rows `period` apart share them. Filters
of a weight are rows, planes (n, c) of an image are rows that share those of channel c, and a tensor with one number
in all is cut into rows of any length. Where the channels of an image are neighbours in memory, a row is some pixels
and the numbers lie across it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import local

import torch
from torch import Tensor

from binarize.kernels import variants
from binarize.kernels.row_calls import SUMS, Formula, RowCall, Rows, empty_sums
from binarize.kernels.tracing import is_recorded

__all__ = [
    "Formula",
    "Rows",
    "bend",
    "deviations",
    "estimate",
    "filter_rows",
    "magnitudes",
    "overwriting",
    "plane_rows",
    "planes",
    "split",
    "unbend",
    "whole",
]

_SPLIT, _MAGNITUDE, _DEVIATION, _ESTIMATE, _ESTIMATE_FILTER, _BEND, _UNBEND, _PLANES = range(8)
# Elements of a row where all rows share one number: 64 KiB.
_PIECE = 1 << 14
# What values of layers may be in; weights are float32.
_VALUES = (torch.float32, torch.bfloat16)


class _Spare(local):
    """Gradients that nobody else has, of this thread; their places in memory."""

    addresses: frozenset[int] = frozenset()


_spare = _Spare()


@contextmanager
def overwriting(gradients: Iterable[Tensor]) -> Iterator[None]:
    """Within it `estimate` may write its dx over these, which the caller has made and will not read again."""
    before, _spare.addresses = _spare.addresses, frozenset(g.data_ptr() for g in gradients)
    try:
        yield
    finally:
        _spare.addresses = before


def whole(x: Tensor) -> Rows | None:
    """Rows that share one number."""
    return Rows(-(-x.numel() // _PIECE), _PIECE, x.numel(), 1) if _served(x, _VALUES) else None


def filter_rows(w: Tensor, axis: int = 0) -> Rows | None:
    """A row a filter: the first axis."""
    if axis != 0 or not _served(w) or w.dim() < 2:
        return None
    return Rows(w.shape[0], w.numel() // w.shape[0], w.numel(), w.shape[0])


def plane_rows(x: Tensor, channel_dim: int) -> Rows | None:
    """A row a channel of each sample, or some pixels a row where channels are neighbours in memory."""
    if x.dim() < 2 or not _served(x, _VALUES):
        return None
    if channel_dim == 1 and x.dim() > 2:
        channels = x.shape[1]
        if x.is_contiguous():
            length = x.numel() // (x.shape[0] * channels)
            return Rows(x.shape[0] * channels, length, x.numel(), channels)
    elif not x.is_contiguous():
        return None
    else:
        channels = x.shape[-1]
    length = max(_PIECE // channels, 1) * channels
    return Rows(-(-x.numel() // length), length, x.numel(), channels, across=True)


def split(
    x: Tensor, rows: Rows | None, centre: Tensor | None = None, values: tuple[Tensor, Tensor] | None = None
) -> Tensor | None:
    """The first value where x < centre, else the second; without them -1 and +1 about 0.

    Shapes: x any -> the same; centre and values (rows.period,) each. None where the kernels do not serve x.
    """
    if rows is None:
        return None
    out = torch.empty_like(x)
    low, high = (None, None) if values is None else values
    RowCall(_SPLIT, rows, x, out=out, centre=centre, low=low, high=high).run()
    return out


def magnitudes(w: Tensor, rows: Rows | None) -> Tensor | None:
    """mean |w| of each row, shape (rows,)."""
    if rows is None:
        return None
    sums = empty_sums(rows)
    RowCall(_MAGNITUDE, rows, w, sums=sums).run()
    return sums[:, 0].float()


def deviations(w: Tensor, rows: Rows | None) -> tuple[Tensor, Tensor] | None:
    """The mean of each row and the root of its mean squared distance from it, shape (rows,) each."""
    if rows is None:
        return None
    sums = empty_sums(rows)
    RowCall(_DEVIATION, rows, w, sums=sums).run()
    both = sums[:, :2].t().float().contiguous()
    return both[0], both[1]


def estimate(
    x: Tensor,
    g: Tensor,
    rows: Rows | None,
    formula: Formula | None,
    *,
    centre: Tensor | None = None,
    radius: Tensor | None = None,
    divisor: Tensor | None = None,
    through_filter: bool = False,
    wants_sums: bool = False,
) -> tuple[Tensor, Tensor | None] | None:
    """(dx = g / divisor * h(z), sums) with z = (x - centre) / radius and h the formula.

    The sums, per row in float64, are those of g, dx and sign(z) g - z dx. With `through_filter` dx follows centre and
    radius too, which must be the row's own mean and deviation. Shapes: x and g the same -> dx like them, sums (rows, 4).
    """
    if rows is None or formula is None or not _alike(x, g) or _is_differentiated(x, g):
        return None
    dx = g if g.data_ptr() in _spare.addresses else torch.empty_like(x)
    sums = empty_sums(rows) if wants_sums else None
    RowCall(
        _ESTIMATE_FILTER if through_filter else _ESTIMATE, rows, x, g=g, out=dx, centre=centre, radius=radius,
        divisor=divisor, sums=sums, kind=formula.kind, a=formula.a, b=formula.b,
    ).run()  # fmt: skip
    return dx, sums


def bend(
    x: Tensor,
    rows: Rows | None,
    positive: Tensor | None,
    negative: Tensor,
    centre: Tensor | None = None,
    post: Tensor | None = None,
) -> Tensor | None:
    """(positive z above 0, negative z below) + post, with z = x - centre.

    Shapes: x any -> the same; tables (rows.period,). None where the kernels do not serve x.
    """
    if rows is None:
        return None
    out = torch.empty_like(x)
    RowCall(_BEND, rows, x, out=out, low=negative, high=positive, centre=centre, post=post).run()
    return out


def unbend(
    x: Tensor,
    g: Tensor,
    rows: Rows | None,
    positive: Tensor | None,
    negative: Tensor,
    centre: Tensor | None = None,
    *,
    negative_at_zero: bool,
) -> tuple[Tensor, Tensor] | None:
    """(dx, sums) of `bend`: the sums of g z above 0, of g z below, of g and of dx, as float64 (4, period).

    At z = 0 the slope is the negative one, or 0.
    """
    if rows is None or not _alike(x, g) or _is_differentiated(x, g):
        return None
    dx, sums = torch.empty_like(x), empty_sums(rows)
    RowCall(
        _UNBEND, rows, x, g=g, out=dx, low=negative, high=positive, centre=centre, sums=sums,
        kind=int(negative_at_zero),
    ).run()  # fmt: skip
    return dx, sums.view(-1, rows.period, SUMS).sum(0).t()


def planes(x: Tensor) -> Tensor:
    """A float32 image (N, C, H, W) that lies in memory as (N, H, W, C), as one that is contiguous."""
    n, channels, height, width = x.shape
    pixels = height * width
    if pixels == 1 or channels == 1:
        return x.contiguous()
    out = torch.empty((n, channels, height, width))
    blocks = -(-channels // 16)
    RowCall(_PLANES, Rows(n * blocks, pixels, x.numel(), channels), x, out=out).run()
    return out


def _served(x: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Whether the kernels run on this tensor."""
    if x.dtype not in dtypes or not x.is_cpu or type(x) not in (Tensor, torch.nn.Parameter):
        return False
    if is_recorded() or not x.numel() or variants.active(needed=False) is None:
        return False
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def _alike(x: Tensor, g: Tensor) -> bool:
    return (
        type(g) is Tensor
        and g.dtype == x.dtype
        and g.is_cpu
        and g.shape == x.shape
        and g.stride() == x.stride()
    )


def _is_differentiated(x: Tensor, g: Tensor) -> bool:
    """Whether a gradient is computed that has a gradient itself (create_graph=True): the kernels know of none."""
    return torch.is_grad_enabled() and (x.requires_grad or g.requires_grad)
