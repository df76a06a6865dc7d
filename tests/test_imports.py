"""Imports point down one list of levels; only the command line and the terminal report draw on a terminal."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "binarize"

# From the bottom up. A file or folder imports from its own level or a lower one. Files split off another file
# stand beside it.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("binarizers", "errors", "demo_data"),
    (
        "rules",
        *("rule_match", "scheme"),
        "analysis",
        *("dataflow",),
        "layers",
        "shortcuts",
        "capture",
        "sources",
    ),
    ("plan", "cost"),
    ("passes",),
    ("rewrite", "report", "packed", "calibrate", "bernoulli"),
    ("convert", "training", "export", "checkpoint"),
    ("cli", "commands", "demo", "doctor"),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]


def unit(dotted: str) -> str:
    """`"binarize.capture.tape"` -> `"capture"`, what the levels speak of."""
    return dotted.split(".")[1]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every `binarize` module that a file imports anywhere in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (
                (alias.name, node.lineno) for alias in node.names if alias.name.startswith("binarize.")
            )
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "binarize":
                yield from ((f"binarize.{alias.name}", node.lineno) for alias in node.names)
            elif node.module and node.module.startswith("binarize."):
                yield node.module, node.lineno


def test_every_file_has_a_level() -> None:
    unknown = {Path(name).parts[0].removesuffix(".py") for name in NAMES} - LEVEL.keys()
    assert not unknown, "say in LEVELS where these stand"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_down(path: Path) -> None:
    own = LEVEL[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
    upward = [f"line {line}: {name}" for name, line in imports(path) if LEVEL.get(unit(name), 0) > own]
    assert not upward


def test_files_and_folders_import_each_other_without_a_circle() -> None:
    reads: dict[str, set[str]] = {}
    for path in FILES:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        reads.setdefault(own, set()).update(unit(name) for name, _ in imports(path) if unit(name) in LEVEL)
    while leaves := [name for name, targets in reads.items() if not targets - {name}]:
        for name in leaves:
            del reads[name]
        for targets in reads.values():
            targets.difference_update(leaves)
    assert not reads


def test_only_commands_and_the_terminal_report_import_typer_or_rich() -> None:
    users = set()
    for path, name in zip(FILES, NAMES, strict=True):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(module.split(".")[0] in ("typer", "rich", "click") for module in modules):
                users.add(Path(name).parts[0] if name.startswith("commands") else name)
    assert users <= {"cli.py", "commands", "demo.py", "doctor.py", "report/terminal.py"}
