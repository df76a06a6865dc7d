"""What became of a converted model in training, as data of its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from binarize.report.units import percent, plural

__all__ = ["Training"]


@dataclass(frozen=True)
class Training:
    """One training: on what, with which recipe, and with which weights it ended."""

    data: str
    images: int
    # Of all stages.
    epochs: int
    # The one whose weights the model has, counted over all stages, and why that one.
    epoch: int
    chosen: Literal["validation", "last"]
    # Of that epoch; top-1 between 0 and 1.
    val_top1: float | None
    val_loss: float | None
    # Decay of the moving average that the weights are; 0: they are those of the last step.
    average: float
    # From how many images the statistics of BatchNorm were taken anew at the end.
    norm_images: int
    teacher: str
    seed: int
    seconds: float
    recipe: Mapping[str, Any]
    # What it was validated on, and how many images that were.
    validation: str | None = None
    validation_images: int = 0
    # What hardening random signs has cost, in words.
    hardened: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; the recipe, which a record of the training holds too, is left out."""
        left_out = {"recipe"} if self.hardened else {"recipe", "hardened"}
        return {key: value for key, value in asdict(self).items() if key not in left_out}

    @property
    def ending(self) -> str:
        """Which weights the model has, in words."""
        why = f"the best by validation{self._value}" if self.chosen == "validation" else "the last"
        ending = f"the weights are those of epoch {self.epoch}, {why}{', a moving average' if self.average else ''}"
        return f"{ending}; {self.hardened}" if self.hardened else ending

    @property
    def _value(self) -> str:
        if self.val_top1 is not None:
            return f" (top-1 {percent(self.val_top1)})"
        return "" if self.val_loss is None else f" (loss {self.val_loss:.4f})"

    @property
    def _held_out(self) -> str:
        return (
            f" on {plural(self.validation_images, 'image')} of {self.validation}" if self.validation else ""
        )

    def __str__(self) -> str:
        parts = [
            f"{plural(self.epochs, 'epoch')} on {plural(self.images, 'image')} of {self.data}, teacher {self.teacher}"
        ]
        parts.append(self.ending)
        if self.val_top1 is not None:
            parts.append(f"validation top-1 {percent(self.val_top1)}{self._held_out}")
        elif self.val_loss is not None:
            parts.append(f"validation loss {self.val_loss:.4f}{self._held_out}")
        return "; ".join([*parts, f"{self.seconds / 60:.1f} minutes, seed {self.seed}"])
