"""OpenVINO models: packed layers with the packed model's bits, whatever of them is a BinaryConvolution."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nets
import pytest
import torch
from packed_layers import KINDS, Beside, Made, conv, linear, packed
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.errors import CheckError, UsageError
from binarize.exporters.prepare import prepared
from binarize.exporters.program import answers, record_program
from binarize.kernels.geometry import Geometry
from binarize.packed.freeze import Example
from binarize.packed.window import Window

pytest.importorskip("openvino")

from binarize.exporters.openvino.check import check_file, run_file
from binarize.exporters.openvino.graph import translate
from binarize.exporters.openvino.limits import why_float
from binarize.exporters.openvino.write import write

# Layers that the plugin runs on bits.
BINARY: dict[str, Made] = {
    "8 channels": ((8, 6, 5), lambda: conv(8, 7, pad=1)),
    "stride 2, dilation 2": ((16, 11, 9), lambda: conv(16, 6, 5, stride=2, dilation=2, pad=2)),
    "stride 3": ((16, 11, 9), lambda: conv(16, 6, stride=3, pad=2)),
    "7x7": ((16, 11, 9), lambda: conv(16, 6, 7, pad=2)),
    "padded with 1": ((24, 6, 5), lambda: conv(24, 7, pad=1, pad_value=1)),
    "padded with -1": ((24, 6, 5), lambda: conv(24, 7, pad=2, pad_value=-1)),
    "thresholds": ((40, 5, 5), lambda: conv(40, 6, pad=1, thresholds=True)),
    "three planes": ((24, 5, 5), lambda: conv(24, 6, pad=1, planes=3)),
    "two levels": ((24, 5, 5), lambda: conv(24, 6, pad=1, two_levels=True, outside=0.3)),
    "a large border": ((8, 12, 9), lambda: conv(8, 6, 5, pad=2, stride=2, outside=0.7)),
    "zero and one": ((24, 5, 5), lambda: conv(24, 6, pad=1, zero_one=True, two_levels=True)),
    "zero and one, padded with 1": ((24, 5, 5), lambda: conv(24, 6, pad=1, zero_one=True, pad_value=1)),
    "line": ((16, 14), lambda: conv(16, 8, 5, axes=1, pad=2, stride=2)),
    "linear": ((64,), lambda: linear(64, 11)),
    "tokens": ((3, 64), lambda: linear(64, 10, thresholds=True)),
}  # fmt: skip


def beside(kinds: dict[str, Made], rows: int) -> tuple[nn.Module, Example]:
    """The layers, and inputs half of which are halves: ties with thresholds, zeros of both signs."""
    generator = torch.Generator().manual_seed(7)
    inputs = [torch.randn(rows, *shape, generator=generator) for shape, _ in kinds.values()]
    for x in inputs:
        x[::2] = (2 * x[::2]).round() / 2
    return Beside([make() for _, make in kinds.values()]).eval(), (tuple(inputs), {})


def test_layers_on_bits_equal_ours(tmp_path: Path) -> None:
    model, example = beside(BINARY, rows=2)
    done = write(model, example, tmp_path / "net.xml")
    assert done.facts["binary_convolutions"] == len(BINARY)
    assert done.facts["float_products"] == {}
    for rows in (1, 2):
        batch = beside(BINARY, rows)[1]
        pairs = zip(BINARY, run_file(tmp_path / "net.xml", batch), answers(model, batch), strict=True)
        assert [name for name, a, b in pairs if not torch.equal(a, b)] == []


def test_layers_in_float_equal_ours(tmp_path: Path) -> None:
    kinds = {name: made for name, made in KINDS.items() if "float" not in name}
    model, example = beside(kinds, rows=2)
    done = write(model, example, tmp_path / "net.xml")
    said = done.facts["float_products"]
    assert said["layers.0"] == "12 input channels are no multiple of 8"
    assert list(said.values()).count("35 groups") == 1
    pairs = zip(kinds, run_file(tmp_path / "net.xml", example), answers(model, example), strict=True)
    assert [name for name, a, b in pairs if not torch.equal(a, b)] == []


def test_weights_take_one_bit(tmp_path: Path) -> None:
    layers = [conv(64, 64, pad=1), conv(64, 63, groups=1), conv(63, 64), conv(64, 64, float_input=True)]
    done = write(nn.Sequential(*layers).eval(), ((torch.randn(2, 64, 9, 9),), {}), tmp_path / "net.xml")
    weights = (tmp_path / "net.bin").stat().st_size
    assert abs(weights - done.facts["theory"]) <= 512
    assert done.lines[0] == "2 BinaryConvolutions."
    assert done.lines[1] == "As convolutions of +-1 in float: 2: 63 input channels are no multiple of 8."
    assert done.lines[2] == "1 layer with binary weights alone: float, weights kept as bits."


TRANSPOSED = Window("conv_transpose", 16, 8, (3, 3), (2, 2), (1, 1), (1, 1), (0, 0))


@pytest.mark.parametrize(
    ("layer", "shape", "why"),
    [
        (lambda: packed(TRANSPOSED), (16, 5, 4), "transposed"),
        (lambda: conv(16, 8, axes=3, pad=1), (16, 4, 5, 4), "3 dimensions"),
    ],
)
def test_layers_that_do_not_come_as_one_call_are_told(
    layer: Callable[[], nn.Module], shape: tuple[int, ...], why: str, tmp_path: Path
) -> None:
    model = nn.Sequential(layer(), nn.ReLU()).eval()
    done = write(model, ((torch.randn(2, *shape),), {}), tmp_path / "net.xml")
    assert done.facts["float_products"]["0"].startswith(why)
    assert not any("weights alone" in line for line in done.lines)


def test_half_precision(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), conv(16, 8), nn.Conv2d(8, 4, 3)).eval()
    for i in (0, 2):
        model[i].half()
    done = write(model, ((torch.randn(2, 3, 12, 12).half(),), {}), tmp_path / "net.xml")
    assert done.facts["layers"] == 1


def test_bfloat16_is_refused_by_name(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3).bfloat16(), conv(16, 8)).eval()
    with pytest.raises(UsageError, match=r"0\.weight is in bfloat16.*convert the model to float32 first"):
        write(model, ((torch.randn(2, 3, 12, 12).bfloat16(),), {}), tmp_path / "net.xml")


@pytest.mark.parametrize(
    "threshold", [0.0, -0.0, 0.5, -1.5, 1.1754944e-38, -1.1754944e-38, 3e38, float("inf"), -float("inf")]
)
def test_comparisons_at_the_edge(threshold: float, tmp_path: Path) -> None:
    """x >= threshold for the threshold itself, its neighbours, and zeros of both signs."""
    layer = conv(8, 3, 1)
    layer.threshold = torch.full((1, 8), threshold)
    t = torch.tensor(threshold)
    near = [t, t.nextafter(torch.tensor(9e38)), t.nextafter(torch.tensor(-9e38)), -t, t * 0, t * -0.0]
    x = torch.stack([*near, torch.tensor(1.0), torch.tensor(-1.0)]).nan_to_num(0.0)
    x[x.abs() < torch.finfo(torch.float32).tiny] = 0.0  # may be flushed
    model = nn.Sequential(layer).eval()
    write(model, ((torch.randn(1, 8, 1, 1),), {}), tmp_path / "net.xml")
    batch = ((x[:, None, None, None].expand(-1, 8, 1, 1).contiguous(),), {})
    assert torch.equal(run_file(tmp_path / "net.xml", batch)[0], answers(model, batch)[0])


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ({}, None),
        ({"groups": 2}, "2 groups"),
        ({"in_channels": 12}, "12 input channels"),
        ({"padding": (0, 0, 5, 5)}, "padded by 5"),
        ({"stride": (3, 3), "kernel": (3, 5)}, "steps of 3"),
        ({"stride": (3, 3), "kernel": (3, 3)}, None),
        ({"kernel": (9, 1)}, "a kernel of (9, 1)"),
    ],
)
def test_where_a_binary_convolution_computes_right(sizes: dict[str, object], why: str | None) -> None:
    geometry = Geometry(**{"in_channels": 16, "out_channels": 4, "kernel": (3, 3), **sizes})
    assert why_float(geometry) is None if why is None else why in str(why_float(geometry))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("BasicBlocks", "adabin"),
        ("Signal", "ienet"),
        ("Tokens", "reactnet"),
        ("Mlp", "binaryconnect"),
        ("Video", "bireal"),
        ("Decoder", "dorefa"),
        ("Keywords", "xnor"),
    ],
)
@pytest.mark.sampled(4)
def test_converted_networks(
    converted: Callable[..., nn.Module], name: str, scheme: str, tmp_path: Path
) -> None:
    model = converted(name, scheme)
    done = write(*prepared(model, nets.example(model), None), tmp_path / "net.xml")
    assert done.facts["verified"]
    assert done.facts["float_difference"] <= 1e-4


def test_what_openvino_does_not_know_is_refused_by_name() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i1e(x)

    model = nn.Sequential(conv(8, 8), nn.Sequential(Odd())).eval()
    program = record_program(model, ((torch.randn(2, 8, 5, 5),), {}), "openvino")
    with pytest.raises(UsageError, match=r"export openvino: 1\.0: .* does not translate aten\.special_i1e"):
        translate(program.exported)


def test_a_file_that_differs_is_a_failed_check(tmp_path: Path) -> None:
    example = ((torch.randn(1, 8, 5, 5),), {})
    model, other = (nn.Sequential(conv(8, 8, seed=seed), nn.ReLU()).eval() for seed in (0, 1))
    write(model, example, tmp_path / "net.xml")
    program = record_program(other, example, "openvino")
    with pytest.raises(CheckError, match="0 gives other numbers in OpenVINO"):
        check_file(tmp_path / "net.xml", other, program, translate(program.exported), [example])


def test_export_writes_both_files_and_says_how_they_were_checked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))
    binary = binarize.convert(model, "bireal", example_input=nets.pictures(4, size=8))
    done = binarize.export(binary, "openvino", tmp_path / "net.xml")
    assert [file.name for file in done.files] == ["net.xml", "net.bin"]
    words = "\n".join(done.written.lines)
    assert "1 BinaryConvolution." in done.written.lines
    assert "on 8 inputs: 1 packed layer with the packed model's bits" in words
    assert done.to_json()["same_class"] == 8
    x = F.interpolate(nets.pictures(5, size=8), size=8)
    found = run_file(done.path, ((x,), {}))[0]
    assert torch.equal(found.argmax(1), answers(prepared(binary, x, None)[0], ((x,), {}))[0].argmax(1))


class _Twice(nn.Module):
    """Two layers that read one tensor, and one that is called twice on it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(16, 8, pad=1, seed=1), conv(16, 8, 1, seed=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x), self.a(x)], 1)


def test_layers_that_read_one_tensor_are_told_apart(tmp_path: Path) -> None:
    """OpenVINO merges equal steps, whose own names are then gone."""
    done = write(_Twice().eval(), ((torch.randn(2, 16, 6, 6),), {}), tmp_path / "net.xml")
    assert done.facts["layers"] == 3
    assert done.facts["largest_difference"] == 0


def test_a_crash_of_openvino_is_told_in_words(tmp_path: Path) -> None:
    """Its plugin ends the process that runs it; the next export works again."""
    crashing = nn.Sequential(nn.ReplicationPad2d(1), conv(16, 8)).eval()
    with pytest.raises(
        UsageError, match="export openvino: 0: replicate padding, on which OpenVINO's CPU plugin"
    ) as told:
        write(crashing, ((torch.randn(2, 16, 8, 8),), {}), tmp_path / "bad.xml")
    assert re.search(r"plugin crashed on this model \(signal \d+, SIG\w+\)", str(told.value.__cause__))
    model = nn.Sequential(conv(16, 8)).eval()
    assert write(model, ((torch.randn(2, 16, 8, 8),), {}), tmp_path / "net.xml").facts["verified"]
