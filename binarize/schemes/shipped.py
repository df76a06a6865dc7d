"""The parts that this package has, read from its source files: nothing is imported for that."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

__all__ = ["BINARIZERS", "binarizer_files", "part_options", "shipped_parts"]

BINARIZERS = "binarize.binarizers."
_FOLDER = Path(__file__).parents[1] / "binarizers"


@cache
def binarizer_files() -> list[str]:
    """The names of the files of `binarize.binarizers`."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__")


@cache
def _classes(file: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse((_FOLDER / f"{file}.py").read_text(encoding="utf-8"))
    found = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")
    # A module has a base; a plain record of numbers has none.
    return {node.name: node for node in found if node.bases and not any(map(_is_function, node.bases))}


def _is_function(base: ast.expr) -> bool:
    """Whether a base class is torch.autograd.Function: the gradient of a part, and no part itself."""
    return isinstance(base, ast.Attribute) and base.attr == "Function"


def shipped_parts() -> list[str]:
    """The names of all parts in `binarize.binarizers`."""
    return [f"{file}.{name}" for file in binarizer_files() for name in _classes(file)]


def part_options(name: str) -> list[str] | None:
    """The arguments that a shipped part's own constructor names; None where its source does not say."""
    file, _, class_name = name.rpartition(".")
    if file not in binarizer_files() or class_name not in _classes(file):
        return None
    for node in _classes(file)[class_name].body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments = [*node.args.args[1:], *node.args.kwonlyargs]
            return [argument.arg for argument in arguments]
    return None
