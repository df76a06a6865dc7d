"""Tensors in a file whose bytes depend on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from binarize.disk.tensor_file import save_tensors

TENSORS = {"b": torch.arange(3.0), "a": torch.ones(2, dtype=torch.uint8)}


def test_the_bytes_do_not_depend_on_the_order_of_texts(tmp_path: Path) -> None:
    texts = {f"key{i}": f"ä{i}" for i in range(20)}
    save_tensors(TENSORS, tmp_path / "one", texts)
    save_tensors(dict(reversed(TENSORS.items())), tmp_path / "two", dict(reversed(texts.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with safe_open(tmp_path / "one", "pt") as file:
        assert file.metadata() == texts
        assert all(torch.equal(file.get_tensor(name), value) for name, value in TENSORS.items())


def test_a_folder_that_is_not_there_is_an_error_of_the_disk_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        save_tensors(TENSORS, tmp_path / "nowhere" / "file", {})
