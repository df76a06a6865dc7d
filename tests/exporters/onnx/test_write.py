"""The ONNX file against the packed model: every kind of layer by its bits, what it takes, what the check finds out."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_layers import conv, linear
from side_by_side import BINARY, FLOAT_INPUTS, MIRRORED, SideBySide
from torch import Tensor, nn

import binarize
from binarize.binarizers.adabin import Maxout
from binarize.binarizers.reactnet import RPReLU
from binarize.errors import CheckError, UsageError
from binarize.kernels.bits import stream_bytes
from binarize.layers.layer import Threshold
from binarize.layers.shortcuts import MeanChannels, RepeatChannels
from binarize.packed.layers import PackedLayer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from binarize.exporters.onnx.check import (  # noqa: E402
    check_file,
    open_file,
    run,
)
from binarize.exporters.onnx.graph import (  # noqa: E402
    record_graph,
    save_graph,
)
from binarize.exporters.onnx.layers import spell_out  # noqa: E402
from binarize.exporters.onnx.write import (  # noqa: E402
    Standard,
    write,
)


def loaded(path: Path) -> Any:
    return onnx.load(path)


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> tuple[SideBySide, Path, dict[str, Any]]:
    """(all kinds of packed layers, their file, what its writer found out)."""
    model = SideBySide(BINARY | MIRRORED | FLOAT_INPUTS).eval()
    path = tmp_path_factory.mktemp("onnx") / "kinds.onnx"
    return model, path, dict(write(model, (model.inputs(1), {}), path).facts)


@pytest.mark.parametrize("optimized", [True, False])
def test_products_have_the_packed_layers_bits(
    every_kind: tuple[SideBySide, Path, dict[str, Any]], optimized: bool
) -> None:
    model, path, _ = every_kind
    inputs = model.inputs(5)
    found = run(open_file(path, optimized=optimized), (inputs, {}))
    with torch.no_grad():
        expected = model(*inputs)
    names = [*BINARY, *MIRRORED, *FLOAT_INPUTS]
    pairs = {name: (a, b) for name, a, b in zip(names, found, expected, strict=True)}
    assert [name for name in (*BINARY, *MIRRORED) if not torch.equal(*pairs[name])] == []
    for name in FLOAT_INPUTS:
        torch.testing.assert_close(*pairs[name], rtol=1e-5, atol=1e-5)


def test_the_writer_says_how_much_it_compared(every_kind: tuple[SideBySide, Path, dict[str, Any]]) -> None:
    _, _, facts = every_kind
    assert facts["verified"] is True and facts["any_batch"] is True
    assert facts["exact_products"] == len(BINARY) + len(MIRRORED)
    assert facts["float_products"] == len(FLOAT_INPUTS)


def test_weights_take_one_bit_and_operators_are_standard(
    every_kind: tuple[SideBySide, Path, dict[str, Any]],
) -> None:
    model, path, _ = every_kind
    proto = loaded(path)
    assert {node.domain for node in proto.graph.node} == {""}
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 20)]
    assert not proto.functions and [one.key for one in proto.metadata_props] == ["binarize.version"]
    stored = {one.name: len(one.raw_data) for one in proto.graph.initializer}
    for i, layer in enumerate(model.layers):
        window = layer.window
        rows = stream_bytes(window.layer_order(torch.empty(window.weight_shape)).shape)
        assert stored.pop(f"layers.{i}.bits") == rows
    # What is left has at most a number a channel.
    assert max(stored.values()) <= 4 * 1025


def with_parts(layer: PackedLayer, **parts: nn.Module) -> PackedLayer:
    for name, part in parts.items():
        setattr(layer, name, part)
    return layer


def residual() -> nn.Module:
    """Shortcuts that pool, repeat and average; activations inside the layers and behind them; one layer read twice."""
    torch.manual_seed(3)
    pooled = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), RepeatChannels(2))
    twice = conv(8, 8, pad=1, two_levels=True, outside=0.5)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8),
        with_parts(conv(8, 8, pad=1, thresholds=True), shortcut=nn.Identity(), activation=Maxout(8)),
        twice, RPReLU(8), twice,
        with_parts(conv(8, 16, pad=1, stride=2, outside=0.2), norm=nn.BatchNorm2d(16), shortcut=pooled),
        nn.PReLU(16),
        with_parts(conv(16, 8, 1), shortcut=MeanChannels(2), front=Threshold(16)),
        nn.MaxPool2d(2), nn.Flatten(), nn.Hardtanh(),
        with_parts(linear(8 * 2 * 2, 16, thresholds=True), shortcut=MeanChannels(2, channel_dim=-1)),
        Maxout(16, channel_dim=-1), nn.Linear(16, 10),
    )  # fmt: skip
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and not isinstance(
                model.get_submodule(name.rpartition(".")[0]), PackedLayer
            ):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, Any, list[Any]]:
    """(a residual network, its file, an example, the places where the check looks)."""
    model, example = residual(), ((torch.randn(2, 3, 8, 8),), {})
    recorded = record_graph(model, example, "onnx", 20, any_batch=True)
    probes = spell_out(recorded, Standard(), "onnx")
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    save_graph(recorded.model, path)
    return model, path, example, probes


def test_a_residual_network(network: tuple[nn.Module, Path, Any, list[Any]]) -> None:
    model, path, example, probes = network
    checked = check_file(path, model, probes, example, any_batch=True)
    assert checked.exact_products == 6 and checked.float_products == 0
    assert checked.float_difference < 1e-5
    assert checked.end_to_end.same_class == checked.end_to_end.inputs == 8
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(run(open_file(path), ((x,), {}))[0], model(x), rtol=1e-4, atol=1e-4)


def test_the_file_names_its_batch_and_its_layers(network: tuple[nn.Module, Path, Any, list[Any]]) -> None:
    graph = loaded(network[1]).graph
    (given,) = graph.input
    assert given.name == "input"
    assert [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim] == ["batch", 3, 8, 8]
    named = [node.name for node in graph.node if node.name]
    assert named == ["2", "3", "3.call2", "6", "8", "12"]


@pytest.mark.parametrize("constant", ["2.bits", "3.scale.0", "6.scale.0", "12.shift"])
def test_a_changed_product_is_found(
    network: tuple[nn.Module, Path, Any, list[Any]], constant: str, tmp_path: Path
) -> None:
    model, path, example, probes = network
    wrong = changed(path, constant, tmp_path)
    with pytest.raises(CheckError, match=rf"values of {constant.split('.')[0]} differ on equal inputs"):
        check_file(wrong, model, probes, example, any_batch=True)


def test_a_changed_float_layer_is_found(
    network: tuple[nn.Module, Path, Any, list[Any]], tmp_path: Path
) -> None:
    model, path, example, probes = network
    with pytest.raises(CheckError, match=r"what 2 reads differs by .* expected at most 1e-04"):
        check_file(changed(path, "0.weight", tmp_path), model, probes, example, any_batch=True)
    with pytest.raises(CheckError, match=r"output 0 differs by"):
        check_file(changed(path, "14.weight", tmp_path), model, probes, example, any_batch=True)


def changed(path: Path, constant: str, folder: Path) -> Path:
    """A file with another number in one of its constants: floats halved, one bit of bytes turned."""
    proto = loaded(path)
    (found,) = [one for one in proto.graph.initializer if one.name == constant]
    values = onnx.numpy_helper.to_array(found).copy()
    values.flat[0] = values.flat[0] ^ 1 if values.dtype == "uint8" else values.flat[0] / 2
    found.CopyFrom(onnx.numpy_helper.from_array(values, constant))
    onnx.save(proto, folder / "wrong.onnx")
    return folder / "wrong.onnx"


# --- converted networks


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("BasicBlocks", "adabin"),
        ("Decoder", "reactnet"),
        ("Tokens", "ienet"),
        ("FeedsFloat", "binaryconnect"),
    ],
)
@pytest.mark.sampled(3)
def test_converted_networks(
    name: str, scheme: str, converted: Callable[..., nn.Module], tmp_path: Path
) -> None:
    done = binarize.export(converted(name, scheme), "onnx", tmp_path / "net.onnx")
    assert done.files == (tmp_path / "net.onnx",)
    facts = done.to_json()
    assert facts["verified"] is True
    assert facts["exact_products"] + facts["float_products"] > 0
    # A product takes about a kilobyte of operators, whatever its size.
    operators = 2048 * (facts["exact_products"] + facts["float_products"] + 1)
    assert facts["theory"] < facts["bytes"] < facts["theory"] + operators


class Fixed(nn.Module):
    """Takes two images at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = conv(3, 4, pad=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).reshape(2, -1)


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    written = write(Fixed().eval(), ((torch.randn(2, 3, 4, 4),), {}), tmp_path / "net.onnx")
    assert written.facts["any_batch"] is False and written.facts["inputs"] == 8
    (given,) = loaded(tmp_path / "net.onnx").graph.input
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [2, 3, 4, 4]


