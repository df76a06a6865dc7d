"""The C file against the packed model with its float sums in order: every kind of layer, bit for bit."""

from __future__ import annotations

import copy
import math
import shutil
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from packed_layers import KINDS, Made, conv, linear, packed
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.binarizers.adabin import Maxout
from binarize.binarizers.reactnet import RPReLU
from binarize.binarizers.xnorpp import ChannelScale
from binarize.errors import CheckError, UsageError
from binarize.exporters.c.check import run_on_host
from binarize.exporters.c.in_order import in_order
from binarize.exporters.c.tables import identifier
from binarize.exporters.c.write import translate
from binarize.exporters.prepare import prepared
from binarize.layers.layer import Threshold
from binarize.layers.shortcuts import MeanChannels, RepeatChannels
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window


def noise(*shape: int) -> Tensor:
    """Some of it in halves, so that comparisons meet ties, zeros among them."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    x[::2] = (2 * x[::2]).round() / 2
    return x


def assert_same_bits(model: nn.Module, compiler: str, *shape: int, flags: tuple[str, ...] = ()) -> None:
    """The C file yields the packed model's bits for five inputs of this shape."""
    model, x = model.eval(), noise(5, *shape)
    with torch.no_grad(), in_order():
        expected = model(x).flatten(1)
    source, _ = translate(model, x[:1], "net")
    found = run_on_host(source, x, expected.shape[1], compiler, ("-Werror", "-O1", *flags))
    assert torch.equal(found, expected)


def with_parts(layer: PackedLayer, **parts: nn.Module) -> PackedLayer:
    for name, part in parts.items():
        setattr(layer, name, part)
    return layer


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A module whose float parameters and statistics are noise, its variances positive. Packed layers stay."""
    torch.manual_seed(3)
    module = make()
    if isinstance(module, PackedLayer):
        return module
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.randn(tensor.shape).abs() + 0.5
                    if name.endswith("var")
                    else torch.randn(tensor.shape)
                )
    return module


class Beside(nn.Module):
    """Layers that read a part of the input each, their results one after the other: one program for all of them."""

    def __init__(self, layers: dict[str, Made]) -> None:
        super().__init__()
        self.shapes = [shape for shape, _ in layers.values()]
        self.layers = nn.ModuleList(seeded(make) for _, make in layers.values())

    @property
    def width(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)

    def each(self, x: Tensor) -> list[Tensor]:
        parts = x.split([math.prod(shape) for shape in self.shapes], 1)
        return [
            layer(part.unflatten(1, shape)).flatten(1)
            for part, shape, layer in zip(parts, self.shapes, self.layers)
        ]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.each(x), 1)


def assert_each_same_bits(layers: dict[str, Made], compiler: str) -> None:
    model = Beside(layers).eval()
    x = noise(5, model.width)
    with torch.no_grad(), in_order():
        expected = model.each(x)
    widths = [part.shape[1] for part in expected]
    source, _ = translate(model, x[:1], "net")
    found = run_on_host(source, x, sum(widths), compiler, ("-Werror", "-O1")).split(widths, 1)
    assert [name for name, a, b in zip(layers, found, expected) if not torch.equal(a, b)] == []


def transposed(axes: int, **form: Any) -> PackedLayer:
    window = Window("conv_transpose", 8, 6, (3,) * axes, (2,) * axes, (1,) * axes, (1,) * axes, (1,) * axes)
    return packed(window, **form)


def bordered(mode: Any) -> PackedLayer:
    return packed(Window("conv", 8, 6, (3, 3), (1, 1), (1, 1), (1, 2, 2, 1), padding_mode=mode))


OTHERS: dict[str, Made] = {
    "transposed": ((8, 5, 6), lambda: transposed(2, two_levels=True, outside=0.3)),
    "transposed lines": ((8, 9), lambda: transposed(1, thresholds=True)),
    "reflected": ((8, 5, 6), lambda: bordered("reflect")),
    "replicated": ((8, 5, 6), lambda: bordered("replicate")),
    "circular": ((8, 5, 6), lambda: bordered("circular")),
    "tokens": ((5, 40), lambda: linear(40, 7, thresholds=True)),
    "float tokens": ((5, 40), lambda: linear(40, 7, float_input=True, two_levels=True)),
}


@pytest.mark.parametrize("layers", [KINDS, OTHERS])
def test_packed_layers(layers: dict[str, Made], compiler: str) -> None:
    assert_each_same_bits(layers, compiler)


def test_a_layer_alone_compiles_without_warnings(compiler: str) -> None:
    assert_same_bits(nn.Sequential(transposed(1)), compiler, 8, 9, flags=("-O2",))


class Inception(nn.Module):
    """Two ways through one input, side by side; a slice, a padding and transposed axes around them."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv(6, 4, pad=1), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x[:, 1:, ::2], (1, 1, 0, 1), value=0.5)
        a, b = self.right(x).chunk(2, 1)
        y = torch.cat([self.left(x), a * b - 0.5, x], 1).transpose(2, 3)
        return y.flatten(2).mean(2) * 3


