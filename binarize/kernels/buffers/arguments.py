"""What an operator may be given: each tensor against the geometry, told in words.

The kernels compare the same numbers once more with the memory that there is (kernels/checks.c). What they would
refuse is refused here first, with the name of the argument, what it is and what it should be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from binarize.errors import CheckError, UsageError
from binarize.kernels.bits import WORD
from binarize.kernels.buffers.memory import span
from binarize.kernels.geometry import Geometry, geometry_of
from binarize.kernels.tracing import is_recorded

__all__ = [
    "Given",
    "check_call",
    "check_image",
    "check_packable",
    "check_parameters",
    "check_residual",
    "check_spread",
    "check_tensor",
    "planes_of",
]

# MAX_PLANES of kernels.h.
_MOST_PLANES = 8
# What an image may be in; torch computes nothing in narrower ones.
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INTEGERS = ("limit", "flip")


class Given(NamedTuple):
    """The arguments of one call of an operator; those that it does not have are at their defaults.

    Their meaning and shapes are in `kernels.reference`.
    """

    x: Tensor
    # None where an image is packed and nothing else.
    bits: Any = None
    sizes: Sequence[int] = ()
    scale: Tensor | None = None
    shift: Tensor | None = None
    next_threshold: Tensor | None = None
    residual: Tensor | None = None
    limit: Tensor | None = None
    flip: Tensor | None = None
    threshold: Tensor | None = None
    zero_one: bool = False
    window_scale: Tensor | None = None
    border: Tensor | None = None
    activation: Tensor | None = None
    activation_first: bool = False

    @property
    def parameters(self) -> dict[str, Tensor | None]:
        """The numbers of a layer, by their names in the operators and in a call of the kernels."""
        return {
            "scale": self.scale, "shift": self.shift, "window_scale": self.window_scale, "border": self.border,
            "activation": self.activation, "limit": self.limit, "flip": self.flip,
            "next_threshold": self.next_threshold,
        }  # fmt: skip


def check_call(given: Given) -> None:
    """Raises: UsageError or CheckError, where a tensor is another one than the geometry needs."""
    x, threshold = given.x, given.threshold
    if given.bits is None:
        check_packable(x, threshold)
        return
    geometry = geometry_of(given.bits, given.sizes)
    check_image(x, geometry, threshold)
    check_stream(given.bits, geometry, x.device)
    parameters = {name: one for name, one in given.parameters.items() if one is not None}
    check_parameters(parameters, geometry, planes_of(threshold), x.device)
    if given.residual is not None:
        check_residual(given.residual, x, geometry)


def planes_of(threshold: Tensor | None) -> int:
    """Bit planes of one input."""
    return threshold.shape[0] if threshold is not None and threshold.dim() == 2 else 1


def check_tensor(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Raises: UsageError, where a tensor is another one than the geometry needs."""
    if tensor.dtype != dtype or tensor.shape != shape or tensor.device != device or not _is_plain(tensor):
        raise UsageError(f"{name} is {_told(tensor)}; expected {dtype} {shape} on {device}")


def check_packable(x: Tensor, threshold: Tensor | None) -> None:
    """Raises: UsageError, where these are no float image and its thresholds."""
    if x.dim() != 4 or x.dtype not in _FLOATS or not _is_plain(x) or not all(x.shape[1:]):
        raise UsageError(f"input is {_told(x)}; expected a float image (N, C, H, W) of at least one pixel")
    if threshold is not None:
        check_tensor("threshold", threshold, (x.shape[1],), torch.float32, x.device)


def check_image(x: Tensor, geometry: Geometry, threshold: Tensor | None) -> None:
    """Raises: UsageError, where these are no float image or packed words of this geometry, and its thresholds."""
    channels = geometry.in_channels
    packed = x.dtype == torch.int32
    expected = f"(N, H, W, {-(-channels // WORD)})" if packed else f"(N, {channels}, H, W)"
    fits = x.dim() == 4 and (x.shape[3] == -(-channels // WORD) if packed else x.shape[1] == channels)
    if not fits or not (packed or x.dtype in _FLOATS) or not _is_plain(x):
        raise UsageError(f"input is {_told(x)} for {geometry}; expected {expected}, float or packed as int32")
    if packed and threshold is not None:
        raise UsageError("a packed input has its thresholds behind it; threshold must be None")
    if threshold is not None:
        planes = planes_of(threshold)
        if not 1 <= planes <= _MOST_PLANES:
            raise UsageError(f"threshold has {planes} rows; an input has 1 to {_MOST_PLANES} bit planes")
        shape = (planes, channels) if threshold.dim() == 2 else (channels,)
        check_tensor("threshold", threshold, shape, torch.float32, x.device)


def check_residual(residual: Tensor, x: Tensor, geometry: Geometry) -> None:
    """Raises: UsageError, where a residual is not like the result on this image."""
    height, width = x.shape[1:3] if x.dtype == torch.int32 else x.shape[2:4]
    shape = (x.shape[0], geometry.out_channels, *geometry.output_size(height, width))
    check_tensor("residual", residual, shape, torch.float32, x.device)


def check_spread(residual: Tensor) -> None:
    """Raises: UsageError, where elements of what is written to share a place in memory."""
    reach = 0
    for stride, size in sorted((s, n) for s, n in zip(residual.stride(), residual.shape) if n > 1):
        if stride <= reach:
            raise UsageError(
                f"residual is written to, and elements of it share memory: shape {tuple(residual.shape)} with strides "
                f"{residual.stride()}; give a copy of it"
            )
        reach += stride * (size - 1)


def check_stream(bits: Tensor, geometry: Geometry, device: torch.device) -> None:
    """Raises: CheckError, where bits are no canonical stream of this geometry's weight."""
    shape = (geometry.out_channels, -(-geometry.filter_size // 8))
    if bits.dtype != torch.uint8 or bits.shape != shape or bits.device != device or not _is_plain(bits):
        raise CheckError(
            f"packed bits are {_told(bits)}; a weight of {geometry.weight_shape} needs torch.uint8 {shape} on {device}"
        )


def check_parameters(
    given: Mapping[str, Tensor], geometry: Geometry, planes: int, device: torch.device
) -> None:
    """Raises: UsageError, where a parameter of a layer, by its name in the operators, does not fit its geometry."""
    n = geometry.out_channels
    if planes > 1 and "window_scale" in given:
        raise UsageError("window sums are defined for one bit plane; threshold has several")
    scale = given.get("scale")
    shapes: dict[str, tuple[int, ...]] = {
        "scale": (n,) if planes == 1 and scale is not None and scale.dim() == 1 else (planes, n),
        "border": (2, n),
        "activation": (4, n),
        "flip": (-(-n // WORD),),
    }
    for name, tensor in given.items():
        dtype = torch.int32 if name in _INTEGERS else torch.float32
        check_tensor(name, tensor, shapes.get(name, (n,)), dtype, device)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and _is_whole(tensor)


def _is_whole(tensor: Tensor) -> bool:
    """Whether there is a storage as long as the tensor reaches; one that stands for shapes alone needs none."""
    if type(tensor) not in (Tensor, torch.nn.Parameter) or not tensor.is_cpu or is_recorded():
        return True
    if not tensor.numel():
        return True
    there = tensor.untyped_storage().nbytes() // tensor.itemsize
    return bool(tensor.storage_offset() + span(tensor.shape, tensor.stride()) <= there)


def _told(tensor: Tensor) -> str:
    told = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
    if tensor.layout != torch.strided:
        return f"{told}, {tensor.layout}"
    return told if _is_whole(tensor) else f"{told}, in a storage that is shorter"
