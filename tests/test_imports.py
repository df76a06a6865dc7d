"""Imports point down one list of levels; only the command line and the terminal report draw on a terminal."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "binarize"

# From the bottom up. A unit is a file or a folder; it imports from its own level or a lower one.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("binarizers", "errors", "demo_data", "kernels"),
    ("rules", "analysis", "layers", "shortcuts", "capture", "sources"),
    ("plan", "cost"),
    ("passes",),
    ("rewrite", "report", "packed", "calibration", "bernoulli"),
    ("convert", "training", "export", "checkpoint"),
    ("study",),
    ("cli", "demo", "doctor"),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

# Files and folders that were split off a unit and count as part of it.
PART_OF = {
    "__main__": "cli",
    "agreement": "checkpoint",
    "atomic": "errors",
    "attention": "layers",
    "binary_product": "layers",
    "blocks": "analysis",
    "calibrate": "training",
    "bench": "checkpoint",
    "channels": "shortcuts",
    "checks": "convert",
    "claim": "errors",
    "commands": "cli",
    "conversion": "convert",
    "data_schema": "rules",
    "dataflow": "analysis",
    "edit_schema": "checkpoint",
    "exchange": "errors",
    "failures": "errors",
    "file_name": "errors",
    "fingerprint": "checkpoint",
    "float_twin": "convert",
    "float_weights": "convert",
    "foreign_layers": "layers",
    "generated": "rewrite",
    "gradient_bound": "layers",
    "layer_facts": "analysis",
    "leftovers": "errors",
    "liveness": "calibration",
    "migrations": "checkpoint",
    "name_pattern": "rules",
    "openvino_limits": "packed",
    "operations": "analysis",
    "owner": "errors",
    "packed.arguments": "kernels",
    "packed.geometry": "kernels",
    "packed.kernels": "kernels",
    "packed.layout": "kernels",
    "packed.native": "kernels",
    "packed.ops": "kernels",
    "packed.pack": "kernels",
    "packed.reference": "kernels",
    "packed_product": "layers",
    "packed_form": "checkpoint",
    "pointwise": "layers",
    "packing": "checkpoint",
    "shown_text": "errors",
    "special_file": "errors",
    "tensor_file": "errors",
    "trust": "errors",
    "parts": "rules",
    "plan_activations": "plan",
    "plan_edits": "plan",
    "plan_homes": "plan",
    "plan_origins": "plan",
    "plan_parts": "plan",
    "plan_shortcuts": "plan",
    "plan_thresholds": "plan",
    "planner": "plan",
    "record": "checkpoint",
    "record_schema": "checkpoint",
    "replacement": "errors",
    "provenance": "checkpoint",
    "rivals": "checkpoint",
    "rule_document": "rules",
    "rule_files": "rules",
    "rule_match": "rules",
    "rule_schema": "rules",
    "rule_set": "rules",
    "rule_text": "rules",
    "rule_values": "rules",
    "scheme": "rules",
    "seal": "errors",
    "seen": "report",
    "unpacking": "checkpoint",
    "walk": "plan",
    "window_attention": "layers",
}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]


def unit(parts: list[str]) -> str:
    """The unit that a module belongs to: what stands under `binarize` on the way to it, from the top."""
    both = ".".join(parts[:2])
    return PART_OF.get(both) or PART_OF.get(parts[0], parts[0])


def own_unit(path: Path) -> str:
    return unit(list(path.relative_to(PACKAGE).with_suffix("").parts))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """The unit of every `binarize` module that a file imports anywhere in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (
            (unit(module.split(".")[1:]), node.lineno) for module in modules if module.startswith("binarize.")
        )


def test_every_file_has_a_level() -> None:
    assert not {own_unit(path) for path in FILES} - LEVEL.keys(), "say in LEVELS or PART_OF where these stand"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_down(path: Path) -> None:
    upward = [
        f"line {line}: {name}" for name, line in imports(path) if LEVEL.get(name, 0) > LEVEL[own_unit(path)]
    ]
    assert not upward


def test_units_import_each_other_without_a_circle() -> None:
    reads: dict[str, set[str]] = {}
    for path in FILES:
        others = {name for name, _ in imports(path) if name in LEVEL} - {own_unit(path)}
        reads.setdefault(own_unit(path), set()).update(others)
    while leaves := [name for name, targets in reads.items() if not targets]:
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
    assert users <= {"cli.py", "commands", "demo.py", "doctor.py", "report/console.py", "report/terminal.py"}
