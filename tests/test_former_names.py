"""What older pickles and programs name is found where it is now."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import binarize
from binarize.former_names import FORMER


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_hands_on_what_the_new_ones_hold(name: str) -> None:
    former = importlib.import_module(name)
    for place in FORMER[name]:
        module = importlib.import_module(place)
        for public in getattr(module, "__all__", []):
            assert getattr(former, public) is getattr(module, public)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        former.nothing  # noqa: B018


def test_the_function_of_a_former_name_stays_the_function() -> None:
    importlib.import_module("binarize.plan")
    assert callable(binarize.plan)


def test_a_program_that_reads_an_exported_file_finds_the_operators() -> None:
    code = "import binarize.packed.ops, torch; torch.ops.binarize.conv.default"
    subprocess.run([sys.executable, "-c", code], check=True)
