"""What a file is, from its bytes; what is not a model says what it is instead."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from binarize.errors import SourceError, UntrustedSourceError
from binarize.sources import load
from binarize.sources.files.checksums import damaged_record

MODEL = nn.Sequential(nn.Linear(3, 2))


def write_torchscript(path: Path) -> None:
    torch.jit.trace(MODEL, torch.zeros(1, 3)).save(str(path))


def write_exported(path: Path) -> None:
    torch.export.save(torch.export.export(MODEL, (torch.zeros(1, 3),)), path)


def write_half(path: Path) -> None:
    torch.save(MODEL, path)
    path.write_bytes(path.read_bytes()[:400])


def write_half_safetensors(path: Path) -> None:
    save_file(MODEL.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-4])


def write_flipped_weight(path: Path) -> None:
    with torch.no_grad():
        MODEL[0].weight.fill_(0.125)
    torch.save(MODEL, path)
    content = bytearray(path.read_bytes())
    content[content.index(MODEL[0].weight.detach().numpy().tobytes())] ^= 1
    path.write_bytes(content)


def write_other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme.txt", "hello")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_torchscript, "a TorchScript program, whose Python classes are gone; give the module"),
        (write_exported, "an exported program (.pt2), a flat graph without modules; give the module"),
        (write_half, "truncated or damaged"),
        (write_half_safetensors, "truncated or damaged safetensors file: expected 168 bytes, found 164"),
        (write_flipped_weight, "damaged: the checksum of its record"),
        (write_other_zip, "a zip archive without a model"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(bytes(range(200, 256))), "starts with c8 c9 ca cb cc cd ce cf"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda path: path.write_text("<!DOCTYPE html>"), "a failed download?"),
        (lambda path: path.write_text('{"a": 1}'), "text (JSON?)"),
        (lambda path: path.write_text("import torch\n"), "FILE.py:make_model"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n"), "HDF5"),
        (lambda path: path.write_bytes(b"GGUF\x03\0\0\0"), "GGUF"),
        (
            lambda path: path.write_bytes(b"\0" * 257 + b"ustar" + b"\0" * 250),
            "a tar archive; unpack it first",
        ),
    ],
)
def test_what_is_no_model_is_named(write, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "net.pt"
    write(path)
    with pytest.raises(SourceError) as caught:
        load(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert caught.value.exit_code == 4


def test_plain_pickle_needs_trust(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(pickle.dumps(MODEL))
    with pytest.raises(
        UntrustedSourceError, match="a plain pickle, which cannot be read without running code"
    ):
        load(str(tmp_path / "net.pt"))
    assert type(load(str(tmp_path / "net.pt"), trust_pickle=True).module) is nn.Sequential


def test_module_in_the_oldest_format_needs_trust(tmp_path: Path) -> None:
    torch.save(MODEL, tmp_path / "net.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UntrustedSourceError, match=r"format of torch before 1\.6"):
        load(str(tmp_path / "net.pt"))
    assert type(load(str(tmp_path / "net.pt"), trust_pickle=True).module) is nn.Sequential


def test_files_saved_without_checksums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(MODEL, tmp_path / "net.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    load(str(tmp_path / "net.pt"))


def test_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a folder; expected a model file"):
        load(str(tmp_path))
    (tmp_path / "best.pt").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"it holds best\.pt"):
        load(str(tmp_path))
    (tmp_path / "binarize.json").write_text(json.dumps({"plan": {"name": "adabin"}}))
    with pytest.raises(SourceError, match="already converted by binarize with scheme 'adabin'"):
        load(str(tmp_path))


def test_python_file_asks_for_the_function(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("x = 1\n")
    with pytest.raises(SourceError, match=r"as in .*net\.py:make_model"):
        load(str(tmp_path / "net.py"))


def test_checksums_find_the_damaged_record(tmp_path: Path) -> None:
    write_flipped_weight(tmp_path / "net.pt")
    assert damaged_record(tmp_path / "net.pt") == "net/data/0"
    torch.save(MODEL, tmp_path / "net.pt")
    assert damaged_record(tmp_path / "net.pt") is None
