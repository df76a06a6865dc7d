"""A packed layer and what follows it as one call of a kernel, with as little of Python around it as can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from binarize.kernels import native, operators, variants
from binarize.kernels.buffers.arguments import check_image, planes_of
from binarize.kernels.buffers.layout import KernelWeight
from binarize.kernels.buffers.origin import Origin
from binarize.kernels.buffers.readable import in_one_piece, read_parameters, readable
from binarize.kernels.native import Call
from binarize.kernels.tracing import is_recorded
from binarize.kernels.variants import Variant
from binarize.layers.gradient_bound import refuse_gradient
from binarize.packed.buffers import check_device, check_there
from binarize.packed.window import Window

__all__ = ["FusedConv"]

# Without these buffers there is nothing to compute.
_NEEDED = ("bits", "scale", "shift")
_MAY_LACK = ("threshold", "window_scale", "border", "activation")
_BUFFERS = (*_NEEDED, *_MAY_LACK, "next_threshold")
# Input sizes that a layer remembers.
_MOST_SIZES = 16


class Packed(Protocol):
    """What a call is made of: a packed layer's bits, its numbers per channel, and where its windows lie."""

    bits: Tensor
    scale: Tensor
    shift: Tensor
    threshold: Tensor | None
    window_scale: Tensor | None
    border: Tensor | None
    zero_one: bool
    pad_value: float
    window: Window


