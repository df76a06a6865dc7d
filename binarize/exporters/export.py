"""A converted model -> a file that something else than Python runs.

Each format is a module of this folder with one function,

    write(model, example, path) -> Written

which gets the model frozen and packed (`PackedLayer`s in evaluation mode, its float rest as it was), the arguments of
one forward call, and where to write. It checks what it wrote on several inputs, and raises UsageError, with the
layer's name and the reason, for what its format cannot express. It writes `path`, and files beside it if it must:
all of them are moved to where the user wants them when everything went well. It is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from binarize.disk.claim import Claim, claimed
from binarize.disk.file_name import check_name, is_folder
from binarize.disk.leftovers import draft_folder, place_of
from binarize.disk.replacement import sync
from binarize.errors import UsageError, did_you_mean, way
from binarize.exporters.foreign import in_our_words

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FORMATS", "Export", "Written", "check_format", "export", "place_of_export", "writer_of"]

FORMATS: Mapping[str, str] = {
    "onnx": ".onnx",
    "qonnx": ".qonnx.onnx",
    "openvino": ".xml",
    "pt2": ".pt2",
    "c": ".c",
}
"""Format -> how the file's name ends where the user names none."""
# Format -> the file in this folder that writes it.
_WRITERS = {
    "c": "c.write",
    "onnx": "onnx.write",
    "openvino": "openvino.write",
    "pt2": "pt2",
    "qonnx": "onnx.qonnx",
}

# Formats whose modules need more than torch -> the extra that installs it.
_EXTRAS = {"onnx": "onnx", "qonnx": "onnx", "openvino": "openvino"}


@dataclass(frozen=True)
class Written:
    """What an exporter found out about what it wrote."""

    # (what, how much, remark), for a table.
    rows: tuple[tuple[str, str, str], ...] = ()
    # Sentences for people: above all, how the file was checked.
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    # The same for programs, as JSON values.
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Export:
    """A finished export: its files, the one asked for first."""

    format: str
    files: tuple[Path, ...]
    written: Written

    @property
    def path(self) -> Path:
        """The file that was asked for."""
        return self.files[0]

    def to_json(self) -> dict[str, Any]:
        """Everything that programs want to know."""
        return {
            "format": self.format,
            "files": [str(file) for file in self.files],
            "warnings": list(self.written.warnings),
            **self.written.facts,
        }


def export(
    model: nn.Module | str | Path,
    format: str,
    path: str | Path | None = None,
    *,
    example_input: object = None,
    source: str | None = None,
    force: bool = False,
) -> Export:
    """Write a converted model for another runtime: "onnx", "qonnx", "openvino", "pt2" or "c".

    `model` is a converted, frozen or packed model, a packed file, or a folder that `binarize.save` wrote: its packed
    file where that was made of its latent weights, else these themselves. The packed model is compared with the trained
    one's frozen form before anything is written. `path` is by default the folder's name in the folder. `source` is that
    of `binarize.load`.

    Raises: UsageError, where a file exists and `force` does not allow to replace it, and where the format cannot
    express a layer; CheckError, where the file computes something else; what `binarize.load` raises.

    Example:
        >>> binarize.export("digits-adabin", "c", "digits.c")   # doctest: +SKIP
    """
    check_format(format)
    target = place_of_export(model, format, path)
    check_name(target)
    if target.exists() and not force:
        raise UsageError(f"{target} exists already; {way('--force', 'force=True')} replaces it")
    writer = writer_of(format)
    from binarize.exporters.prepare import compared

    with in_our_words(format):
        ready = compared(model, example_input, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with claimed(target) as claim, draft_folder(place_of(target), target.absolute().parent) as drafts:
        with in_our_words(format):
            written: Written = writer.write(ready.model, ready.example, drafts / target.name)
        files = _moved(drafts, target, force, claim)
    lines, told = (*ready.lines, *written.lines), (*ready.warnings, *written.warnings)
    return Export(format, files, replace(written, lines=lines, warnings=told))


def check_format(format: str, option: str = "format") -> None:
    """Raises: UsageError, where there is no such format."""
    if format not in FORMATS:
        raise UsageError(
            f'{option} "{format}" is none of {", ".join(FORMATS)}{did_you_mean(format, FORMATS)}'
        )


def writer_of(format: str) -> Any:
    """The format's module. Raises: UsageError, where it needs what is not installed."""
    try:
        return importlib.import_module(f"binarize.exporters.{_WRITERS[format]}")
    except ModuleNotFoundError as error:
        if format not in _EXTRAS or str(error.name).startswith("binarize"):
            raise
        raise UsageError(
            f"export {format} needs {error.name}, which is not installed; "
            f"try: pip install 'torch-binarize[{_EXTRAS[format]}]'"
        ) from error


def place_of_export(model: nn.Module | str | Path, format: str, path: str | Path | None) -> Path:
    """The file that an export is asked for. Raises: UsageError, where nothing says which."""
    if path is not None:
        return Path(path)
    if not isinstance(model, (str, Path)):
        raise UsageError(f'export: a model in memory needs a path; expected export(model, "{format}", path)')
    folder = Path(model) if is_folder(model) else Path(model).parent
    return folder / f"{folder.resolve().name}{FORMATS[format]}"


def _moved(drafts: Path, target: Path, force: bool, claim: Claim) -> tuple[Path, ...]:
    """Moves everything that was written to its place.

    The file asked for comes last, and goes first where there was one: it is never there beside files of another export.
    """
    names = sorted((file.name for file in drafts.iterdir()), key=lambda name: (name == target.name, name))
    for name in names:
        place = target.parent / name
        if place.exists() and not (force or claim.wrote(place)):
            raise UsageError(
                f"{target.parent / name} exists already; {way('--force', 'force=True')} replaces it"
            )
        sync(drafts / name)
    claim.puts(drafts, *names)
    if len(names) > 1:
        target.unlink(missing_ok=True)
    for name in names:
        (drafts / name).replace(target.parent / name)
    sync(target.absolute().parent)
    return tuple(target.parent / name for name in reversed(names))
