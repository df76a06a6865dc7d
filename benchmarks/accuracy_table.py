"""The results of benchmarks/accuracy.py as a table: mean, least and most over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["table"]

# Top-1 that a student report gives for a float network on Fashion-MNIST and for the same with BinaryConnect.
ELSEWHERE = {"float": 91.62, "BinaryConnect": 78.73}


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """One line a row of the table, seeds together; after them the trials, and classes and curves of two networks."""
    stored = list(results)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in stored:
        if not result["trial"]:
            groups.setdefault(result["name"], []).append(result)
    heads = ("top-1", "least", "most", "seeds", "float")
    lines = [f"{'row':44s} " + " ".join(f"{head:>6s}" for head in heads) + "  minutes  CPU s/epoch"]
    for name, found in groups.items():
        shares = [100 * one["top1"] for one in found]
        floats = [100 * one["float"] for one in found if one.get("float")]
        minutes = sum(one["minutes"] for one in found) / len(found)
        spent = [one["cpu_epoch"] for one in found if one["cpu_epoch"] == one["cpu_epoch"]]
        lines.append(
            f"{name:44s} {_mean(shares):6.2f} {min(shares):6.2f} {max(shares):6.2f} {len(found):6d} "
            f"{_mean(floats) if floats else float('nan'):6.2f} {minutes:8.1f} {_mean(spent) if spent else float('nan'):12.1f}"
        )
    trials = [result for result in stored if result["trial"]]
    lines += ["", "trials, on held-out training images"] if trials else []
    for one in trials:
        lines.append(f"{one['name']:30s} seed {one['seed']} {100 * one['top1']:6.2f}  {_changes(one['row'])}")
    return "\n".join([*lines, *_classes(groups)])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _changes(row: Mapping[str, Any]) -> str:
    keys = ("network", "images", "epochs", "scheme", "rules", "shortcuts")
    parts = [f"{key} {row[key]}" for key in keys if row.get(key) is not None]
    return ", ".join([*parts, *(f"{key}={value}" for key, value in row["recipe"].items())])


def _classes(groups: Mapping[str, list[Mapping[str, Any]]]) -> list[str]:
    """Accuracy by class and the loss of each epoch, of the float network and the one with binary weights beside it."""
    chosen = [name for name in ("fashion-float-vgg6-e15", "fashion-binaryconnect") if name in groups]
    if not chosen:
        return []
    lines = [
        "",
        "top-1 by class, training loss by epoch, seconds an epoch (the binary one has a teacher, which runs too)",
    ]
    for name in chosen:
        one = groups[name][0]
        seconds = 60 * one["minutes"] / len(one["curve"])
        lines.append(f"{name:30s} " + " ".join(f"{100 * share:5.1f}" for share in one["classes"]))
        lines.append(f"{f'{seconds:.0f} s':>30s} " + " ".join(f"{loss:.3f}" for loss in one["curve"]))
    lines.append(
        f"{'elsewhere':30s} float {ELSEWHERE['float']} %, BinaryConnect {ELSEWHERE['BinaryConnect']} % after 15 epochs"
    )
    return lines