class FusedConv(nn.Module):
    """A packed layer with what follows it: (product + residual) bent, or product bent + residual.

    With a `next_threshold` it also gives the words that a next layer with these thresholds reads; if it `overwrites`,
    the result takes the residual's memory.

    On a CPU the places of its buffers are found out once, and again when one has moved. The padding is that of an
    input `like` the given one, where it depends on the size.

    Shapes: x (N, C, H, W), residual (N, O, H', W') -> (N, O, H', W') with channels last in memory, and words
    (N, H', W', ceil(O / 32)). Of a linear layer x (N, C), residual (N, O) -> (N, O), and words (N, 1, 1, ceil(O / 32)).
    """

    bits: Tensor
    scale: Tensor
    shift: Tensor
    threshold: Tensor | None
    next_threshold: Tensor | None

    def __init__(self, layer: Packed, like: Tensor) -> None:
        super().__init__()
        window = layer.window
        geometry = window.geometry(like, int(layer.pad_value))
        self.sizes = operators.sizes_of(geometry)
        self.zero_one = layer.zero_one
        self.activation_first = self.overwrites = self.gives_words = False
        self.flat = window.kind == "linear"
        self.register_buffer("bits", layer.bits)
        self.register_buffer("scale", layer.scale[0] if len(layer.scale) == 1 else layer.scale)
        self.register_buffer("shift", layer.shift)
        threshold = layer.threshold
        if threshold is not None and len(threshold) == 1:
            threshold = threshold[0]
        self.register_buffer("threshold", threshold)
        self.register_buffer("window_scale", layer.window_scale)
        self.register_buffer("border", layer.border)
        self.register_buffer("activation", None)
        self.register_buffer("next_threshold", None)
        # By size, type and whether channels lie last.
        self._ready: dict[tuple[torch.Size, torch.dtype, bool], _Ready] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": {}}  # addresses are no copy's

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        found = self._computed(x, residual)
        if isinstance(found, tuple):
            return refuse_gradient(found[0], x, residual), found[1]
        return refuse_gradient(found, x, residual)

    def _computed(self, x: Tensor, residual: Tensor | None) -> Any:
        if not self.flat or not isinstance(x, Tensor) or x.layout != torch.strided:
            return self._image(x, residual)
        # The words of a layer before are taken, and those for the next one given, as they are.
        pixels = x[:, :, None, None] if x.dim() == 2 else x
        found = self._image(pixels, None if residual is None else residual[:, :, None, None])
        return (found[0].flatten(1), found[1]) if isinstance(found, tuple) else found.flatten(1)

    def _image(self, x: Tensor, residual: Tensor | None) -> Any:
        variant = variants.active()
        if variant is None or type(x) is not Tensor or is_recorded():
            return self._by_operator(x, residual)
        last = _lies_last(x)
        if last is None:
            return self._by_operator(x, residual)
        ready = self._ready.get((x.shape, x.dtype, last))
        tables = map(self._buffers.get, _BUFFERS)
        if ready is None or ready.variant is not variant or not ready.origin.still_holds(tables):
            ready = self._prepare(variant, x, last)
        if residual is not None and (
            residual.shape != ready.size or residual.dtype != torch.float32 or not _lies_last(residual)
        ):
            return self._by_operator(x, residual)
        return self._directly(ready, x, residual)

    def _check_there(self) -> None:
        """Raises: UsageError, where a buffer is none that it can compute with."""
        words = ("next_threshold",)
        check_there(self, _NEEDED + words * self.gives_words, _MAY_LACK + words * (not self.gives_words))

    def _by_operator(self, x: Tensor, residual: Tensor | None) -> Any:
        if not is_recorded():
            self._check_there()
            check_device(self, x)
        layer = x, self.bits, self.sizes, self.scale, self.shift
        options = {"threshold": self.threshold, "zero_one": self.zero_one, **self._epilogue()}
        call = torch.ops.binarize
        if self.next_threshold is None:
            return call.conv(*layer, residual=residual, **options)
        if self.overwrites:
            return residual, call.conv_and_bits_(*layer, self.next_threshold, residual, **options)
        return call.conv_and_bits(*layer, self.next_threshold, residual=residual, **options)

    def _directly(self, ready: _Ready, x: Tensor, residual: Tensor | None) -> Any:
        # Both have numbers of four bytes; a storage may be shorter than its tensors.
        x_bytes = x.untyped_storage().nbytes() - 4 * x.storage_offset()
        residual_address, residual_bytes = 0, cast(Any, 0)
        if residual is not None:
            residual_address = residual.data_ptr()
            residual_bytes = residual.untyped_storage().nbytes() - 4 * residual.storage_offset()
        if residual is not None and self.overwrites:
            result, result_bytes = residual, residual_bytes
        else:
            result = torch.empty_strided(ready.size, ready.strides, dtype=torch.float32)
            result_bytes = ready.result_bytes
        words = None if ready.words is None else torch.empty(ready.words, dtype=torch.int32)
        try:
            ready.conv(
                ready.variant.index, ready.call.fields, torch.get_num_threads(), x.data_ptr(), x_bytes, residual_address,
                residual_bytes, 0, 0, result.data_ptr(), result_bytes,
                *((0, 0) if words is None else (words.data_ptr(), ready.words_bytes)),
            )  # fmt: skip
        except ValueError as error:
            raise native.refused(error) from error
        return result if words is None else (result, words)

    def _prepare(self, variant: Variant, x: Tensor, last: bool) -> _Ready:
        self._check_there()
        geometry = operators.geometry_of(self.bits, self.sizes)
        weight = native.kernel_weight(self.bits, geometry, variant)
        check_image(x, geometry, self.threshold)
        x, kind, threshold = readable(x, geometry, self.threshold)
        parameters = {
            "thresholds": threshold,
            "scale": self.scale,
            "shift": self.shift,
            "next_threshold": self.next_threshold,
            **self._epilogue(),
        }
        first = int(bool(parameters.pop("activation_first")))
        given = read_parameters(parameters, geometry, planes_of(threshold))
        call = native.prepared(
            weight, geometry, native.image_size(x), kind, (int(self.zero_one), first), given
        )
        like = native.new_image(x, geometry, torch.float32)
        words = None if self.next_threshold is None else native.new_words(x, geometry)
        if len(self._ready) >= _MOST_SIZES:
            self._ready.clear()
        tables = (one for name, one in self._buffers.items() if name != "bits" and one is not None)
        # The signs are laid out anew, and tables that do not lie in one piece are copied.
        copied = [self.bits, *(one for one in tables if in_one_piece("table", one) is not one)]
        module = variants.native()
        assert module is not None
        ready = _Ready(
            variant,
            module.conv,
            weight,
            Origin(map(self._buffers.get, _BUFFERS), copied),
            call,
            like.shape,
            like.stride(),
            like.nbytes,
            None if words is None else words.shape,
            0 if words is None else words.nbytes,
        )
        self._ready[(x.shape, x.dtype, last)] = ready
        return ready

    def _epilogue(self) -> dict[str, Any]:
        return {
            "window_scale": self.window_scale,
            "border": self.border,
            "activation": self.activation,
            "activation_first": self.activation_first,
        }


@dataclass(frozen=True)
class _Ready:
    """A call but for the addresses of its input and results, and what the others belong to."""

    variant: Variant
    conv: Callable[..., None]
    weight: KernelWeight
    # The buffers.
    origin: Origin
    call: Call
    size: torch.Size
    strides: tuple[int, ...]
    result_bytes: int
    words: torch.Size | None
    words_bytes: int


def _lies_last(x: Tensor) -> bool | None:
    """Whether channels lie last in memory; None where the kernels cannot read the tensor as it is."""
    if not x.is_cpu or x.dim() != 4 or x.layout != torch.strided or x.is_neg():
        return None
    address = x.data_ptr()
    if not address or address % 4:
        return None  # an empty tensor, one of zeros that are nowhere, or numbers between two places
    if x.dtype == torch.int32:
        return True if x.is_contiguous() else None
    if x.dtype != torch.float32:
        return None
    if x.is_contiguous(memory_format=torch.channels_last):
        return True
    return False if x.is_contiguous() else None
