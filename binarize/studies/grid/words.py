"""What a grid file names, held against what a file may name and what the user said in this call."""

from __future__ import annotations

from pathlib import Path

from binarize.disk.file_name import is_there
from binarize.errors import UntrustedSourceError
from binarize.trust import check_data, is_builder, is_teacher, is_trusted, quoted

__all__ = ["NAMED", "check_names"]

# Settings that name what is run, read or fetched.
NAMED = ("arch", "data", "model", "teacher")

_LIBRARIES = ("torchvision", "timm", "hf-hub", "local-dir")


def check_names(key: str, value: str, folder: Path) -> None:
    """A setting of a grid file, which lies in the folder.

    Raises: UntrustedSourceError, where it names code, or what is fetched, and the user did not allow it.
    """
    if key == "data":
        check_data(value, key)
    elif key in ("model", "arch"):
        if not (is_builder(value) or _is_weights(value, folder) or _is_said(value, folder)):
            raise _refused(key, value, folder, "a file of weights")
    elif key == "teacher":
        for one in value if isinstance(value, list) else [value]:
            if not (is_teacher(one) or _is_said(one, folder)):
                raise _refused(key, one, folder, "source or none")


def _refused(key: str, text: str, folder: Path, also: str) -> UntrustedSourceError:
    place = _place(text)
    found = _found(place, folder) or place
    return UntrustedSourceError(
        f"{key} names {quoted(text)}; a grid file may name torchvision:NAME or timm:NAME with plain numbers, or {also}\n"
        f"  where you trust it, say so: --trust {found} (trust=[{str(found)!r}]), or --set {key}=..."
    )


def _is_weights(text: str, folder: Path) -> bool:
    """Whether this is the path of a file, which is read by the list of what a pickle may name."""
    return ":" not in text or (text.partition(":")[0] not in _LIBRARIES and _found(text, folder) is not None)


def _is_said(text: str, folder: Path) -> bool:
    """Whether the user's word covers the code, file or folder that the text leads to from the grid's folder."""
    place = _place(text)
    found = _found(place, folder)
    return is_trusted(place if found is None else str(found))


def _place(text: str) -> str:
    """`nets.py` of "nets.py:make", `package.nets` of "package.nets:Net(10)"."""
    before, colon, _ = text.partition(":")
    return before if colon and before not in _LIBRARIES else text


def _found(name: str, folder: Path) -> Path | None:
    """The file of a name, beside the grid or from here, the way that a trial looks for it."""
    if not name:
        return None
    return next((root / name for root in (folder, Path.cwd()) if is_there(root / name)), None)
