"""Mutated finetune.json, as trees and as bytes: what is read of a training before the model is."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz_mutations import mutated_bytes, mutated_tree

from binarize.training.folder import TrainingFolder
from binarize.training.recipe import Recipe

__all__ = ["RECORD", "cases", "read"]

RECORD: dict[str, Any] = {
    "data": "digits",
    "images": 1500,
    "classes": ["0", "1"],
    "validation": "digits",
    "preprocessing": {"size": [1, 8, 8], "mean": [0.5], "std": [0.5], "crop": 1.0, "interpolation": "bilinear", "origin": ""},
    "teacher": "none",
    "teachers": ["none"],
    "seed": 0,
    "start": "0" * 64,
    "recipe": json.loads(json.dumps(Recipe().to_json())),
    "options": {"validation": None, "limit": None},
    "finished": False,
    "result": None,
}  # fmt: skip


def cases(seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was changed, content of a finetune.json), without end."""
    draw = random.Random(seed)
    raw = json.dumps(RECORD).encode()
    while True:
        if draw.random() < 0.2:
            yield mutated_bytes(raw, draw)
        else:
            what, changed = mutated_tree(RECORD, draw)
            yield what, json.dumps(changed).encode()


def read(path: Path) -> None:
    """Read it as a training that is resumed does, up to its recipe."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "finetune.json").symlink_to(path.absolute())
        record = TrainingFolder(place).record()
        Recipe().changed(record["recipe"])