def test_half_precision(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(20, 40), linear(40, 10), nn.Linear(10, 4)).half().eval()
    restored = linear(40, 10)
    model[1] = restored  # its numbers are float32 in models of any type
    written = write(copy.deepcopy(model), ((torch.randn(1, 20).half(),), {}), tmp_path / "net.onnx")
    assert written.facts["exact_products"] == 1


# --- what it refuses


def test_bfloat16_is_refused_by_name(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(20, 40).bfloat16(), linear(40, 10)).eval()
    with pytest.raises(UsageError, match=r"0\.weight is in bfloat16.*convert the model to float32 first"):
        write(model, ((torch.randn(2, 20).bfloat16(),), {}), tmp_path / "net.onnx")


class Untranslated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.double())


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Untranslated, r"export onnx: layers\.1: ONNX has no translation of prims\.bessel_j0"),
        (Double, r"export onnx: layers\.1.*: .*it reads torch\.float64; convert the model to float32"),
        (Asks, r"export onnx: layers\.1: torch\.export cannot record it"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(
    make: type[nn.Module], reason: str, tmp_path: Path
) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Hardtanh(), make())

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    with pytest.raises(UsageError, match=reason):
        write(Model().eval(), ((torch.randn(1, 4),), {}), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["onnx", "qonnx"])
def test_without_onnxruntime_the_message_says_what_to_install(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("binarize.exporters.onnx.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"onnxruntime.*try: pip install 'torch-binarize\[onnx\]'"):
        binarize.export("no-such-folder", format)


class _WithNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = conv(16, 8)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": self.layer(x), "step": 3, "name": "conv", "rest": [x.mean(), None]}


def test_numbers_and_texts_among_the_outputs_are_left_out(tmp_path: Path) -> None:
    x = torch.randn(2, 16, 6, 6)
    model = _WithNumber().eval()
    write(model, ((x,), {}), tmp_path / "net.onnx")
    found = run(open_file(tmp_path / "net.onnx"), ((x,), {}))
    assert len(found) == 2 and torch.equal(found[0], model(x)["y"])
