"""The commands that go on from a converted model's folder."""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["next_commands"]


def next_commands(folder: str | Path, program: str = "binarize") -> tuple[str, ...]:
    """What to type to fit the model in `folder` without labels, to train it, and to make it small."""
    place = shlex.quote(str(folder))
    verbs = ("calibrate {} --data DIR", "finetune {} --data DIR", "pack {}")
    return tuple(f"{program} {verb.format(place)}" for verb in verbs)
