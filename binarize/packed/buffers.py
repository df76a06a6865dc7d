"""Whether the buffers of a frozen, packed or fused layer are tensors that it can compute with; anybody can set them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from binarize.errors import CheckError, UsageError
from binarize.packed.kernels.memory import check_readable
from binarize.packed.window import Window

__all__ = ["check_device", "check_input", "check_numbers", "check_there", "table_shapes"]


def table_shapes(window: Window, planes: int) -> dict[str, tuple[int, ...]]:
    """The shape of each table of a layer."""
    n = window.out_channels
    return {
        "scale": (planes, n),
        "shift": (n,),
        "window_scale": (n,),
        "threshold": (planes, window.in_channels),
        "border": (2, n),
    }


def check_there(module: nn.Module, needed: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raises: UsageError, where a needed buffer is None, one was deleted, or one has no plain numbers.

    The `others` may be None.
    """
    buffers: Mapping[str, object] = module._buffers
    kind = type(module).__name__
    for name in (*needed, *others):
        if name not in buffers:
            raise UsageError(f"{name} of {kind} was deleted; expected a dense tensor")
    for name in needed:
        check_readable(f"{name} of {kind}", buffers[name])
    for name in others:
        if buffers[name] is not None:
            check_readable(f"{name} of {kind}", buffers[name])


def check_numbers(module: nn.Module, window: Window) -> None:
    """Raises: UsageError, where a buffer, all of which are there, has another shape than the layer, or no real numbers."""
    buffers: Mapping[str, Tensor | None] = module._buffers
    scale = buffers["scale"]
    assert scale is not None
    planes = len(scale) if scale.dim() == 2 and (len(scale) < 2 or buffers["threshold"] is not None) else 1
    for name, shape in table_shapes(window, max(planes, 1)).items():
        table = buffers[name]
        if table is not None and not (table.is_floating_point() and table.shape == shape):
            raise UsageError(f"{name} of {_kind(module, table)}; expected floats {shape}")
    signs, bits = buffers.get("signs"), buffers.get("bits")
    if signs is not None and (signs.dtype != torch.int8 or signs.shape != window.weight_shape):
        raise UsageError(f"signs of {_kind(module, signs)}; expected torch.int8 {window.weight_shape}")
    stream = (window.out_channels, -(-window.filter_size // 8))
    if bits is not None and (bits.dtype != torch.uint8 or bits.shape != stream):
        raise CheckError(f"bits of {_kind(module, bits)}; expected torch.uint8 {stream}")


def _kind(module: nn.Module, tensor: Tensor) -> str:
    return f"{type(module).__name__} is {tensor.dtype} {tuple(tensor.shape)}"


def check_device(module: nn.Module, x: Tensor) -> None:
    """Raises: UsageError, where an input is no dense tensor, or a buffer lies on another device."""
    if not isinstance(x, Tensor):
        raise UsageError(f"the input is of type {type(x).__name__}; expected a tensor")
    _check_dense(x)
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.device != x.device:
            kind = type(module).__name__
            raise UsageError(
                f"{name} of {kind} is on {buffer.device} and the input on {x.device}; move one of them"
            )


def check_input(x: Tensor, window: Window) -> None:
    """Raises: UsageError, where an input is none of real numbers for this window, alone or in a batch."""
    _check_dense(x)
    axes, channels = len(window.kernel), window.in_channels
    linear = window.kind == "linear"
    fits = x.dim() > 0 if linear else x.dim() in (axes + 1, axes + 2)
    if not fits or x.shape[-1 if linear else -1 - axes] != channels:
        expected = f"(..., {channels})" if linear else f"(N, {channels}{', size' * axes})"
        raise UsageError(f"the input is {tuple(x.shape)}; expected {expected}")


def _check_dense(x: Tensor) -> None:
    dense = x.layout == torch.strided and not (x.is_nested or x.is_quantized)
    if not dense or x.dtype.is_complex:
        told = "nested" if x.is_nested else f"{x.dtype}, {x.layout}"
        raise UsageError(f"the input is {told}; expected a dense tensor of real numbers")
