"""The registry of formats: what it accepts, what it refuses, what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import binarize
from binarize.errors import UsageError


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r'"onx" is none of onnx, .*, c; did you mean "onnx"\?'):
        binarize.export("folder", "onx")


def test_a_model_in_memory_needs_a_path() -> None:
    with pytest.raises(UsageError, match="needs a path"):
        binarize.export(nn.Linear(2, 2), "c")


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "net.c").write_text("mine")
    with pytest.raises(UsageError, match="exists already; force=True"):
        binarize.export("folder", "c", tmp_path / "net.c")


def test_a_model_that_was_not_converted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not made by binarize\.convert"):
        binarize.export(nn.Linear(2, 2), "c", tmp_path / "net.c")
    assert not list(tmp_path.iterdir())
