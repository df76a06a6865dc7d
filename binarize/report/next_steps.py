"""The commands that go on from a converted model's folder."""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["next_commands"]


def next_commands(
    folder: str | Path, program: str = "binarize", *, calibrated: bool = False, trained: bool = False
) -> tuple[str, ...]:
    """What to type to fit the model in `folder` without labels, to train it, and to make it small; not what is done."""
    place = shlex.quote(str(folder))
    verbs = ["eval {} --data DIR"] if trained else ["finetune {} --data DIR"]
    if not calibrated and not trained:
        verbs.insert(0, "calibrate {} --data DIR")
    return tuple(f"{program} {verb.format(place)}" for verb in (*verbs, "pack {}"))
