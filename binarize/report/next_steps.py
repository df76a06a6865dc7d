"""The commands that go on from a converted model's folder, as they are typed."""

from __future__ import annotations

import shlex
from pathlib import Path

from binarize.seen import DataUse, Seen

__all__ = ["next_command", "next_commands"]

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
