"""The commands that go on from a converted model's folder."""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["next_commands"]


def next_commands(folder: str | Path, program: str = "binarize") -> tuple[str, ...]:
    """What to type to train the model in `folder`, and to make it small."""
    place = shlex.quote(str(folder))
    return f"{program} finetune {place} --data DIR", f"{program} pack {place}"
