"""Nothing in a file runs: refused calls are named, allowed classes are only filled."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from binarize.errors import SourceError, UntrustedSourceError
from binarize.sources import allowed_globals, load, load_pickle_safely
from binarize.sources.files.pickles.inert import Made
from binarize.sources.files.pickles.pickle_scan import scan


class Calls:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["alone", "beside weights", "inside a module"])
def test_code_in_a_pickle_is_named_and_does_not_run(zipped: bool, place: str, tmp_path: Path) -> None:
    evil = Calls(os.mkdir, str(tmp_path / "ran"))
    module = nn.Linear(2, 2)
    if place == "inside a module":
        module.extra = evil  # type: ignore[assignment]
    content = {"alone": evil, "beside weights": {"state_dict": module.state_dict(), "x": evil}}.get(
        place, module
    )
    torch.save(content, tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UntrustedSourceError, match=r"it calls posix\.mkdir") as caught:
        load(str(tmp_path / "bad.pt"))
    assert caught.value.exit_code == 4
    with pytest.raises(UntrustedSourceError):
        load(str(tmp_path / "bad.pt"), arch="torchvision:resnet18")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_code_in_any_protocol_does_not_run(protocol: int, tmp_path: Path) -> None:
    torch.save(Calls(os.mkdir, str(tmp_path / "ran")), tmp_path / "bad.pt", pickle_protocol=protocol)
    with pytest.raises(UntrustedSourceError):
        load(str(tmp_path / "bad.pt"))
    (tmp_path / "plain.pt").write_bytes(
        pickle.dumps(Calls(os.mkdir, str(tmp_path / "ran")), protocol=protocol)
    )
    with pytest.raises(UntrustedSourceError):
        load(str(tmp_path / "plain.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "function", [nn.Linear, torch.load, torch.hub.load, eval, getattr, __import__, nn.init.zeros_]
)
def test_nothing_but_harmless_names_is_called(function: object, tmp_path: Path) -> None:
    """Not even the constructor of an allowed module: it may do more than make an empty one."""
    torch.save({"model": Calls(function, 10, 10)}, tmp_path / "bad.pt")
    with pytest.raises(UntrustedSourceError, match="it calls"):
        load(str(tmp_path / "bad.pt"))


@pytest.mark.parametrize(
    "name",
    [
        "torch.nn.parallel.distributed DistributedDataParallel",
        "torchvision.models.feature_extraction DualGraphModule",
        "torchvision.models.resnet resnet18",
        "timm.models._hub load_state_dict_from_hf",
        "torch.nn.modules.module torch",
        "torch.nn.nowhere Linear",
        "torch.nn.modules.linear nothing",
    ],
)
def test_only_plain_module_classes_are_allowed(name: str, tmp_path: Path) -> None:
    """No process group, no compiled source text, no function that downloads."""
    pickled = b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n)\x81."  # named, then made empty
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("bad/data.pkl", pickled)
        archive.writestr("bad/version", "3\n")
    assert allowed_globals(tmp_path / "bad.pt") == []
    with pytest.raises(UntrustedSourceError, match=name.replace(" ", ".")):
        load_pickle_safely(tmp_path / "bad.pt")


def test_two_pickles_in_one_archive_are_refused(tmp_path: Path) -> None:
    """Otherwise the one that is inspected need not be the one that is loaded."""
    torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt", "a") as archive:
        archive.writestr("other/data.pkl", pickle.dumps(1))
    with pytest.raises(SourceError, match="two of its records have one name"):
        load(str(tmp_path / "net.pt"))


def test_tensors_must_fit_the_file(tmp_path: Path) -> None:
    """A pickle may claim more elements than the archive holds."""
    torch.save({"w": torch.zeros(3)}, tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    pickled = records["net/data.pkl"]
    assert pickled.count(b"K\x03tq") == 1
    records["net/data.pkl"] = pickled.replace(b"K\x03tq", b"K\xfatq")
    with zipfile.ZipFile(tmp_path / "big.pt", "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    with pytest.raises(SourceError, match="tensor data 0 is missing or cut short"):
        load_pickle_safely(tmp_path / "big.pt")


def test_what_training_scripts_write_beside_the_weights_is_read(tmp_path: Path) -> None:
    content = {
        "args": argparse.Namespace(lr=0.1, out=Path("runs") / "1"),
        "best": np.float64(0.5),
        "history": np.arange(3, dtype=np.float32),
        "weight": torch.ones(2),
    }
    torch.save(content, tmp_path / "net.pt")
    read = load_pickle_safely(tmp_path / "net.pt")
    assert isinstance(read, dict)
    assert (read["args"].lr, str(read["args"].out), float(read["best"])) == (0.1, "runs/1", 0.5)
    assert read["history"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("normalised", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_layers_with_normalised_weights_are_read(normalised, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    module = nn.Sequential(normalised(nn.Linear(4, 3))).eval()
    torch.save(module, tmp_path / "net.pt")
    x = torch.ones(2, 4)
    torch.testing.assert_close(load(str(tmp_path / "net.pt")).module(x), module(x), rtol=0, atol=0)


def test_users_own_permissions_survive(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    with torch.serialization.safe_globals([nn.Linear]):
        load_pickle_safely(tmp_path / "net.pt")
        assert nn.Linear in torch.serialization.get_safe_globals()
    before = set(torch.serialization.get_safe_globals())
    load_pickle_safely(tmp_path / "net.pt")
    assert set(torch.serialization.get_safe_globals()) == before


def test_allowed_globals_lists_modules_only(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "net.pt")
    assert allowed_globals(tmp_path / "net.pt") == [
        "torch.nn.modules.container.Sequential",
        "torch.nn.modules.linear.Linear",
    ]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_content_is_read_in_any_protocol(protocol: int, tmp_path: Path) -> None:
    content = {
        "a": [1, 2.5, "x", b"y", None, True, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), 1 << 80, {}, "\u00e4"],
        "b": {"c": [], (1, "d"): 2j, 2.5: torch.float16},
        3: {7},
        "e": bytearray(b"z"),
    }
    if protocol >= 4:
        content["d"] = frozenset({1})
    torch.save(content, tmp_path / "net.pt", pickle_protocol=protocol)
    assert load_pickle_safely(tmp_path / "net.pt") == content


@pytest.mark.parametrize("protocol", range(6))
def test_scan_sees_names_and_calls_without_making_anything(protocol: int, tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    data = pickle.dumps([Calls(os.mkdir, str(tmp_path / "ran")), module], protocol=protocol)
    found = scan(io.BytesIO(data))
    assert "posix.mkdir" in found.called
    assert "torch.nn.modules.linear.Linear" in found.names
    assert isinstance(found.root, list)
    assert all(isinstance(item, Made) for item in found.root)
    assert not (tmp_path / "ran").exists()
