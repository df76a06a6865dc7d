"""Packed and fused layers compute with what their buffers hold now, however that was changed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from packed_layers import conv, linear
from torch import Tensor, nn

from binarize.errors import CheckError, UsageError
from binarize.kernels.buffers.digest import digest_of
from binarize.packed.frozen.layer import FrozenLayer
from binarize.packed.fused.float_conv import FloatConv
from binarize.packed.fused.fuse import fuse
from binarize.packed.fused_conv import FusedConv
from binarize.packed.layers import PackedLayer


def other_bits(bits: Tensor) -> Tensor:
    """All signs turned; filters of whole bytes, so that no filling bit is set."""
    return bits.clone() ^ 255


def in_place(m: nn.Module) -> None:
    m.bits.copy_(other_bits(m.bits))


def under_inference(m: nn.Module) -> None:
    with torch.inference_mode():
        m.bits.copy_(other_bits(m.bits))


def by_data(m: nn.Module) -> None:
    m.bits.data = other_bits(m.bits)


def through_data(m: nn.Module) -> None:
    m.bits.data.copy_(other_bits(m.bits))


def by_numpy(m: nn.Module) -> None:
    m.bits.numpy()[:] ^= 255


def by_dlpack(m: nn.Module) -> None:
    torch.from_dlpack(m.bits).bitwise_xor_(255)


def by_storage(m: nn.Module) -> None:
    m.bits.untyped_storage().copy_(other_bits(m.bits).untyped_storage())


def set_anew(m: nn.Module) -> None:
    m.bits = other_bits(m.bits)


def shared(m: nn.Module) -> None:
    m.bits.share_memory_()
    m.bits.numpy()[:] ^= 255


def loaded(m: nn.Module) -> None:
    with torch.inference_mode():
        m.load_state_dict({**m.state_dict(), "bits": other_bits(m.bits)})


def assigned(m: nn.Module) -> None:
    m.load_state_dict({**m.state_dict(), "bits": other_bits(m.bits)}, assign=True)


CHANGES: list[Callable[[nn.Module], None]] = [
    in_place, under_inference, by_data, through_data, by_numpy, by_dlpack, by_storage, set_anew, shared,
    loaded, assigned,
]  # fmt: skip


def layer_of(kind: str) -> tuple[PackedLayer, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if kind == "linear":
        return linear(64, 5), torch.randn(2, 64, generator=generator)
    return conv(32, 6, pad=1), torch.randn(2, 32, 5, 5, generator=generator)


@pytest.mark.parametrize("kind", ["conv", "linear"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_bits_count(change: Callable[[nn.Module], None], kind: str) -> None:
    layer, x = layer_of(kind)
    expected = PackedLayer.from_bits(layer.form, other_bits(layer.bits)).eval()(x)
    before = layer.eval()(x)
    change(layer)
    assert torch.equal(layer(x), expected) and not torch.equal(before, expected)
    change(layer)  # back
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_bits_of_a_fused_layer_count(change: Callable[[nn.Module], None]) -> None:
    layer, x = layer_of("conv")
    fused = fuse(nn.Sequential(layer), x)
    (call,) = (m for m in fused.modules() if isinstance(m, FusedConv))
    expected = PackedLayer.from_bits(layer.form, other_bits(layer.bits)).eval()(x)
    fused(x)
    change(call)
    assert torch.equal(fused(x), expected)


def test_bits_that_were_used_are_not_swapped_by_torch() -> None:
    layer, x = layer_of("conv")
    other = other_bits(layer.bits)
    expected = PackedLayer.from_bits(layer.form, other.clone()).eval()(x)
    torch.utils.swap_tensors(layer.bits, other)
    assert torch.equal(layer.eval()(x), expected)
    with pytest.raises(RuntimeError, match="has weakref"):
        torch.utils.swap_tensors(layer.bits, other)


def test_bits_made_under_inference_mode_may_change() -> None:
    layer, x = layer_of("conv")
    with torch.inference_mode():
        layer.bits = layer.bits.clone()
        before = layer.eval()(x)
        layer.bits.bitwise_xor_(255)
        assert not torch.equal(layer(x), before)


def test_a_changed_scale_moves_the_border_along() -> None:
    layer = conv(32, 6, pad=1, two_levels=True, outside=0.3).eval()
    x = torch.randn(1, 32, 5, 5)
    layer(x)
    for change in (lambda: layer.scale.mul_(2), lambda: layer.window_scale.numpy().__imul__(3)):
        change()
        assert torch.equal(layer(x), PackedLayer.from_bits(layer.form, layer.bits).eval()(x))


def test_a_table_that_does_not_lie_in_one_piece_may_change() -> None:
    layer, x = layer_of("conv")
    fused = fuse(nn.Sequential(layer), x)
    (call,) = (m for m in fused.modules() if isinstance(m, FusedConv))
    whole = torch.ones(2 * len(call.shift))
    call.shift = whole[::2]
    before = fused(x)
    whole.numpy()[:] += 1
    torch.testing.assert_close(fused(x), before + 1, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["shift", "scale", "threshold", "window_scale"])
def test_a_table_that_is_negated_where_it_lies_counts(name: str) -> None:
    layer, x = conv(32, 6, pad=1, two_levels=True, thresholds=True, outside=0.3), torch.randn(2, 32, 5, 5)
    layer(x)
    table = getattr(layer, name)
    table.data = torch._neg_view(table)
    assert table.is_neg() and torch.equal(layer(x), FrozenLayer.product(layer, x))


def test_a_negated_table_of_a_fused_layer_counts() -> None:
    layer, x = layer_of("conv")
    fused = fuse(nn.Sequential(layer), x)
    (call,) = (m for m in fused.modules() if isinstance(m, FusedConv))
    fused(x)
    call.shift = torch._neg_view(call.shift)
    layer.shift = call.shift.clone()
    assert torch.equal(fused(x), layer.eval()(x))


def test_a_copy_computes_with_its_own_buffers() -> None:
    layer = conv(32, 6, pad=1, two_levels=True, outside=0.3)
    x = torch.randn(1, 32, 5, 5)
    before = layer(x)
    copied = copy.deepcopy(layer)
    copied.scale.mul_(2)
    copied.bits.bitwise_xor_(255)
    assert torch.equal(copied(x), PackedLayer.from_bits(copied.form, copied.bits).eval()(x))
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_negated_float_convolution_counts(name: str) -> None:
    stem = FloatConv(nn.Conv2d(3, 8, 3, padding=1)).eval()
    x = torch.randn(1, 3, 6, 6)
    stem(x)
    table = getattr(stem, name)
    table.data = torch._neg_view(table)
    expected = nn.functional.conv2d(x, stem.weight, stem.bias, padding=1)
    torch.testing.assert_close(stem(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_changed_float_convolution_counts(name: str) -> None:
    stem = FloatConv(nn.Conv2d(3, 8, 3, padding=1)).eval()
    x = torch.randn(1, 3, 6, 6)
    stem(x)
    getattr(stem, name).numpy()[:] *= -2
    expected = nn.functional.conv2d(x, stem.weight, stem.bias, padding=1)
    torch.testing.assert_close(stem(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["shift", "window_scale", "threshold", "scale"])
def test_a_table_that_is_read_in_another_way_counts(name: str) -> None:
    layer, x = conv(32, 6, pad=1, two_levels=True, thresholds=True), torch.randn(2, 32, 5, 5)
    layer(x)
    table = getattr(layer, name)
    table.as_strided_(table.shape, [0] * table.dim())
    assert torch.equal(layer(x), FrozenLayer.product(layer, x))
    table.resize_(1)
    with pytest.raises(UsageError):
        layer(x)


def test_a_float_convolution_follows_the_shape_of_its_weight() -> None:
    weight, bias = torch.randn(20, 3, 3, 3), torch.zeros(20)
    torch.ops.binarize.float_conv(torch.randn(1, 3, 8, 8), weight, bias, [1, 1], [0, 0])
    weight.data = weight.data.view(20, 27, 1, 1)
    x = torch.randn(1, 27, 4, 4)
    y = torch.ops.binarize.float_conv(x, weight, bias, [1, 1], [0, 0])
    torch.testing.assert_close(y, nn.functional.conv2d(x, weight))


@pytest.mark.parametrize("name", ["bits", "shift"])
def test_a_number_that_is_repeated_beyond_memory_is_refused(name: str) -> None:
    layer, x = layer_of("conv")
    layer(x)
    table = getattr(layer, name)
    table.as_strided_([1 << 40, 1 << 20][: table.dim()], [0] * table.dim())
    with pytest.raises((UsageError, CheckError)):
        layer(x)


def quantized(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.quint8)


def nested(tensor: Tensor) -> Tensor:
    return torch.nested.as_nested_tensor([tensor, tensor], layout=torch.jagged)


# What no layer can compute with -> what is said of it, and of an input.
BAD: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "None": (lambda t: None, "None"),
    "a word": (lambda t: "signs", "of type str"),
    "meta": (lambda t: t.to("meta"), "without memory|on meta"),
    "zeros": (lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype), "without memory"),
    "sparse": (lambda t: t.to_sparse(), "sparse"),
    "nested": (nested, "nested"),
    "old nested": (lambda t: torch.nested.nested_tensor([t, t]), "nested"),
    "quantized": (quantized, "quantized|quint8"),
    "mkldnn": (lambda t: t.float().to_mkldnn(), "mkldnn"),
    "complex": (lambda t: t.to(torch.complex64), "complex"),
    "one number": (lambda t: t.flatten()[0], r"\(\)"),
    "more": (lambda t: torch.stack([t, t]), r"\(2, |several"),
}  # fmt: skip


def of_kind(kind: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """(a model, the layer in it whose buffers are spoilt, what the model reads)."""
    torch.manual_seed(0)
    image = torch.randn(2, 32, 5, 5)
    if kind == "float convolution":
        made = FloatConv(nn.Conv2d(32, 8, 1))
        return made, made, image
    layer = conv(32, 6, pad=1, two_levels=True, thresholds=True, outside=0.3)
    if kind == "packed linear":
        layer, image = linear(64, 5), torch.randn(2, 64)
    if kind == "frozen":
        layer = FrozenLayer.of(layer.form, layer.lower).eval()
    if kind == "fused":
        fused = fuse(nn.Sequential(layer, conv(6, 4)), image)
        return fused, fused.fused__0, image
    return layer, layer, image


@pytest.mark.parametrize("kind", ["packed", "packed linear", "frozen", "fused", "float convolution"])
@pytest.mark.parametrize("bad", BAD)
def test_a_buffer_without_numbers_is_refused_by_name(kind: str, bad: str) -> None:
    model, layer, x = of_kind(kind)
    make, told = BAD[bad]
    model(x)
    # Tables that are None stand for what has no such term.
    may_lack = ("threshold", "window_scale", "border", "activation") if bad == "None" else ()
    for name, buffer in list(layer._buffers.items()):
        if buffer is None or name in may_lack or (name == "border" and kind != "fused"):  # made of others
            continue
        layer._buffers[name] = make(buffer)  # type: ignore[assignment]
        with pytest.raises((UsageError, CheckError), match=f"{name}.* (is|are|has) .*({told})"):
            model(x)
        layer._buffers[name] = buffer
    model(x)


@pytest.mark.parametrize("kind", ["packed", "packed linear", "frozen", "fused", "float convolution"])
def test_a_buffer_that_was_deleted_is_refused_by_name(kind: str) -> None:
    model, layer, x = of_kind(kind)
    for name, buffer in list(layer._buffers.items()):
        del layer._buffers[name]
        with pytest.raises(UsageError, match=f"{name} of {type(layer).__name__} was deleted"):
            model(x)
        layer._buffers[name] = buffer
    model(x)


@pytest.mark.parametrize("kind", ["packed", "packed linear", "frozen"])
@pytest.mark.parametrize("bad", [name for name in BAD if name not in ("zeros", "more")])
def test_an_input_without_numbers_is_refused(kind: str, bad: str) -> None:
    model, _, x = of_kind(kind)
    make, told = BAD[bad]
    with pytest.raises(UsageError, match=f"(is|are) .*({told})"):
        model(make(x))


@pytest.mark.parametrize("kind", ["packed", "packed linear", "frozen"])
def test_an_empty_batch_gives_an_empty_result(kind: str) -> None:
    model, _, x = of_kind(kind)
    assert model(x[:0]).shape == (0, *model(x).shape[1:])


def test_a_storage_that_was_made_shorter_is_refused() -> None:
    layer, x = layer_of("conv")
    layer.eval()(x)
    layer.bits.untyped_storage().resize_(8)
    with pytest.raises(UsageError, match="has 8 bytes of storage; expected 216: its storage was resized"):
        layer(x)


@pytest.mark.parametrize("size", [1, 7, 8, 63, 64, 65, 200])
def test_each_bit_of_a_memory_counts(size: int) -> None:
    memory = torch.arange(size, dtype=torch.uint8)
    found = {digest_of(memory)}
    for place in range(size):
        for bit in (1, 128):
            memory[place] ^= bit
            found.add(digest_of(memory))
            memory[place] ^= bit
    assert len(found) == 2 * size + 1


def test_two_turned_signs_of_floats_do_not_cancel_out() -> None:
    numbers = torch.ones(256)
    before = digest_of(numbers)
    numbers[[1, 17]] = -1
    assert digest_of(numbers) != before
    assert digest_of(torch.ones(16)) != digest_of(torch.ones(17))
    assert digest_of(torch.ones(0), numbers) != digest_of(numbers, torch.ones(0))