FLOATS: dict[str, Made] = {
    "conv2d": ((6, 9, 8), lambda: nn.Conv2d(6, 8, 3, stride=2, padding=(2, 1), dilation=2, groups=2)),
    "conv1d": ((4, 15), lambda: nn.Conv1d(4, 6, 3, padding="same", bias=False)),
    "linear": ((50,), lambda: nn.Linear(50, 9)),
    "batch norm": ((6, 4, 4), lambda: nn.BatchNorm2d(6)),
    "one slope": ((6, 4, 4), lambda: nn.PReLU()),
    "slopes": ((6, 4, 4), lambda: nn.PReLU(6)),
    "RPReLU": ((6, 4, 4), lambda: RPReLU(6)),
    "Maxout": ((6, 4, 4), lambda: Maxout(6)),
    "factors": ((6, 4, 4), lambda: ChannelScale(6)),
    "threshold": ((6, 4), lambda: Threshold(6)),
    "clamps": ((30,), lambda: nn.Sequential(nn.Hardtanh(-0.7, 1.2), nn.LeakyReLU(0.1), nn.ReLU6(), nn.ReLU(True))),
    "max pool": ((3, 9, 7), lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
    "average pool": ((3, 9, 7), lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)),
    "padded average": ((3, 9, 7), lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True)),
    "pools of lines": ((3, 9), lambda: nn.Sequential(nn.MaxPool1d(2), nn.AvgPool1d(2))),
    "global average": ((3, 6, 4), lambda: nn.Sequential(nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten())),
    "channels": ((6, 4, 4), lambda: nn.Sequential(RepeatChannels(4), MeanChannels(3))),
    "nothing": ((6, 4, 4), lambda: nn.Sequential(nn.Identity(), nn.Flatten(), nn.Dropout())),
    "several ways": ((7, 7, 5), Inception),
}  # fmt: skip


def test_float_layers(compiler: str) -> None:
    assert_each_same_bits(FLOATS, compiler)


def residual() -> nn.Module:
    """Shortcuts that pool, repeat and average; activations inside the layers and behind them."""
    pooled = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), RepeatChannels(2))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        with_parts(conv(8, 8, pad=1, thresholds=True), shortcut=nn.Identity(), activation=Maxout(8)),
        with_parts(conv(8, 16, pad=1, stride=2, outside=0.2), norm=nn.BatchNorm2d(16), shortcut=pooled),
        RPReLU(16),
        with_parts(conv(16, 8, 1), shortcut=MeanChannels(2), front=Threshold(16)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        with_parts(linear(8 * 2 * 2, 16, thresholds=True), shortcut=MeanChannels(2, channel_dim=-1)),
        nn.Linear(16, 10),
    )


def test_a_residual_network_with_sanitizers(compiler: str, tmp_path: Path) -> None:
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    command = [compiler, *flags, str(tmp_path / "main.c"), "-o", str(tmp_path / "main")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no sanitizers")
    assert_same_bits(residual(), compiler, 3, 8, 8, flags=flags)


def chain() -> nn.Module:
    """Only signs are read between the first layer and the last."""
    return nn.Sequential(
        conv(3, 20, pad=1, thresholds=True), nn.MaxPool2d(2), nn.Hardtanh(),
        conv(20, 12, pad=1, seed=1), nn.BatchNorm2d(12), nn.PReLU(12), nn.Flatten(), linear(12 * 9, 40),
        nn.ReLU(), linear(40, 5, thresholds=True),
    )  # fmt: skip


def test_where_only_signs_are_read_no_float_is_computed(compiler: str) -> None:
    model = seeded(chain).eval()
    for module in model:
        if isinstance(module, PackedLayer):
            module.take_parts(module)
    source, integers = translate(model, noise(1, 3, 6, 6), "net")
    assert integers == 3
    body = source.text[source.text.rindex("net_run") :]
    calls = [line.split("(")[0].strip() for line in body.splitlines()[2:-1]]
    assert calls == ["pack", "binary_bits", "max_pool_bits", "binary_bits", "binary_bits", "binary"]
    assert "conv(" not in source.text and "prelu(" not in source.text
    assert_same_bits(model, compiler, 3, 6, 6)


def test_a_sign_that_changes_over_twice_is_read_of_floats(compiler: str) -> None:
    bent = nn.PReLU(4)
    nn.init.constant_(bent.weight, -1.0)  # |x|, larger than 1 on both sides
    model = nn.Sequential(conv(3, 4), bent, linear_behind(4))
    assert translate(model, noise(1, 3, 4, 4), "net")[1] == 0
    assert_same_bits(model, compiler, 3, 4, 4)


def linear_behind(channels: int) -> nn.Module:
    layer = conv(channels, 3, 1, thresholds=True)
    layer.threshold.fill_(1.0)
    return layer


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("BasicBlocks", "adabin"), ("ConvReluPool", "ienet"), ("Signal", "xnorpp"), ("FeedsFloat", "binaryconnect")],
)  # fmt: skip
def test_converted_networks_in_a_file(
    name: str, scheme: str, converted: Callable[..., nn.Module], compiler: str, tmp_path: Path
) -> None:
    done = binarize.export(converted(name, scheme), "c", tmp_path / "net.c")
    assert done.files == (tmp_path / "net.c",)
    assert done.written.facts["verified"] is True
    assert "bit for bit" in " ".join(done.written.lines)
    text = done.path.read_text(encoding="ascii")
    assert text.count("#include") == 1 and "malloc(" not in text
    assert "void net_run(const float *input, float *output)" in text


