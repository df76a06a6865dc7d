"""What is loaded, packed or exported is the model in the folder now, whatever file an earlier one left there."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import nets
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import binarize
from binarize.checkpoint.save import replace_model
from binarize.cli import app
from binarize.errors import CheckError, SourceError, UsageError
from binarize.exporters.prepare import compared
from binarize.packed.file.format import PackedModel, read_file, write_file
from binarize.packed.freeze import frozen_record
from binarize.packed.packing import PACKED

X = nets.pictures(3, size=8)


def small(scheme: str = "bnn") -> nn.Module:
    """A network of torch's own modules: its folder needs no source."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    return binarize.convert(model, scheme, example_input=nets.pictures(4, size=8))


def trained(model: nn.Module, by: float = 1.0) -> nn.Module:
    """The same conversion with other weights, binary and float ones."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)), alpha=by)
    return model.eval()


@pytest.fixture
def stale(tmp_path: Path) -> Path:
    """A folder that was packed, and trained since."""
    folder = binarize.save(small(), tmp_path / "net")
    binarize.pack(folder)
    replace_model(trained(binarize.load(folder)), folder)
    assert (folder / PACKED).exists()
    return folder


def expected(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return binarize.freeze(binarize.load(folder))(X)


def strip(path: Path, *keys: str) -> None:
    """Make a file what older versions wrote."""
    contents = read_file(path)
    about = {key: value for key, value in contents.about.items() if key not in keys}
    write_file(path, PackedModel(contents.layers, contents.rest, about), contents.kept_as)


def test_a_stale_folder_is_packed_anew_in_memory_with_a_warning(stale: Path) -> None:
    before = (stale / PACKED).read_bytes()
    with pytest.warns(
        UserWarning, match="was made of other weights than those in the folder now; they were packed"
    ):
        model = binarize.load_packed(stale)
    assert torch.equal(model(X), expected(stale))
    assert (stale / PACKED).read_bytes() == before


def test_a_file_that_is_up_to_date_is_read_without_a_word(stale: Path) -> None:
    binarize.pack(stale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (stale, stale / PACKED):
            assert torch.equal(binarize.load_packed(path)(X), expected(stale))


def test_a_stale_file_named_itself_is_refused_and_read_where_no_model_stands_beside(stale: Path) -> None:
    with pytest.raises(SourceError, match=r"belongs to another model than .*: it was made of other weights"):
        binarize.load_packed(stale / PACKED)
    (stale.parent / "alone").mkdir()
    moved = (stale / PACKED).rename(stale.parent / "alone" / PACKED)
    assert binarize.load_packed(moved)(X).shape == (3, 4)


def test_what_is_made_anew_keeps_its_rest_as_the_stale_file_did(stale: Path) -> None:
    binarize.pack(stale, rest="fp16")
    replace_model(trained(binarize.load(stale)), stale)
    with pytest.warns(UserWarning, match="packed anew"):
        anew = binarize.load_packed(stale)
    binarize.pack(stale, rest="fp16")
    again = binarize.load_packed(stale)
    assert torch.equal(anew(X), again(X)) and not torch.equal(anew(X), expected(stale))


def test_pack_replaces_what_is_stale_and_says_so(stale: Path) -> None:
    packing = binarize.pack(stale)
    assert packing.replaced == "was made of other weights than those in the folder now"
    assert torch.equal(binarize.load_packed(stale)(X), expected(stale))
    with pytest.raises(UsageError, match="exists already; force=True"):
        binarize.pack(stale)
    replace_model(trained(binarize.load(stale)), stale)
    said = " ".join(CliRunner().invoke(app, ["pack", str(stale)], env={"COLUMNS": "300"}).stderr.split())
    assert f"replaced {stale / PACKED}, which was made of other weights than those in the folder now" in said


def test_another_plan_makes_a_file_stale(tmp_path: Path) -> None:
    folder = binarize.save(small("bnn"), tmp_path / "net")
    binarize.pack(folder)
    replace_model(small("bireal"), folder)
    with pytest.warns(UserWarning, match="packed anew"):
        assert torch.equal(binarize.load_packed(folder)(X), expected(folder))


def test_a_file_of_an_older_version_is_stale_beside_a_model_and_read_alone(stale: Path) -> None:
    strip(stale / PACKED, "made_of")
    with pytest.warns(
        UserWarning, match="does not say which weights it was made of, as files of older versions"
    ):
        assert torch.equal(binarize.load_packed(stale)(X), expected(stale))
    with pytest.raises(SourceError, match="belongs to another model"):
        binarize.load_packed(stale / PACKED)
    assert (
        binarize.pack(stale).replaced
        == "does not say which weights it was made of, as files of older versions"
    )


def test_a_file_of_an_older_version_that_is_named_itself_is_read_with_a_warning(tmp_path: Path) -> None:
    file = binarize.pack(binarize.save(small(), tmp_path / "net")).path
    strip(file, "made_of")
    with pytest.warns(UserWarning, match="older versions; it was read as it is"):
        assert torch.equal(binarize.load_packed(file)(X), expected(file.parent))


def test_a_stale_file_of_ones_own_class_is_refused_without_the_class(
    converted: Callable[..., nn.Module], tmp_path: Path
) -> None:
    folder = binarize.save(converted("Mlp", "bnn"), tmp_path / "net")
    binarize.pack(folder, model=nets.Mlp())
    replace_model(trained(binarize.load(folder, model=nets.Mlp())), folder)
    with pytest.raises(SourceError, match=r"other weights .* cannot be made anew: .*class is your own"):
        binarize.load_packed(folder)


def test_a_trained_copy_elsewhere_leaves_both_folders_right(tmp_path: Path) -> None:
    first = binarize.save(small(), tmp_path / "first")
    binarize.pack(first)
    second = binarize.save(trained(binarize.load(first)), tmp_path / "second")
    assert binarize.pack(second).replaced is None
    for folder in (first, second):
        assert torch.equal(binarize.load_packed(folder)(X), expected(folder))


def test_a_folder_replaced_while_it_is_packed_is_not_packed(
    stale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from binarize.packed.file import packed_form

    other = trained(binarize.load(stale), by=2.0)
    write = packed_form.write_file

    def meanwhile(*given: object) -> None:
        write(*given)
        replace_model(other, stale)

    before = (stale / PACKED).read_bytes()
    monkeypatch.setattr(packed_form, "write_file", meanwhile)
    with pytest.raises(CheckError, match="was replaced while it was packed; nothing was written"):
        binarize.pack(stale)
    assert (stale / PACKED).read_bytes() == before


# --- exports


def test_an_export_of_a_stale_folder_is_the_trained_model_and_says_so(stale: Path) -> None:
    ready = compared(stale, None, None)
    assert torch.equal(ready.model(X), expected(stale))
    assert ready.lines == ("Packed as trained: it equals the trained model's frozen form.",)
    assert len(ready.warnings) == 1 and "packed anew in memory" in ready.warnings[0]
    binarize.pack(stale)
    assert compared(stale, None, None).warnings == ()


@pytest.mark.parametrize("rest", ["fp32", "int8"])
def test_a_packed_file_that_lies_about_its_weights_is_not_exported(stale: Path, rest: str) -> None:
    binarize.pack(stale, rest=rest)
    contents = read_file(stale / PACKED)
    assert compared(stale, None, None).warnings == ()
    next(iter(contents.layers.values())).shift += 1
    write_file(stale / PACKED, contents, rest)
    with pytest.raises(CheckError, match="computes something else than the trained model's frozen form"):
        compared(stale, None, None)


def test_an_exported_file_says_what_it_was_made_of(stale: Path, tmp_path: Path) -> None:
    record = json.loads((stale / "binarize.json").read_text())["fingerprint"]["tensors"]
    assert frozen_record(binarize.freeze(binarize.load(stale))).made_of.weights == record
    done = binarize.export(stale, "pt2", tmp_path / "net.pt2")
    files = {"binarize.json": ""}
    torch.export.load(done.path, extra_files=files)
    assert json.loads(files["binarize.json"])["binarize.weights.sha256"] == record
    text = binarize.export(stale, "c", tmp_path / "net.c").path.read_text()
    assert f"binarize.weights.sha256: {record}\n" in text


def test_onnx_and_qonnx_have_files_of_their_own(stale: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    names = {binarize.export(stale, format, force=True).path for format in ("onnx", "qonnx")}
    assert names == {stale / "net.onnx", stale / "net.qonnx.onnx"}
    for name in names:
        said = {one.key: one.value for one in onnx.load(name).metadata_props}
        assert (
            said["binarize.weights.sha256"]
            == frozen_record(compared(stale, None, None).model).made_of.weights
        )


def test_openvino_says_what_it_computes_in_and_its_batch(stale: Path) -> None:
    openvino = pytest.importorskip("openvino")
    done = binarize.export(stale, "openvino")
    said = " ".join((*done.written.lines, *done.written.warnings))
    assert "Takes a batch of 1 only; model.reshape before compiling gives another." in said
    assert '{"INFERENCE_PRECISION_HINT": "f32"}' in said
    model = openvino.Core().read_model(done.path)
    assert len(model.get_rt_info(["binarize", "weights", "sha256"]).astype(str)) == 64
