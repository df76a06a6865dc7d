"""What an evaluation found, as data: for programs as JSON, for people as Markdown. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from binarize.report.units import count, percent, plural, size, times

__all__ = ["ClassScore", "Evaluation", "Scores"]

# Of pairs of classes that are taken for each other.
_MOST_CONFUSED = 10


@dataclass(frozen=True)
class ClassScore:
    """How one class fared: images (pixels in a segmentation) of it, and those that were found."""

    name: str
    images: int
    right: int
    # Right over all that are of the class or were taken for it; for segmentations.
    iou: float | None = None

    @property
    def share(self) -> float | None:
        """Share that was found; None where there was none to find."""
        return self.right / self.images if self.images else None


@dataclass(frozen=True)
class Scores:
    """Accuracy of one model. Shares are between 0 and 1; of pixels where the model segments."""

    loss: float
    top1: float
    # None with five classes or fewer.
    top5: float | None
    classes: tuple[ClassScore, ...]
    # Rows: the class of the label; columns: what the model said. Empty with many classes.
    confusion: tuple[tuple[int, ...], ...] = ()
    # (class, what it was taken for, how often), the most frequent first.
    confused: tuple[tuple[str, str, int], ...] = ()
    mean_iou: float | None = None
    # Of running the model alone.
    seconds: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """A model on labelled images, with its float model beside it where there is one."""

    data: str
    images: int
    # None where the data has no labels.
    model: Scores | None
    reference: Scores | None = None
    # Share of images for which both say the same.
    agreement: float | None = None
    # Layer -> correlation of its output with the float layer's, per channel, the mean over channels.
    correlation: Mapping[str, float] = field(default_factory=dict)
    # Images that could not be read, and why.
    unreadable: tuple[str, ...] = ()
    # "validation" or "train", whichever of both the data has; data that is not divided counts as "train".
    split: str = "validation"
    # Of `report.totals`: params, flops, bops, ops, float_bytes, packed_bytes, ...
    costs: Mapping[str, Any] = field(default_factory=dict)
    # What a user should know of the data, such as how its folders were matched with the model's outputs.
    notes: tuple[str, ...] = ()
    # Whether the model has binary layers; else it is a float model itself, and `reference` another one.
    binary: bool = True

    @property
    def heads(self) -> tuple[str, ...]:
        """What the columns of `rows` after the first show: a float model alone has but one."""
        if self.binary:
            return ("float", "binary")
        return ("compared with", "float") if self.reference is not None else ("float",)

    @property
    def top1(self) -> float | None:
        """Share of images whose highest score is the label's."""
        return None if self.model is None else self.model.top1

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """(what, then a value for each of `heads`) of the summary, as words."""
        return [self._cells(row) for row in self._summary()]

    def _cells(self, row: Sequence[str]) -> tuple[str, ...]:
        """A line without the cell of a float model beside it, where there is no column for one."""
        return tuple(row) if len(self.heads) > 1 else (*row[:-2], row[-1])

    def _summary(self) -> list[tuple[str, str, str]]:
        found: list[tuple[str, str, str]] = []
        ours, theirs = self.model, self.reference
        if ours is not None:
            pixels = ours.mean_iou is not None
            found.append(
                (
                    "pixel accuracy" if pixels else "top-1",
                    _share(theirs.top1 if theirs else None),
                    _share(ours.top1),
                )
            )
            if ours.top5 is not None:
                found.append(("top-5", _share(theirs.top5 if theirs else None), _share(ours.top5)))
            if pixels:
                found.append(("mean IoU", _share(theirs.mean_iou if theirs else None), _share(ours.mean_iou)))
            found.append(("loss", "" if theirs is None else f"{theirs.loss:.4f}", f"{ours.loss:.4f}"))
        if self.agreement is not None:
            found.append(("says the same as the float model", "", percent(self.agreement)))
        if self.costs:
            found += _cost_rows(self.costs)
        return found

    def class_rows(self) -> list[tuple[str, ...]]:
        """(class, images, then its share for each of `heads`) for each class."""
        if self.model is None:
            return []
        theirs = self.reference.classes if self.reference is not None else (None,) * len(self.model.classes)
        return [
            self._cells(
                (ours.name, f"{ours.images:,}", _share(other.share if other else None), _share(ours.share))
            )
            for ours, other in zip(self.model.classes, theirs)
        ]

    def confused_rows(self) -> list[tuple[str, str, str]]:
        """(class, what it was taken for, how often), the most frequent mistakes of the binary model first."""
        pairs = () if self.model is None else self.model.confused[:_MOST_CONFUSED]
        return [(name, other, f"{times:,}") for name, other, times in pairs]

    def to_markdown(self) -> str:
        """The evaluation in GitHub's Markdown, ending with a newline."""
        lines = [f"# {plural(self.images, 'image')} of {self.data}", ""]
        lines += _table(("", *self.heads), self.rows())
        if self.model is not None:
            lines += [
                "",
                "## Classes",
                "",
                *_table(("class", "images", *self.heads), self.class_rows()),
            ]
            if pairs := self.confused_rows():
                lines += ["", "## Confused most often", "", *_table(("class", "taken for", "times"), pairs)]
        if self.correlation:
            rows = [(f"`{name}`", f"{value:.3f}") for name, value in self.correlation.items()]
            lines += ["", "## Layers", "", *_table(("layer", "correlation with the float layer"), rows)]
        if self.unreadable:
            lines += ["", f"## {plural(len(self.unreadable), 'image')} could not be read", ""]
            lines += [f"- {line}" for line in self.unreadable]
        return "\n".join(lines) + "\n"


def _share(value: float | None) -> str:
    return "" if value is None else percent(value)


def _cost_rows(costs: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    macs, flops, bops, ops = (float(costs[key]) for key in ("macs", "flops", "bops", "ops"))
    smaller = times(costs["float_bytes"], costs["packed_bytes"])
    return [
        ("FLOPs", count(macs), count(flops)),
        ("BOPs", "0", count(bops)),
        ("OPs = FLOPs + BOPs / 64", count(macs), f"{count(ops)} ({times(macs, ops)})"),
        ("parameters", size(costs["float_bytes"]), f"{size(costs['packed_bytes'])} packed ({smaller})"),
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