def test_constants_take_hardly_more_than_theory(converted: Callable[..., nn.Module], tmp_path: Path) -> None:
    facts = binarize.export(converted("BasicBlocks", "bireal"), "c", tmp_path / "net.c").written.facts
    assert facts["theory"] <= facts["constants"] <= facts["theory"] + 1024
    if facts["code"] is not None:
        assert facts["constants"] + facts["code"] <= facts["theory"] + 8192


def test_the_text_says_the_same_every_time() -> None:
    texts = {translate(copy.deepcopy(residual_seeded()), noise(1, 3, 8, 8), "net")[0].text for _ in range(2)}
    assert len(texts) == 1


def residual_seeded() -> nn.Module:
    return seeded(residual).eval()


def test_odd_names_stay_out_of_the_code(compiler: str) -> None:
    names = ["*/ int x; /*", "größe", "a b", "a_b", "while", "1", "??/", "end\\"]
    model = nn.Sequential(OrderedDict((name, nn.Conv2d(2, 2, 1)) for name in names))
    assert_same_bits(model, compiler, 2, 3, 3)


@pytest.mark.parametrize(
    ("stem", "name"), [("3-layer net", "net_3_layer_net"), ("größe", "gr_e"), ("*", "net")]
)
def test_a_name_that_c_can_use(stem: str, name: str) -> None:
    assert identifier(stem) == name


def test_the_function_is_named_after_the_file(converted: Callable[..., nn.Module], tmp_path: Path) -> None:
    done = binarize.export(converted("Mlp"), "c", tmp_path / "3-layer net.c")
    assert "void net_3_layer_net_run(" in done.path.read_text(encoding="ascii")


def test_trained_and_frozen_give_the_same_text(converted: Callable[..., nn.Module], tmp_path: Path) -> None:
    trained = converted("ConvBnRelu", "bireal")
    sample = noise(1, 3, 16, 16)
    frozen = binarize.freeze(trained)
    texts = [prepared(model, None, None)[0] for model in (trained, frozen)]
    assert len({translate(model, sample, "net")[0].text for model in texts}) == 1
    assert isinstance(frozen, type(trained)) and all(type(m) is not PackedLayer for m in frozen.modules())


# --- what it refuses


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Numbers(nn.Module):
    def forward(self, x: Tensor) -> list[int]:
        return [len(x)]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cells(x)[0]


class Drops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x)


class Sorts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(1)[0]


REFUSED = {
    "layers.1.cells: gru has no C code: a recurrent layer": ((5, 4), Recurrent),
    "layers.1: conv3d has no C code: C takes 1-d and 2-d layers": ((2, 4, 4, 4), lambda: nn.Conv3d(2, 3, 3)),
    "layers.1: dropout draws random numbers": ((3, 4, 4), Drops),
    "layers.1: sort has no C code: what it yields depends on the numbers": ((5,), Sorts),
    "layers.1: an adaptive maximum from (5, 5) to (2, 2)": ((3, 5, 5), lambda: nn.AdaptiveMaxPool2d(2)),
    "layers.1: max_pool2d_with_indices has no C code": ((3, 4, 4), lambda: nn.MaxPool2d(2, return_indices=True)),
    "the model: its forward asks for the numbers of a tensor": ((3,), Asks),
    "the model: its forward yields no tensor": ((3,), Numbers),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(reason: str) -> None:
    shape, make = REFUSED[reason]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Hardtanh(), make())

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    with pytest.raises(UsageError) as error:
        translate(Model().eval(), noise(1, *shape), "net")
    assert reason in str(error.value)


def test_a_refused_export_leaves_nothing(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), Sorts(), nn.Linear(128, 2))
    x = noise(4, 3, 8, 8)
    model = binarize.convert(net, "bireal", example_input=x, binarize=["1"], calibrate=False)
    with pytest.raises(UsageError, match="export c: 3: sort has no C code"):
        binarize.export(model, "c", tmp_path / "net.c")
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_fails_is_a_failed_check() -> None:
    source, _ = translate(nn.Hardtanh(), noise(1, 3), "net")
    with pytest.raises(CheckError, match="false failed on the C file"):
        run_on_host(source, noise(1, 3), 3, shutil.which("false") or "false")


def test_photographs_through_a_chain(compiler: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), conv(8, 8, pad=1)).eval()
    x = nets.pictures(3, size=8)
    with torch.no_grad(), in_order():
        expected = model(x).flatten(1)
    source, _ = translate(model, x[:1], "net")
    assert torch.equal(run_on_host(source, x, expected.shape[1], compiler), expected)
