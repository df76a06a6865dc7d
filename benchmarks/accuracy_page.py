"""The tables of docs/accuracy.md, made anew between their marks; what stands around them is written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy_depth import depth_table, draw_depth, spread
from accuracy_rows import ROWS

from binarize.studies.results import Row
from binarize.studies.table import HEADS, cells

__all__ = ["update_page"]

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
# Row -> how the tables by class and by epoch call it.
BESIDE: Mapping[str, str] = {
    "fashion-float-vgg6-e15": "VGG-6, float",
    "fashion-binaryconnect": "VGG-6, BinaryConnect",
    "fashion-w1a1": "VGG-6, W1A1",
    "fashion-vgg6-all-binary": "VGG-6, W1A1, all layers",
    "fashion-float-resnet18-e15": "ResNet-18, float",
    "fashion-resnet18-w1a1": "ResNet-18, W1A1",
    "fashion-float-mobilenetv2-20k-e15": "MobileNetV2, float",
    "fashion-mobilenetv2-w1a1": "MobileNetV2, W1A1",
}
SHOWN = ("trial", "seeds", "top-1 %", "least", "most", "held out %", "s/epoch", "memory", "OPs", "packed")
Results = Sequence[Mapping[str, Any]]


def update_page(
    page: Path,
    results: Iterable[Mapping[str, Any]],
    calibrations: Iterable[Mapping[str, Any]],
    study: Path | None,
) -> list[str]:
    """Writes the tables that there are results for, and the curve beside the page; returns their names.

    Raises: SystemExit, where a table has no marks in the page.
    """
    stored = [one for one in results if not one["trial"]]
    tables = {
        "rows": _rows(stored),
        "classes": _classes(stored),
        "curves": _curves(stored),
        "depth": depth_table(stored) if any(one["name"].startswith("depth-") for one in stored) else None,
        "calibration": _calibration(list(calibrations)),
        "schemes": None if study is None else _schemes(study / "table.json"),
    }
    text, made = page.read_text("utf-8"), [name for name, table in tables.items() if table]
    for name in made:
        pattern = re.compile(f"<!-- {name} -->\n.*?<!-- end -->\n", re.DOTALL)
        block = f"<!-- {name} -->\n{tables[name]}\n<!-- end -->\n"
        text, count = pattern.subn(lambda _, block=block: block, text)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(
                f"{page}: expected one '<!-- {name} -->' with an '<!-- end -->' behind it, found {count}"
            )
    if "depth" in made:
        draw_depth(stored, page.with_name("depth.svg"))
    page.write_text(text, "utf-8")
    return made


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(stored: Results) -> str | None:
    rows = []
    for name, row in ROWS.items():
        found = [one for one in stored if one["name"] == name and one.get("float")]
        if found and not name.startswith("depth-"):
            floats, tops = ([100 * one[key] for one in found] for key in ("float", "top1"))
            rows.append((f"`{name}`", row.describe(), spread(floats), spread(tops), str(len(found))))
    return _table(("row", "what", "float", "binary", "seeds"), rows) if rows else None


def _beside(stored: Results) -> dict[str, Mapping[str, Any]]:
    """Networks that are shown beside each other, of the first seed."""
    first = {one["name"]: one for one in stored if one["seed"] == 0}
    return {words: first[name] for name, words in BESIDE.items() if name in first}


def _classes(stored: Results) -> str | None:
    rows = [
        (name, *(f"{100 * share:.1f}" for share in (one["top1"], *one["classes"])))
        for name, one in _beside(stored).items()
    ]
    return _table(("network", "top-1", *CLASSES), rows) if rows else None


def _curves(stored: Results) -> str | None:
    rows = [
        (
            name,
            f"{60 * one['minutes'] / len(one['curve']):.0f}",
            " ".join(f"{loss:.3f}" for loss in one["curve"]),
        )
        for name, one in _beside(stored).items()
    ]
    return _table(("network", "seconds an epoch", "loss of each epoch"), rows) if rows else None


def _calibration(stored: Results) -> str | None:
    ways: dict[str, list[Mapping[str, Any]]] = {}
    for one in stored:
        if not one["validate"]:
            ways.setdefault(one["way"], []).append(one)
    rows = [
        (way, f"`{found[0]['scheme']}`", f"{100 * found[0]['float']:.2f}", spread([100 * one["top1"] for one in found]),
         f"{max(one['seconds'] for one in found):.0f}", str(len(found)))
        for way, found in ways.items()
    ]  # fmt: skip
    return (
        _table(("way", "scheme", "float", "calibrated", "seconds at most", "draws"), rows) if rows else None
    )


def _schemes(file: Path) -> str:
    found = [Row(**{**one, "seeds": tuple(one["seeds"])}) for one in json.loads(file.read_text("utf-8"))]
    # The float network first, then the best.
    found.sort(key=lambda row: (row.kind != "float", -(row.top1 or 0)))
    rows = []
    for row in found:
        by_head = dict(zip(HEADS, cells(row)))
        if row.kind != "float":
            by_head["trial"] = f"`{by_head['trial']}`"
        rows.append([by_head[head] for head in SHOWN])
    return _table(SHOWN, rows)
