"""All that a training needs, as data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from binarize.disk.file_name import as_text
from binarize.schemes.recipe import Recipe
from binarize.training.data import ImageData, Preprocessing
from binarize.training.loop.objective import LabelLoss
from binarize.training.teachers.find import Teachers

__all__ = ["DataOptions", "Run"]


@dataclass(frozen=True)
class DataOptions:
    """How named data is opened."""

    # None: what belongs to the data; a share of it; False: none; or what names data.
    validation: Any = None
    # So many training images alone.
    limit: int | None = None
    # Where torchvision's data sets lie, and whether they may be downloaded to there.
    root: str | Path = "data"
    download: bool = False
    # In place of what the model's configuration says.
    preprocessing: Preprocessing | None = None

    def to_json(self) -> dict[str, Any]:
        """What can be given again in a file; data that is no name is left out."""
        named = isinstance(self.validation, (str, float, bool, type(None)))
        validation = self.validation if named else None
        return {
            "validation": validation,
            "limit": self.limit,
            "root": str(self.root),
            "download": self.download,
        }


@dataclass(frozen=True)
class Run:
    """All that a training needs, but for the machine it runs on."""

    model: nn.Module
    recipe: Recipe
    teachers: Teachers
    data: ImageData
    validation: ImageData | None
    preprocessing: Preprocessing | None
    seed: int
    # What the model tells apart, where its output are class scores.
    classes: int | None
    loss: LabelLoss | None = None
    points: tuple[str, ...] | None = None
    options: DataOptions = field(default_factory=DataOptions)
    # What was asked for as teachers, where all of them have names.
    teacher_names: tuple[str, ...] | None = None
    # The digest of the tensors that the training starts from.
    start: str = ""

    def record(self) -> dict[str, Any]:
        """What is trained with what, as JSON values."""
        record: dict[str, Any] = {
            "data": self.data.name,
            "images": len(self.data),
            "classes": list(self.data.classes),
            "validation": None if self.validation is None else self.validation.name,
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_json(),
            "teacher": str(self.teachers),
            # So that a training that is resumed need not name them again.
            "teachers": self.teacher_names,
            "seed": self.seed,
            "start": self.start,
            "recipe": self.recipe.to_json(),
            "options": self.options.to_json(),
        }
        # As it will be read again: tuples are lists, and names are text.
        found: dict[str, Any] = json.loads(json.dumps(as_text(record)))
        return found
