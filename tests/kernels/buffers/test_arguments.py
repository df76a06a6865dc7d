"""What a kernel would misread or write beyond is refused in words, in Python and in C; what only looks odd is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from packed_layers import conv
from torch import Tensor, nn

from binarize.errors import BinarizeError, UsageError
from binarize.kernels import elementwise, native, operators, reference
from binarize.kernels import variants as kernels
from binarize.kernels.bits import pack_bits
from binarize.kernels.geometry import Geometry
from binarize.packed.fused.fuse import fuse

call = torch.ops.binarize
GEOMETRY = Geometry(6, 4, (3, 3), padding=(1, 1, 1, 1))


def given(**change: Any) -> dict[str, Any]:
    """Arguments of `conv_and_bits_`, some of them others."""
    generator = torch.Generator().manual_seed(0)
    numbers = {
        "x": torch.randn(2, 6, 5, 7, generator=generator),
        "bits": pack_bits(torch.randn(GEOMETRY.weight_shape, generator=generator) < 0),
        "sizes": operators.sizes_of(GEOMETRY),
        "scale": torch.randn(4, generator=generator),
        "shift": torch.randn(4, generator=generator),
        "next_threshold": torch.randn(4, generator=generator),
        "residual": torch.randn(2, 4, 5, 7, generator=generator).to(memory_format=torch.channels_last),
    }
    return {**numbers, **change}


def sizes(**change: int) -> dict[str, Any]:
    names = [
        "channels",
        "kh",
        "kw",
        "sh",
        "sw",
        "top",
        "bottom",
        "left",
        "right",
        "dh",
        "dw",
        "groups",
        "pad_value",
    ]
    return {"sizes": list((dict(zip(names, operators.sizes_of(GEOMETRY))) | change).values())}


HUGE = 1 << 62
REFUSED: dict[str, dict[str, Any]] = {
    "a residual of another size": {"residual": torch.zeros(1, 4, 1, 1)},
    "a residual of a larger size": {"residual": torch.zeros(2, 4, 6, 7)},
    "an expanded residual": {"residual": torch.zeros(2, 4, 1, 1).expand(2, 4, 5, 7)},
    "a residual of doubles": {"residual": torch.zeros(2, 4, 5, 7, dtype=torch.float64)},
    "more filters than scales": {"bits": torch.zeros(40, 7, dtype=torch.uint8)},
    "bits of one axis": {"bits": torch.zeros(28, dtype=torch.uint8)},
    "an image of three axes": {"x": torch.zeros(6, 5, 7)},
    "an image of integers": {"x": torch.zeros(2, 6, 5, 7, dtype=torch.int64)},
    "an empty image": {"x": torch.zeros(2, 6, 0, 7)},
    "sparse scales": {"scale": torch.zeros(4).to_sparse()},
    "quantized shifts": {"shift": torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)},
    "shifts elsewhere": {"shift": torch.zeros(4, device="meta")},
    "half scales": {"scale": torch.zeros(4, dtype=torch.float16)},
    "twelve sizes": {"sizes": operators.sizes_of(GEOMETRY)[:-1]},
    "strides beyond 2^31": sizes(sh=1 << 31),
    "a stride of 2^62": sizes(sw=HUGE),
    "no kernel": sizes(kh=0),
    "a huge kernel": sizes(kh=HUGE, kw=HUGE),
    "a huge dilation": sizes(dh=HUGE),
    "negative padding": sizes(left=-1),
    "huge padding": sizes(top=HUGE),
    "padding of 2 TiB": sizes(top=1 << 20, left=1 << 19),
    "no groups": sizes(groups=0),
    "groups that do not divide": sizes(groups=4),
    "another padding value": sizes(pad_value=2),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("variant", ["", "reference"])
def test_arguments_that_do_not_fit_are_refused(name: str, variant: str, variants: object) -> None:
    with kernels.use(variant), pytest.raises(BinarizeError):
        call.conv_and_bits_(**given(**REFUSED[name]))


def test_sizes_of_shapes_alone_are_refused_too() -> None:
    meta = {key: one.to("meta") if isinstance(one, Tensor) else one for key, one in given().items()}
    assert call.conv_and_bits_(**meta).shape == (2, 5, 7, 1)
    for change in ({"x": torch.zeros(6, 5, 7, device="meta")}, sizes(groups=0), sizes(sh=1 << 31)):
        with pytest.raises(BinarizeError):
            call.conv_and_bits_(**{**meta, **change})


def shortened(x: Tensor) -> Tensor:
    """A tensor whose storage lost its second half."""
    storage = x.untyped_storage()
    storage.resize_(storage.nbytes() // 2)
    return x


def test_tensors_whose_storage_is_shorter_are_refused(variants: object) -> None:
    with pytest.raises(UsageError, match=r"input is .* in a storage that is shorter"):
        call.conv_and_bits_(**given(x=shortened(torch.zeros(2, 6, 5, 7))))
    residual = shortened(torch.zeros(2, 4, 5, 7).to(memory_format=torch.channels_last))
    with pytest.raises(UsageError, match="shorter"):
        call.conv_and_bits_(**given(residual=residual))
    with pytest.raises(UsageError, match="shorter"):
        call.pack(shortened(torch.zeros(1, 3, 4, 4)))
    with pytest.raises(UsageError, match="shorter"):
        call.float_conv(
            shortened(torch.zeros(1, 3, 4, 4)), torch.ones(2, 3, 1, 1), torch.zeros(2), [1, 1], [0, 0]
        )
    layer, x = conv(6, 4, pad=1), shortened(torch.zeros(2, 6, 5, 7))
    with pytest.raises(UsageError, match=r"input is .* in a storage that is shorter"):
        layer(x)
    w = shortened(torch.zeros(8, 30))
    with pytest.raises(UsageError, match="shorter than the rows"):
        elementwise.magnitudes(w, elementwise.filter_rows(w))


def test_thresholds_that_do_not_lie_in_one_piece_are_compared_with(variants: object) -> None:
    x, table = torch.randn(2, 40, 3, 3), torch.randn(40, 2)
    expected = call.pack(x, table[:, 1].clone())
    assert torch.equal(call.pack(x, table[:, 1]), expected)
    assert torch.equal(call.pack(x, table[:1, 0].expand(40)), call.pack(x, table[0, 0].repeat(40)))
    with pytest.raises(UsageError, match="float8"):
        call.pack(x.to(torch.float8_e4m3fn))


def test_filling_bits_of_a_flip_change_no_word(variants: object) -> None:
    fields = {name: given()[name] for name in ("x", "bits", "sizes")}
    limit = torch.zeros(4, dtype=torch.int32)
    words = [
        call.conv_bits(**fields, limit=limit, flip=torch.tensor([one], dtype=torch.int32)) for one in (5, -11)
    ]
    assert torch.equal(*words)


def test_parameters_of_a_prepared_call_keep_their_memory(variants: object) -> None:
    layer, x = conv(6, 4, pad=1), torch.randn(2, 6, 5, 7)
    expected = layer(x)
    with pytest.raises(RuntimeError, match="not resizable"):
        layer.shift.untyped_storage().resize_(0)
    layer.shift.data = layer.shift + 1
    torch.testing.assert_close(layer(x), expected + 1)
    direct = layer._direct(x)
    direct.shift = direct.shift.to_sparse()
    with pytest.raises(UsageError, match=r"shift of FusedConv is torch\.sparse_coo"):
        direct(x)


def test_memory_that_is_read_and_written_in_part_gives_the_same(variants: object) -> None:
    wide = torch.randn(2 * 5 * 7 * 4 + 1)
    square = Geometry(4, 4, (3, 3), padding=(1, 1, 1, 1))
    bits = pack_bits(torch.randn(square.weight_shape) < 0)

    def view(start: int, of: Tensor) -> Tensor:
        return of[start : start + 280].view(2, 5, 7, 4).permute(0, 3, 1, 2)

    for start in (0, 1):
        memory, plain = wide.clone(), given(bits=bits, sizes=operators.sizes_of(square))
        expected, words = view(1, wide).clone(), None
        apart = {**plain, "x": view(start, wide).clone(), "residual": expected}
        words = call.conv_and_bits_(**apart)
        together = {**plain, "x": view(start, memory), "residual": view(1, memory)}
        assert torch.equal(call.conv_and_bits_(**together), words)
        assert torch.equal(view(1, memory), expected)


def test_odd_memory_is_read_as_it_is_meant(variants: object) -> None:
    x = torch.randn(1, 6, 5, 7)
    layer, odd = conv(6, 4, pad=1), torch.from_numpy(np.frombuffer(b"\0" + x.numpy().tobytes(), np.uint8))
    between = torch.frombuffer(bytearray(odd.numpy().tobytes()), dtype=torch.float32, offset=1).view(
        1, 6, 5, 7
    )
    forms = {
        "reversed in numpy": torch.from_numpy(np.ascontiguousarray(x.numpy()[..., ::-1])[..., ::-1].copy()),
        "between two numbers": between,
        "negative bit": torch._neg_view(-x),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "every second": torch.stack([x, -x], -1)[..., 0],
    }
    with torch.inference_mode():
        forms["inference"] = x.clone()
    for name, form in forms.items():
        assert torch.equal(layer(form), layer(x)), name
    assert torch.equal(layer(x[:1].expand(3, 6, 5, 7)), layer(x).expand(3, 4, 5, 7))
    assert torch.equal(layer(torch._efficientzerotensor(1, 6, 5, 7)), layer(torch.zeros(1, 6, 5, 7)))
    assert layer(torch.zeros(0, 6, 5, 7)).shape == (0, 4, 5, 7)


@pytest.mark.parametrize(
    "change",
    [
        {"bias": torch.zeros(4, dtype=torch.int8)},
        {"bias": torch.zeros(4, dtype=torch.float16)},
        {"bias": torch.zeros(3)},
        {"weight": torch.zeros(4, 3, 1)},
        {"weight": torch.zeros(4, 3, 1, 1, dtype=torch.float64)},
        {"weight": torch.zeros(0, 3, 1, 1)},
        {"activation": torch.zeros(4, 4, dtype=torch.int32)},
        {"x": torch.zeros(1, 3, 0, 4)},
        {"stride": [0, 1]},
        {"stride": [1, -1]},
        {"stride": [1, 1, 1]},
        {"stride": [1 << 31, 1]},
        {"padding": [-1, 0]},
        {"padding": [1 << 40, 0]},
        {"padding": [1 << 20, 1 << 20]},
        {"pool": [3]},
        {"pool": [2, 0, 0]},
        {"pool": [2, 1, 2]},
        {"pool": [9, 1, 1]},
        {"pool": [HUGE, HUGE, HUGE]},
    ],
    ids=str,
)
@pytest.mark.parametrize("variant", ["", "reference"])
def test_float_convolutions_that_do_not_fit_are_refused(change: dict[str, Any], variant: str) -> None:
    plain = {"x": torch.zeros(1, 3, 4, 4), "weight": torch.zeros(4, 3, 1, 1), "bias": torch.zeros(4)}
    with kernels.use(variant), pytest.raises(UsageError):
        call.float_conv(**{**plain, "stride": [1, 1], "padding": [0, 0], **change})


def test_a_layer_whose_layout_would_be_nearly_all_filling_is_refused(variants: object) -> None:
    wide = Geometry(1, 1, (4096, 4096))
    with pytest.raises(UsageError, match="GiB for the layout of this weight"):
        native.kernel_weight(
            torch.zeros(1, wide.filter_size // 8, dtype=torch.uint8), wide, kernels.variants()[0]
        )


def test_what_c_is_told_is_checked_there(variants: tuple[kernels.Variant, ...]) -> None:
    """Without the checks in Python: every field of a call made huge, negative or 0 is harmless."""
    module, x = kernels.native(), torch.zeros(2, 6, 5, 7)
    assert module is not None
    layer = conv(6, 4, pad=1)
    layer(x)
    (ready,) = layer._direct(x)._ready.values()
    fields = np.frombuffer(ready.call.fields, np.int64)
    out = torch.zeros(ready.size)
    passed = [x.data_ptr(), x.nbytes, 0, 0, 0, 0, out.data_ptr(), out.nbytes, 0, 0]
    outcomes = set()
    lengths = [i for i, name in enumerate(module.FIELDS) if name.endswith("_bytes")]
    for i in set(range(len(fields))) - set(lengths) - {i - 1 for i in lengths}:
        for value in (-(2**63), -1, 0, 1, 2, 3, 2**24, 2**30 - 1, 2**31, 2**32, 2**62, 2**63 - 1):
            changed = fields.copy()
            changed[i] = value
            try:
                outcomes.add(module.conv(ready.variant.index, changed.tobytes(), 1, *passed))
            except ValueError as error:
                outcomes.add(str(error))
    assert len(outcomes) > 5
    for i in lengths:
        changed = fields.copy()
        changed[i] -= 1
        if fields[i]:
            with pytest.raises(ValueError, match="shorter"):
                module.conv(ready.variant.index, changed.tobytes(), 1, *passed)
    with pytest.raises(ValueError, match="bytes"):
        module.conv(ready.variant.index, fields.tobytes()[:-8], 1, *passed)
    with pytest.raises(TypeError):
        module.conv(ready.variant.index, fields.tobytes(), 1)
    with pytest.raises(ValueError, match="shares memory"):
        module.conv(ready.variant.index, fields.tobytes(), 1, *passed[:6], x.data_ptr() + 4, out.nbytes, 0, 0)


def test_a_fused_model_on_other_sizes_says_what_it_expected(variants: object) -> None:
    x = torch.randn(2, 6, 5, 7)
    fused = fuse(nn.Sequential(conv(6, 4, pad=1), nn.ReLU()), x)
    assert fused(torch.randn(3, 6, 9, 4)).shape == (3, 4, 9, 4)
    for wrong in (torch.randn(2, 7, 5, 7), torch.zeros(2, 6, 5, 7, dtype=torch.int64)):
        with pytest.raises(BinarizeError, match="expected"):
            fused(wrong)


@pytest.mark.parametrize("channels", [1, 31, 33, 40])
@pytest.mark.parametrize("native_kernels", [True, False])
def test_a_bit_beyond_the_channels_of_a_packed_image_is_refused(channels: int, native_kernels: bool) -> None:
    geometry = Geometry(channels, 4)
    bits = pack_bits(torch.zeros(geometry.weight_shape) < 0)
    words = torch.zeros(2, 3, 3, -(-channels // 32), dtype=torch.int32)
    dots = call.conv_dot if native_kernels else reference_dots
    assert bool((dots(words, bits, operators.sizes_of(geometry)) == channels).all())
    for beyond in range(channels % 32, 32):
        wrong = words.clone()
        wrong[1, 2, 2, -1] = -(1 << 31) if beyond == 31 else 1 << beyond
        with pytest.raises(UsageError, match="a bit of a packed image beyond its channels is set"):
            dots(wrong, bits, operators.sizes_of(geometry))


def reference_dots(x: Tensor, bits: Tensor, sizes: list[int]) -> Tensor:
    geometry = operators.geometry_of(bits, sizes)
    (lower,) = reference.input_masks(x, geometry)
    return reference.dot(lower, bits, geometry)
