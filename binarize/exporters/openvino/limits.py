"""Where OpenVINO's CPU plugin computes a BinaryConvolution right.

Elsewhere version 2026.4 gives wrong numbers without a word.
"""

from __future__ import annotations

from binarize.kernels.geometry import Geometry

__all__ = ["why_float"]

_LARGEST_PADDING = 4
# To the left and the right: processors without AVX-512 refuse more when the file is opened.
_LARGEST_SIDE_PADDING = 2
# Sizes of the kernel's sides and strides that were tried.
_KERNELS, _STRIDES = 7, (1, 2, 3, 4)


def why_float(geometry: Geometry) -> str | None:
    """Why a layer cannot be a BinaryConvolution, in words; None where it can."""
    g = geometry
    if g.groups > 1:
        return f"{g.groups} groups"
    if g.in_channels % 8:
        return f"{g.in_channels} input channels are no multiple of 8"
    if max(g.padding) > _LARGEST_PADDING or max(g.padding[2:]) > _LARGEST_SIDE_PADDING:
        return f"padded by {max(g.padding)}"
    if max(g.kernel) > _KERNELS or not set(g.stride) <= set(_STRIDES):
        return f"a kernel of {g.kernel} in steps of {g.stride}"
    if 3 in g.stride and max(g.kernel) > 3:
        return f"steps of 3 with a kernel of {g.kernel}"
    return None
