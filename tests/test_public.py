"""The public names of the package, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import binarize

PUBLIC = [
    "BinarizeError",
    "Decision",
    "Part",
    "Plan",
    "Report",
    "Rule",
    "RuleSet",
    "Scheme",
    "__version__",
    "builtin_rule_sets",
    "calibrate",
    "convert",
    "errors",
    "evaluate",
    "export",
    "finetune",
    "freeze",
    "fuse",
    "harden",
    "load",
    "load_float_state_dict",
    "load_packed",
    "load_rule_set",
    "load_source",
    "pack",
    "plan",
    "save",
    "study",
    "trusting",
    "use_packed_forward",
]

# Used without a model: by `--help`, `rules validate`, shell completion, or to read a report.
WITHOUT_TORCH = [
    "binarize",
    "binarize.analysis",
    "binarize.cli",
    "binarize.commands.console.complete",
    "binarize.planning.cost",
    "binarize.commands.doctor",
    "binarize.errors",
    "binarize.planning.plan",
    "binarize.report.drawing.markdown",
    "binarize.report.data",
    "binarize.report.drawing.terminal",
    "binarize.rules",
]


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_public_names_are_these() -> None:
    assert binarize.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(binarize, name) is not None
    assert name in dir(binarize)


def test_importing_the_file_of_that_name_leaves_the_function() -> None:
    said = python(
        "import binarize.plan, binarize.conversion.convert, inspect\n"
        "print([inspect.isfunction(f) for f in (binarize.plan, binarize.convert)])"
    )
    assert said == "[True, True]\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'binarize' has no attribute 'binarise'"):
        binarize.binarise  # noqa: B018


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_importing_without_torch(module: str) -> None:
    heavy = {"torch", "torchvision", "timm", "matplotlib"}
    said = python(f"import sys, {module}; print(sorted({heavy!r} & sys.modules.keys()))")
    assert said == "[]\n"


def test_version_is_that_of_the_distribution() -> None:
    from configparser import ConfigParser
    from pathlib import Path

    setup = ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    assert binarize.__version__ == setup["metadata"]["version"]
