"""Programs of torch.export: loaded again, they compute the packed model's numbers for batches of any size."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nets
import pytest
import torch
from packed_layers import KINDS, Beside, conv
from torch import Tensor, nn

import binarize
from binarize.errors import CheckError, UsageError
from binarize.exporters.export import Written
from binarize.exporters.prepare import prepared
from binarize.exporters.program import Program, answers, record_program, with_rows
from binarize.exporters.pt2 import check, slim
from binarize.exporters.theory import constants_in_theory
from binarize.packed.freeze import Example
from binarize.packed.fused.fuse import fuse


def loaded(program: Program) -> nn.Module:
    """What the program is when it has been saved and read again."""
    file = io.BytesIO()
    slim(program.exported)
    torch.export.save(program.exported, file)
    file.seek(0)
    return torch.export.load(file).module()


def assert_same_bits(model: nn.Module, example: Example) -> None:
    program = record_program(model, example, "pt2")
    again = loaded(program)
    assert program.any_batch
    for rows in (1, 2, 5):
        batch = with_rows(example, rows, seed=rows)
        pairs = zip(answers(again, batch), answers(model, batch), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), rows


def test_every_kind_of_packed_layer() -> None:
    model = Beside([make() for _, make in KINDS.values()]).eval()
    x = [torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) for shape, _ in KINDS.values()]
    assert_same_bits(model, (tuple(x), {}))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("BasicBlocks", "adabin"),
        ("Signal", "ienet"),
        ("Tokens", "reactnet"),
        ("Mlp", "binaryconnect"),
        ("Video", "bireal"),
        ("Keywords", "bireal"),
    ],
)
@pytest.mark.sampled(3)
def test_converted_networks(converted: Callable[..., nn.Module], name: str, scheme: str) -> None:
    model = converted(name, scheme)
    assert_same_bits(*prepared(model, nets.example(model), None))


def test_a_fused_graph(converted: Callable[..., nn.Module]) -> None:
    packed, example = prepared(converted("BasicBlocks", "reactnet"), None, None)
    assert_same_bits(fuse(packed, *example[0]), example)


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(8, 8, pad=1)
        self.register_buffer("places", torch.randn(4, 8, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + self.places)


def test_a_model_that_fixes_its_batch() -> None:
    model, x = FixedBatch().eval(), torch.randn(4, 8, 5, 5)
    program = record_program(model, ((x,), {}), "pt2")
    assert not program.any_batch
    again = loaded(program)
    assert torch.equal(again(x), model(x))
    with pytest.raises((AssertionError, RuntimeError), match="equal to 4"):
        again(torch.randn(8, 8, 5, 5))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, Path]:
    """The program of a graph that was read from a packed file."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 256, 3), nn.BatchNorm2d(256)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 3))
    binary = binarize.convert(model, "bireal", example_input=nets.pictures(4, size=8))
    folder = binarize.save(binary, tmp_path_factory.mktemp("pt2") / "net")
    binarize.pack(folder)
    done = binarize.export(folder, "pt2")
    return done.written, done.path


def test_the_file_is_checked_in_a_process_of_its_own(saved: tuple[Written, Path]) -> None:
    written, path = saved
    words = "\n".join(written.lines)
    assert "loaded in a process of its own and run on batches of 1, 2 and 5" in words
    assert "after `import binarize.kernels.operators`" in words
    facts = written.facts
    assert facts["verified"] and facts["packed_calls"] == 1
    assert facts["bytes"] == path.stat().st_size


def test_weights_stay_packed_and_no_path_of_this_machine_is_told(saved: tuple[Written, Path]) -> None:
    written, path = saved
    with zipfile.ZipFile(path) as archive:
        numbers = sum(i.file_size for i in archive.infolist() if "/weights/weight_" in i.filename)
        graph = next(archive.read(name) for name in archive.namelist() if name.endswith("model.json"))
    assert written.facts["theory"] <= numbers <= written.facts["theory"] + 2048
    assert b".py" not in graph and b"torch.ops.binarize.conv" in graph


def test_without_the_operators_the_error_names_the_import(saved: tuple[Written, Path]) -> None:
    code = f"import torch; torch.export.load({str(saved[1])!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "import binarize.kernels.operators" in done.stderr


def test_a_program_that_differs_is_a_failed_check(saved: tuple[Written, Path]) -> None:
    model = torch.export.load(saved[1]).module()
    with torch.no_grad():
        model.get_buffer("3.shift").add_(1)
    with pytest.raises(CheckError, match="output 0 of a batch of 2 differs"):
        check(saved[1], model, [((nets.pictures(2, size=8),), {})])


def test_what_cannot_be_recorded_is_refused_by_name(converted: Callable[..., nn.Module]) -> None:
    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    model = nn.Sequential(conv(8, 8), nn.Sequential(Asks())).eval()
    with pytest.raises(
        UsageError, match=r"export pt2: 1\.0: torch\.export cannot record it \(GuardOnDataDep"
    ):
        record_program(model, ((torch.randn(2, 8, 5, 5),), {}), "pt2")


def test_theory_counts_bits() -> None:
    assert constants_in_theory(nn.Sequential(conv(64, 32, 3))) == 32 * 64 * 9 // 8 + 4 * (32 + 32)
