"""The door of the exporters: whatever is raised inside comes out as an error of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import binarize
from binarize.errors import CaptureError, CheckError, ResourceError, UsageError
from binarize.exporters.foreign import in_our_words


def test_our_own_errors_pass() -> None:
    with pytest.raises(CheckError, match="as it was"), in_our_words("c"):
        raise CheckError("as it was")


def run_as(code: str, *files: Path, **names: object) -> None:
    """Code that raises in the last of the files, which are called one by the other."""
    for file in reversed(files[1:]):
        names = {"inner": compile(code, str(file), "exec"), "names": dict(names)}
        code = "exec(inner, names)"
    exec(compile(code, str(files[0]), "exec"), dict(names))


OURS, TORCHS = (Path(package.__file__ or "").parent / "made_up.py" for package in (binarize, torch))


def test_an_error_of_a_library_names_it_and_another_format() -> None:
    with (
        pytest.raises(UsageError, match="export onnx: torch fails on the model") as told,
        in_our_words("onnx"),
    ):
        run_as("raise AttributeError('no such thing')", OURS, TORCHS)
    assert "try --format pt2" in str(told.value)
    assert isinstance(told.value.__cause__, AttributeError)


@pytest.mark.parametrize(
    "error", [KeyError("binarize/1/sign"), AttributeError("'int' object"), AssertionError()]
)
def test_a_fault_of_ours_is_told_as_one(error: Exception) -> None:
    with pytest.raises(CheckError, match="which is a fault of binarize") as told, in_our_words("openvino"):
        run_as("raise error", OURS, error=error)
    assert told.value.__cause__ is error
    assert type(error).__name__ in str(told.value)


def test_an_error_in_the_users_own_code_names_the_line() -> None:
    with (
        pytest.raises(CaptureError, match=r"test_foreign.py:\d+: your own code raised Zero"),
        in_our_words("c"),
    ):
        raise ZeroDivisionError


def test_a_full_disk_is_told_as_that() -> None:
    with pytest.raises(ResourceError, match="make room"), in_our_words("pt2"):
        raise OSError(28, "No space left on device")
