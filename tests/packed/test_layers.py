"""Frozen and packed layers: the formula against explicit sums, both ways of computing bit for bit, what is refused."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_layers import packed
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from binarize.errors import CheckError, UsageError
from binarize.kernels import variants as kernels
from binarize.kernels.bits import pack_bits
from binarize.packed.frozen.form import Form
from binarize.packed.frozen.layer import FrozenLayer
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def form_of(window: Window, seed: int = 0, **options: Any) -> Form:
    """A form with random numbers; `options` are its fields."""
    planes = options.pop("planes", 1)
    out_channels = window.out_channels
    tables = {
        "scale": randn(planes, out_channels, seed=seed),
        "shift": randn(out_channels, seed=seed + 1),
        "threshold": None
        if options.get("float_input")
        else randn(planes, window.in_channels, seed=seed + 2) / 4,
    }
    return Form(window, **{**tables, **options})


def both(form: Form, seed: int = 0) -> tuple[FrozenLayer, PackedLayer]:
    lower = randn(*form.window.weight_shape, seed=seed + 3) < 0
    return FrozenLayer.of(form, lower), PackedLayer.of(form, lower)


CONV = Window("conv", 4, 6, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))


def test_the_formula_by_hand() -> None:
    """One filter of two taps on a row of three pixels, two-valued both ways, padded with 0 on the left."""
    window = Window("conv", 1, 1, (2,), (1,), (1,), (1, 0))
    numbers = {"scale": 2.0, "shift": 0.5, "window_scale": 3.0}
    tables = {name: torch.tensor([value]) for name, value in numbers.items()}
    tables["scale"] = tables["scale"][None]
    form = Form(window, **tables, threshold=torch.tensor([[1.0]]), outside=0.25)
    layer = FrozenLayer.of(form, torch.tensor([[[False, True]]]))  # w = (+1, -1)
    x = torch.tensor([[[0.5, 1.0, 3.0]]])  # a = (-1, +1, +1)
    # dot = (-(-1), -1 - 1, 1 - 1), Sa = (-1, 0, 2), Sw = (-1, 0, 0), n = (1, 2, 2); E, F = A / 4, C / 4
    expected = [2 - 3 - 0.5 + 0.75 + 0.5, -4 + 0 + 0 + 1.5 + 0.5, 0 + 6 + 0 + 1.5 + 0.5]
    assert layer(x).tolist() == [[expected]]


def test_a_float_input_is_added_and_subtracted() -> None:
    window = Window("conv", 1, 1, (2,), (1,), (1,), (1, 0))
    tables = (torch.tensor([[2.0]]), torch.tensor([0.5]), torch.tensor([3.0]))
    form = Form(window, *tables, pad_value=4.0, float_input=True)
    layer = FrozenLayer.of(form, torch.tensor([[[False, True]]]))
    x = torch.tensor([[[1.0, 2.0]]])
    assert layer(x).tolist() == [[[2 * (4 - 1) + 3 * (4 + 1) + 0.5, 2 * (1 - 2) + 3 * (1 + 2) + 0.5]]]


WINDOWS = {
    "conv2d": (CONV, (2, 4, 7, 6)),
    "strided": (Window("conv", 40, 34, (3, 2), (2, 1), (1, 2), (1, 0, 2, 1)), (2, 40, 7, 6)),
    "groups": (Window("conv", 6, 9, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), groups=3), (2, 6, 5, 4)),
    "depthwise": (Window("conv", 33, 33, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), groups=33), (1, 33, 5, 4)),
    "reflect": (replace(CONV, padding_mode="reflect"), (2, 4, 7, 6)),
    "same": (replace(CONV, padding=(0, 0, 0, 0), stride=(2, 2), padding_mode="same"), (2, 4, 7, 6)),
    "conv1d": (Window("conv", 5, 7, (4,), (2,), (1,), (1, 2)), (3, 5, 11)),
    "conv3d": (Window("conv", 3, 4, (1, 2, 2), (1, 1, 1), (1, 1, 1), (1, 1, 0, 1, 0, 0)), (2, 3, 3, 4, 5)),
    "transposed": (
        Window("conv_transpose", 4, 6, (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), groups=2),
        (2, 4, 3, 4),
    ),
    "linear": (Window("linear", 70, 5), (3, 70)),
    "tokens": (Window("linear", 70, 5), (2, 3, 70)),
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"threshold": None},
    "thresholds": {},
    "two-level": {"window_scale": True, "outside": 0.3},
    "zero padding": {"outside": -0.7},
    "planes": {"planes": 3},
    "zero_one": {"zero_one": True, "window_scale": True},
    "minus one": {"pad_value": -1},
    "one": {"pad_value": 1, "window_scale": True},
    "float": {"float_input": True, "window_scale": True},
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("name", list(WINDOWS))
def test_frozen_and_packed_agree_in_every_bit(
    name: str, form: str, variants: tuple[kernels.Variant, ...]
) -> None:
    window, shape = WINDOWS[name]
    options = dict(FORMS[form])
    if options.get("window_scale"):
        options["window_scale"] = randn(window.out_channels, seed=9)
    frozen, packed = both(form_of(window, **options))
    x = randn(*shape, seed=5)
    expected = frozen(x)
    for variant in [*(v.name for v in variants), "reference"]:
        with kernels.use(variant):
            found = packed(x)
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    channels=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    sides=st.tuples(*[st.integers(0, 2)] * 4),
    groups=st.integers(1, 3),
    pad_value=st.sampled_from([-1, 0, 0, 1]),
    outside=st.sampled_from([0.0, 0.3, -2.0]),
    two_level=st.booleans(),
    last=st.booleans(),
)
def test_frozen_and_packed_agree_on_any_convolution(
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    sides: tuple[int, int, int, int],
    groups: int,
    pad_value: int,
    outside: float,
    two_level: bool,
    last: bool,
) -> None:
    inputs, outputs = (groups * n for n in channels)
    window = Window("conv", inputs, outputs, kernel, stride, dilation, sides, groups=groups)
    more = {"window_scale": randn(outputs, seed=9)} if two_level else {}
    frozen, packed = both(form_of(window, pad_value=pad_value, outside=outside, **more))
    x = randn(2, inputs, 9, 8, seed=5)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(packed(x), frozen(x))


def test_results_lie_in_memory_as_the_input_does() -> None:
    for layer in both(form_of(CONV)):
        x = randn(2, 4, 5, 6)
        assert layer(x).is_contiguous()
        last = layer(x.contiguous(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(last, layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_results_have_the_type_of_the_input(dtype: torch.dtype) -> None:
    frozen, packed = both(form_of(CONV))
    x = randn(2, 4, 5, 6).to(dtype)
    assert packed(x).dtype == dtype
    assert torch.equal(packed(x), frozen(x))


def test_float_parts_run_in_the_order_of_the_drawing() -> None:
    window = Window("linear", 3, 3)
    tables = (torch.ones(1, 3), torch.zeros(3))
    layer = FrozenLayer.of(Form(window, *tables), torch.zeros(3, 3, dtype=torch.bool))

    class Plus(nn.Module):
        def __init__(self, number: float) -> None:
            super().__init__()
            self.number = number

        def forward(self, x: Tensor) -> Tensor:
            return x * 10 + self.number

    layer.front, layer.norm, layer.shortcut, layer.activation = Plus(-25), Plus(1), Plus(2), Plus(3)
    x = torch.tensor([[2.0, 2.0, 3.0]])  # front: -5, -5, 5
    y = 10 * -1 + 1
    assert layer(x).tolist() == [[(y + 22) * 10 + 3, (y + 22) * 10 + 3, (y + 32) * 10 + 3]]
    layer.shortcut_inside = layer.activation_inside = False
    assert layer(x).tolist() == [[y, y, y]]


def test_layers_survive_copying_and_saving() -> None:
    x = randn(2, 4, 5, 6)
    for layer in both(form_of(CONV, outside=0.5)):
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        for other in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
            assert torch.equal(other(x), layer(x))
            assert other.form.outside == 0.5


@pytest.mark.parametrize("window", [Window("linear", 70, 40), CONV], ids=lambda window: window.kind)
def test_a_packed_layer_follows_its_buffers(window: Window) -> None:
    one, other = (packed(window, seed, thresholds=True, two_levels=True) for seed in (0, 1))
    x = randn(2, 4, 5, 6) if window.kernel else randn(3, 70)
    with torch.no_grad():
        wanted = other(x)
        assert not torch.equal(one(x), wanted)
        one.load_state_dict(other.state_dict())
        assert torch.equal(one(x), wanted)
        for name, buffer in packed(window, 2, thresholds=True, two_levels=True).named_buffers():
            setattr(one, name, buffer)
        assert torch.equal(one(x), packed(window, 2, thresholds=True, two_levels=True)(x))


@pytest.mark.parametrize("mode", ["export", "compile"])
def test_a_packed_linear_layer_is_recorded_as_its_operator(mode: str) -> None:
    layer, x = packed(Window("linear", 70, 40)), randn(3, 70)
    wanted = layer(x)
    if mode == "export":
        program = torch.export.export(nn.Sequential(layer), (x,))
        assert torch.ops.binarize.conv.default in {node.target for node in program.graph.nodes}
        assert torch.equal(program.module()(x), wanted)
    else:
        assert torch.equal(torch.compile(layer, fullgraph=True, backend="eager")(x), wanted)


@pytest.mark.parametrize("window", [CONV, Window("linear", 40, 6)], ids=["conv", "linear"])
@pytest.mark.parametrize("moved", ["shared", "shift", "threshold", "bits"])
def test_a_packed_layer_follows_its_buffers_to_another_memory(window: Window, moved: str) -> None:
    _, layer = both(form_of(window))
    x = randn(3, 4, 6, 7) if window is CONV else randn(3, 40)
    expected = layer(x)
    if moved == "shared":
        layer.share_memory()
    else:
        buffer = getattr(layer, moved)
        old = buffer.data
        buffer.data = old.clone()
        old.fill_(7)  # nobody may look there any more
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("window", [CONV, Window("linear", 40, 6)], ids=["conv", "linear"])
def test_a_packed_layer_is_traced_as_its_operator(window: Window) -> None:
    _, layer = both(form_of(window))
    x = randn(3, 4, 6, 7) if window is CONV else randn(3, 40)
    program = make_fx(layer)(x)
    assert "torch.ops.binarize" in program.code
    assert torch.equal(program(x + 1), layer(x + 1))


def test_a_packed_layer_exports_with_its_operator() -> None:
    layer = both(form_of(CONV, outside=0.5))[1]
    x = randn(2, 4, 5, 6)
    program = torch.export.export(layer, (x,))
    assert torch.ops.binarize.conv.default in {node.target for node in program.graph.nodes}
    assert torch.equal(program.module()(x), layer(x))


def test_models_can_ask_for_sizes_and_people_for_words() -> None:
    layer = both(form_of(CONV, planes=2))[1]
    assert (layer.in_channels, layer.out_channels, layer.kernel_size) == (4, 6, (3, 3))
    assert repr(layer).startswith(
        "PackedLayer(\n  conv2d, 4, 6, kernel=(3, 3), padding=(1, 1, 1, 1), planes=2"
    )
    linear = both(form_of(Window("linear", 7, 5)))[0]
    assert (linear.in_features, linear.out_features) == (7, 5)


def test_packed_bytes_count_bits_and_numbers() -> None:
    window = Window("conv", 3, 5, (3, 3), (1, 1), (1, 1), (0, 0, 0, 0))
    per_channel, uniform = randn(1, 3), torch.full((1, 3), 0.5)
    sizes = [both(form_of(window, threshold=t))[1].packed_bytes() for t in (None, uniform, per_channel)]
    assert sizes == [5 * 4 + 4 * 10, 5 * 4 + 4 * 11, 5 * 4 + 4 * 13]


WRONG: dict[str, dict[str, Any]] = {
    "scale of another shape": {"scale": torch.zeros(1, 5)},
    "scale of another type": {"scale": torch.zeros(1, 6, dtype=torch.float64)},
    "no planes": {"scale": torch.zeros(0, 6)},
    "shift": {"shift": torch.zeros(1)},
    "window_scale": {"window_scale": torch.zeros(1)},
    "threshold": {"threshold": torch.zeros(2, 4)},
    "padding with 2": {"pad_value": 2},
    "padding zeros and ones with -1": {"pad_value": -1, "zero_one": True},
    "planes without thresholds": {"planes": 2, "threshold": None},
    "planes of two-level filters": {"planes": 2, "window_scale": torch.zeros(6)},
    "a threshold for floats": {"float_input": True, "threshold": torch.zeros(1, 4)},
}


@pytest.mark.parametrize("name", list(WRONG))
def test_numbers_that_do_not_fit_together_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        form_of(CONV, **WRONG[name])


def test_a_stream_of_another_size_is_refused() -> None:
    form = form_of(CONV)
    bits = pack_bits(torch.zeros(6, 36, dtype=torch.bool))
    assert PackedLayer.from_bits(form, bits).lower.sum() == 0
    for wrong in (bits[:5], bits[:, :4], bits.short(), bits | 1 << 6):
        with pytest.raises(CheckError):
            PackedLayer.from_bits(form, wrong)
