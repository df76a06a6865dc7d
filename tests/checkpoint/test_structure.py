"""A module without its weights survives the file; what cannot is said, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from binarize.checkpoint.structure import load_structure, save_structure
from binarize.errors import SourceError, UntrustedSourceError
from binarize.modules.tensors import tied_tensors
from binarize.sources import build


class Own(nn.Module):
    """A class that no allow-list knows."""


def test_structure_keeps_shapes_flags_and_buffers_that_no_state_dict_holds(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3).half(), nn.BatchNorm2d(8).eval())
    module[0].bias.requires_grad_(False)
    module[1].register_buffer("table", torch.arange(5.0), persistent=False)
    assert save_structure(module, tmp_path / "structure.pt") == []
    again = load_structure(tmp_path / "structure.pt")
    wanted, found = module.state_dict(), again.state_dict()
    assert {key: (v.shape, v.dtype) for key, v in found.items()} == {
        key: (v.shape, v.dtype) for key, v in wanted.items()
    }
    assert not any(tensor.is_meta for tensor in found.values())
    assert [part.training for part in again.modules()] == [True, True, False]
    assert [p.requires_grad for p in again.parameters()] == [True, False, True, True]
    torch.testing.assert_close(again[1].table, torch.arange(5.0), rtol=0, atol=0)


def test_structure_gives_the_same_function_once_the_weights_are_back(tmp_path: Path) -> None:
    """Swin keeps index tables in buffers outside of its state dict."""
    torch.manual_seed(0)
    module = build("timm:test_vit").eval()
    assert save_structure(module, tmp_path / "structure.pt") == []
    again = load_structure(tmp_path / "structure.pt")
    again.load_state_dict(module.state_dict())
    x = torch.randn(1, 3, 160, 160)
    torch.testing.assert_close(again(x), module(x), rtol=0, atol=0)


def test_structure_holds_no_weights(tmp_path: Path) -> None:
    module = nn.Linear(1000, 1000)
    save_structure(module, tmp_path / "structure.pt")
    assert (tmp_path / "structure.pt").stat().st_size < 10_000
    assert all(p.is_meta for p in load_structure(tmp_path / "structure.pt", meta=True).parameters())
    assert not module.weight.is_meta


def test_tied_tensors_stay_one(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    assert tied_tensors(module) == [["0.weight", "2.weight"]]
    save_structure(module, tmp_path / "structure.pt")
    again = load_structure(tmp_path / "structure.pt")
    assert again[2].weight is again[0].weight
    assert tied_tensors(again) == tied_tensors(module)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda module: module.append(Own()), "test_structure.Own"),
        (lambda module: module[0].register_forward_hook(print), "0 has hooks"),
        (lambda module: setattr(module, "act", lambda x: x), "it cannot be pickled"),
    ],
)
def test_what_cannot_be_kept_is_said_and_nothing_written(spoil, reason: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    module = nn.Sequential(nn.Linear(2, 2))
    spoil(module)
    reasons = save_structure(module, tmp_path / "structure.pt")
    assert len(reasons) == 1
    assert reason in reasons[0]
    assert not (tmp_path / "structure.pt").exists()


def test_other_files_are_no_structure(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(SourceError, match="not a structure file"):
        load_structure(tmp_path / "net.pt")
    with pytest.raises(SourceError, match="cannot be read"):
        load_structure(tmp_path / "missing.pt")
    torch.save({"format": "binarize structure 1", "module": Own(), "tied": []}, tmp_path / "own.pt")
    with pytest.raises(UntrustedSourceError, match=r"test_structure\.Own"):
        load_structure(tmp_path / "own.pt")


def test_shapes_ask_for_no_more_memory_than_the_weights_have(tmp_path: Path) -> None:
    save_structure(nn.Linear(1000, 1000), tmp_path / "structure.pt")
    load_structure(tmp_path / "structure.pt", limit=4_004_000)
    with pytest.raises(SourceError, match=r"its shapes ask for 4,004,000 bytes"):
        load_structure(tmp_path / "structure.pt", limit=4_003_999)


@pytest.mark.parametrize("tied", [None, 3, [torch.zeros(2)], [["0.weight", torch.zeros(2)]], [[]]])
def test_a_damaged_list_of_tied_tensors_is_refused(tied: object, tmp_path: Path) -> None:
    content = {"format": "binarize structure 1", "module": nn.Linear(2, 2), "tied": tied}
    torch.save(content, tmp_path / "structure.pt")
    with pytest.raises(SourceError, match="list of tied tensors"):
        load_structure(tmp_path / "structure.pt")
