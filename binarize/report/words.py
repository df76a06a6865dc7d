"""The sentences of a report: what terminal, Markdown and HTML say around the table."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

from binarize.inputs.seen import DataUse, Seen
from binarize.report.data import ReportData, Row
from binarize.report.names import fold_names
from binarize.report.units import count, percent, plural, size, times

__all__ = [
    "closing",
    "decision_word",
    "facts",
    "headline",
    "nearby",
    "next_command",
    "next_commands",
    "notices",
]


# From this share of equal top classes on, a conversion has learned something already.
_NEAR = 0.5
_CAPTURE = {
    "meta": "recording of a run without data",
    "device": "recording of a run on the example input",
    "walk": "level: module walk; order and surroundings of the layers are not known",
}


def decision_word(row: Row) -> str:
    """A mark and a word: "● adabin" is binary, "◐ bnn" has binary weights alone, "○ float" is kept."""
    if not row.binary:
        return "○ float"
    return f"{'◐' if row.weights_only else '●'} {row.scheme}"


def nearby(row: Row, text: str) -> str:
    """`text` with the names of the layer's neighbours cut short, for a table that has its own name.

    For layer1.0.conv1, "kept layer1.0.bn1" -> "kept bn1"; for features.0, "kept features.1" -> "kept .1".
    """
    parent = re.escape(row.name.rpartition(".")[0])
    return re.sub(rf"\b{parent}(\.(?!\d)|(?=\.\d))", "", text) if parent else text


def headline(report: ReportData) -> str:
    """One line: how much is binary, what was added, whether the self-checks passed."""
    total = report.totals
    parts = [f"{total.binary_layers} of {plural(total.layers, 'layer')} binary"]
    if total.weight_only_layers:
        parts[0] += f" ({total.weight_only_layers} with float inputs)"
    parts.append(
        "module walk, not run" if report.capture == "walk" else f"{percent(total.binary_share)} of MACs"
    )
    added = []
    shortcuts = sum(number for kind, number in report.shortcuts.items() if kind != "block")
    if shortcuts:
        added.append(plural(shortcuts, "shortcut"))
    norms = Counter(
        row.norm.split()[1].partition("Norm")[0] for row in report.rows if row.norm.startswith("added")
    )
    added += [f"{number} {kind}Norm" for kind, number in norms.items()]
    if added:
        parts.append(", ".join(added) + " added")
    failed = [check.name for check in report.checks if not check.passed]
    if failed:
        parts.append(f"self-check FAILED: {', '.join(failed)}")
    elif report.checks:
        parts.append("self-check passed")
    worked = not failed and total.binary_layers > 0
    return f"{'✓' if worked else '✗'} {' · '.join(parts)}"


def facts(report: ReportData) -> list[tuple[str, str]]:
    """Labelled sentences on the whole model."""
    lines = [("source", f"{report.source}: {'; '.join(report.source_notes)}")] if report.source_notes else []
    lines += [("size", _size(report)), ("compute", _compute(report))]
    ends = [row for row in report.rows if row.position != "none"]
    if ends:
        lines.append(("first, last", ", ".join(f"{row.name} {decision_word(row)}" for row in ends)))
    for group in report.kept:
        lines.append(("float", f"{fold_names(group.layers)}: {group.why} ({group.reason})"))
    lines += _shortcuts(report)
    if report.capture:
        notes = "".join(f"; {note}" for note in report.capture_notes)
        lines.append(("captured", _CAPTURE.get(report.capture, report.capture) + notes))
    for check in report.checks:
        mark = "✓" if check.passed else "✗"
        lines.append(("check", f"{mark} {check.name}" + (f": {check.detail}" if check.detail else "")))
    if report.training is not None:
        lines.append(("trained", str(report.training)))
        if any(row.live for row in report.rows):
            lines.append(
                ("trained", "the shares of +1 and the starts of thresholds are those before the training")
            )
    lines.append(("units", report.convention))
    return lines


def notices(report: ReportData) -> list[tuple[str, str]]:
    """Warnings and hints, each with its label."""
    lines = [("warning", text) for text in report.warnings]
    for item in report.unmatched:
        nearest = f"; nearest: {', '.join(item.nearest)}" if item.nearest else ""
        rule = f'rule "{item.rule}"' + (f" ({item.where})" if item.where else "")
        lines.append(("warning", f'{rule} matched no layer: {item.selector} "{item.pattern}"{nearest}'))
    return lines + [("hint", text) for text in report.hints]


def closing(report: ReportData) -> list[str]:
    """What is on disk, what to expect of the accuracy, and what to do next."""
    total = report.totals
    lines = []
    if report.files and total.binary_layers:
        lines.append(
            f"On disk now: {size(sum(report.files.values()))} (latent float weights, for training). "
            f"After `binarize pack`: {size(total.packed_bytes)}."
        )
    if report.agreement:
        known = report.agreement
        images = plural(known.images, "image" if known.fitted else "example image")
        which = f"the {images} it was fitted to; on others it is less" if known.fitted else images
        lines.append(f"Top class equal to the float model's on {percent(known.same_top1)} of {which}.")
    far = report.agreement is None or report.agreement.same_top1 < _NEAR
    if total.binary_layers and report.training is None and far:
        lines.append("Accuracy is near chance until you fine-tune; that is expected.")
    return lines + [f"next: {command}" for command in report.next_commands]


def _size(report: ReportData) -> str:
    total = report.totals
    return (
        f"float {size(total.float_bytes)} → packed {size(total.packed_bytes)} "
        f"({times(total.float_bytes, total.packed_bytes)}); in training {size(total.latent_bytes)}, "
        f"at one byte a binary weight {size(total.int8_bytes)}"
    )


def _compute(report: ReportData) -> str:
    total = report.totals
    if report.capture == "walk":
        return "not known: the model was not run"
    text = (
        f"{count(total.macs)} FLOPs → {count(total.ops)} OPs ({times(total.macs, total.ops)}): "
        f"{count(total.flops)} FLOPs + {count(total.bops)} BOPs / 64"
    )
    if total.float_adds:
        text += f"; of the FLOPs, {count(total.float_adds)} add floats and multiply nothing"
    return text


def _shortcuts(report: ReportData) -> list[tuple[str, str]]:
    lines = []
    if report.shortcuts:
        kinds = [f"{number} {kind}" for kind, number in report.shortcuts.items() if kind != "block"]
        if own := report.shortcuts.get("block"):
            kinds.append(f"the block's own around {plural(own, 'layer')}")
        lines.append(("shortcuts", ", ".join(kinds)))
    binary = [row for row in report.rows if row.binary]
    without: dict[str, list[str]] = {}
    for row in binary:
        if row.shortcut == "none" and row.shortcut_why:
            without.setdefault(row.shortcut_why, []).append(row.name)
    for why, names in without.items():
        who = "every binary layer" if len(names) == len(binary) else fold_names(names)
        lines.append(("no shortcut", f"{who}: {why}"))
    return lines


# What stands for data that nobody has named yet.
_ANY_DATA = "DIR"
# Data that is looked up by name below a folder, which has to be named again where it is not this one.
_ROOTED, _ROOT = ("torch/", "tfds/", "hfids/"), "data"


def next_command(
    verb: str,
    folder: str | Path,
    program: str = "binarize",
    *,
    data: DataUse | None = None,
    source: str | None = None,
    trust_pickle: bool = False,
) -> str:
    """One command on a folder. `source` is the user's own code, or a file that was trusted: it runs because it stands in the
    command that is typed.

    eval, calibrate and finetune look at images: at those of `data`, or at DIR where there are none to name.
    """
    words = [verb, str(folder), *(["--format", "onnx"] if verb == "export" else [])]
    if verb in ("calibrate", "eval", "finetune"):
        words += ["--data", _ANY_DATA if data is None else data.name]
        if data is not None and data.root not in ("", _ROOT) and data.name.lower().startswith(_ROOTED):
            words += ["--data-root", data.root]
    if source is not None:
        words += ["--source", source]
    if trust_pickle:
        words.append("--trust-pickle")
    return f"{program} {shlex.join(words)}"


def next_commands(
    folder: str | Path,
    program: str = "binarize",
    *,
    calibrated: bool = False,
    trained: bool = False,
    seen: Seen | None = None,
    source: str | None = None,
    trust_pickle: bool = False,
) -> tuple[str, ...]:
    """What to type to fit the model in `folder` without labels, to train it, and to make it small; not what is done."""
    verbs = ["eval"] if trained else ["finetune"]
    if not calibrated and not trained:
        verbs.insert(0, "calibrate")
    known = Seen() if seen is None else seen
    return tuple(
        next_command(
            verb,
            folder,
            program,
            data=known.to_open(labelled=verb == "finetune"),
            source=source,
            trust_pickle=trust_pickle,
        )
        for verb in (*verbs, "pack")
    )
