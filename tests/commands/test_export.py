"""`binarize export`: what it shows, what it writes, which exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nets
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import binarize
from binarize.cli import app
from binarize.exporters.c.check import host_compiler


def run(*words: str | Path, **env: str) -> Result:
    """One command in this process; stdout and stderr apart."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160", **env})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with two binary layers."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
    binary = binarize.convert(model, "bnn", example_input=nets.pictures(8, size=8))
    return binarize.save(binary, tmp_path_factory.mktemp("saved") / "a net")


def test_export_shows_sizes_and_how_it_was_checked(folder: Path) -> None:
    if host_compiler() is None:
        pytest.skip("no C compiler")
    result = run("export", folder, "--format", "c", "--force")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("constants")
    assert "one bit a binary weight" in result.stdout and "static buffers" in result.stdout
    assert "Compiled and run on 8 inputs: the packed model's numbers bit for bit" in result.stdout
    assert f"wrote {folder}/a net.c" in result.stderr.replace("\n", "")
    assert "void a_net_run(const float *input, float *output)" in (folder / "a net.c").read_text()


def test_export_reads_the_packed_file_where_there_is_one(folder: Path, tmp_path: Path) -> None:
    run("export", folder, "-f", "c", "-o", tmp_path / "net.c")
    binarize.pack(folder, force=True)
    run("export", folder, "-f", "c", "-o", tmp_path / "packed" / "net.c")
    expected = (tmp_path / "net.c").read_text()
    assert expected == (tmp_path / "packed" / "net.c").read_text()
    alone = shutil.copy(folder / "packed.safetensors", tmp_path / "alone")
    run("export", alone, "-f", "c", "-o", tmp_path / "alone.d" / "net.c")
    assert expected == (tmp_path / "alone.d" / "net.c").read_text()


def test_export_as_json(folder: Path, tmp_path: Path) -> None:
    document = json.loads(run("export", folder, "-f", "c", "-o", tmp_path / "n.c", "--json").stdout)
    assert document["format"] == "c"
    assert document["files"] == [str(tmp_path / "n.c")]
    assert document["theory"] <= document["constants"] <= document["theory"] + 1024
    assert document["ram"] > 0


@pytest.mark.parametrize(
    ("format", "files", "said"),
    [
        ("pt2", ["net.pt2"], "2 calls of the packed operators; load it with torch.export.load after"),
        ("openvino", ["net.xml", "net.bin"], "2 BinaryConvolutions."),
    ],
)
def test_export_of_programs(folder: Path, tmp_path: Path, format: str, files: list[str], said: str) -> None:
    if format == "openvino":
        pytest.importorskip("openvino")
    target = tmp_path / files[0]
    result = run("export", folder, "-f", format, "-o", target)
    assert result.exit_code == 0, result.stderr
    assert said in result.stdout and "one bit a binary weight, and numbers" in result.stdout
    assert "the packed model's" in result.stdout.replace("\n", " ")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(files)
    again = run("export", folder, "-f", format, "-o", target)
    assert again.exit_code == 2
    assert "exists already; --force" in again.stderr


def test_openvino_finds_weights_by_the_name(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    result = run("export", folder, "-f", "openvino", "-o", tmp_path / "net")
    assert result.exit_code == 2
    assert "its name must end in .xml" in result.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_it_says_that_nothing_was_checked(folder: Path, tmp_path: Path) -> None:
    result = run("export", folder, "-f", "c", "-o", tmp_path / "n.c", PATH=str(tmp_path), CC="")
    assert result.exit_code == 0, result.stderr
    assert "the file was not compiled, nor compared" in result.stderr
    assert "bit for bit" not in result.stdout
    assert (tmp_path / "n.c").exists()


def test_export_to_onnx_shows_the_size_and_how_it_was_checked(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = run("export", folder, "-f", "onnx", "-o", tmp_path / "net.onnx")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("file") and "one bit a binary weight, and numbers" in result.stdout
    assert "Batches of any size." in result.stdout
    assert "2 binary products with the packed model's bits on equal inputs" in result.stdout.replace(
        "\n", " "
    )
    assert "same class on 8 of 8" in result.stdout
    assert "wrote" in result.stderr and (tmp_path / "net.onnx").exists()


def test_export_to_qonnx_warns_of_what_finn_does_not_build(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = run("export", folder, "-f", "qonnx", "-o", tmp_path / "net.onnx", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["bipolar_quants"] == 4 and document["verified"] is True
    assert "padded with 0 behind the sign" in document["warnings"][0]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("no-such-folder", "-f", "c"), 4, "no-such-folder: no such folder"),
        (
            (".", "-f", "onx"),
            2,
            '--format "onx" is none of onnx, qonnx, openvino, pt2, c; did you mean "onnx"?',
        ),
        ((".",), 2, "--format"),
    ],
)
def test_what_cannot_be_exported_says_why(words: tuple[str, ...], code: int, message: str) -> None:
    result = run("export", *words)
    assert result.exit_code == code
    assert message in result.stderr
