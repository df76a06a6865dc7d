"""Whatever bytes a file holds, only the project's own errors come out and nothing runs."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from binarize.checkpoint.structure import load_structure
from binarize.errors import SourceError
from binarize.sources import load

MODEL = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
# A name that the fuzzed call would make if it ran.
MARK = Path(tempfile.gettempdir()) / f"binarize-fuzz-{os.getpid()}"


class MakesAFolder:
    def __reduce__(self) -> object:
        return (os.mkdir, (str(MARK),))


def saved(content: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


SEEDS = {
    "module": saved(MODEL),
    "state dict": saved(MODEL.state_dict()),
    "checkpoint": saved({"model": MODEL.state_dict(), "epoch": 3}),
    "old state dict": saved(MODEL.state_dict(), zipped=False),
    "old module": saved(MODEL, zipped=False),
    "code": saved({"model": MODEL, "x": MakesAFolder()}),
    "old code": saved(MakesAFolder(), zipped=False),
    "safetensors": save(MODEL.state_dict()),
    "structure": saved({"format": "binarize structure 1", "module": MODEL, "tied": []}),
}


def records(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_pickle(content: bytes, pickled: bytes) -> bytes:
    """The same archive around another pickle, with checksums that agree."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, record in records(content).items():
            archive.writestr(name, pickled if name.endswith("/data.pkl") else record)
    return file.getvalue()


def read(content: bytes, *, meta: bool = False) -> None:
    """Loads `content` in every way; a SourceError or nothing at all may come out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        path.write_bytes(content)
        with suppress(SourceError):
            load(str(path), meta=meta)
        with suppress(SourceError):
            load(str(path), arch="torchvision:squeezenet1_1", meta=meta)
        with suppress(SourceError):
            load_structure(path)
    assert not MARK.exists()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(content: bytes) -> None:
    read(content)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([b"PK\x03\x04", b"\x80\x02", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x04"]),
    st.data(),
)
def test_random_bytes_behind_a_known_beginning(head: bytes, data: st.DataObject) -> None:
    read(head + data.draw(st.binary(max_size=200)))


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_truncated(name: str, data: st.DataObject) -> None:
    read(SEEDS[name][: data.draw(st.integers(0, len(SEEDS[name]) - 1))])


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.sampled(5)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_bytes(name: str, data: st.DataObject) -> None:
    content = bytearray(SEEDS[name])
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        content[place] = value
    read(bytes(content), meta=data.draw(st.booleans()))


@pytest.mark.parametrize("name", ["module", "state dict", "code", "structure"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_pickle_under_a_right_checksum(name: str, data: st.DataObject) -> None:
    original = next(record for key, record in records(SEEDS[name]).items() if key.endswith("/data.pkl"))
    changed = bytearray(original)
    places = st.integers(0, len(changed) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=3)):
        changed[place] = value
    read(with_pickle(SEEDS[name], bytes(changed)), meta=data.draw(st.booleans()))
