"""What a file is, read from its bytes and never from its suffix.

Nothing is unpickled here.
"""

from __future__ import annotations

import difflib
import json
import stat
import struct
import zipfile
from pathlib import Path
from typing import Literal

from binarize.disk.file_name import why_no_name
from binarize.errors import SourceError, UntrustedSourceError

__all__ = ["FileKind", "is_archive", "kind_of", "missing_file", "refuse_directory", "refuse_irregular"]

FileKind = Literal["torch", "legacy torch", "safetensors", "plain pickle"]

ARCHIVE_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # LONG1 0x1950a86a20f9469cfc6c, STOP
SAFETENSORS_HEADER_LIMIT = 100_000_000
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl", ".safetensors", ".pt2", ".py")

FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull` for it"),
    (b"\x89HDF", "HDF5 (Keras?), not PyTorch; load it in its own framework and save a PyTorch state dict"),
    (b"GGUF", "GGUF, which holds quantized weights; give the float PyTorch model"),
    (b"\x93NUMPY", "a numpy array; expected a model saved by torch.save or safetensors"),
    (b"\x1f\x8b", "gzip; unpack it first"),
    (b"<", "text (an HTML page saved by a failed download?); download it again"),
    (b"{", "text (JSON?); expected a model saved by torch.save or safetensors"),
    (b"import ", "Python code; say which function builds the model, as in FILE.py:make_model"),
)


def is_archive(path: str | Path) -> bool:
    """Whether a file starts as a zip archive: the same test as torch's, so that both read the same thing."""
    with Path(path).open("rb") as file:
        return file.read(4) == ARCHIVE_MAGIC


def refuse_irregular(path: Path) -> None:
    """Raises SourceError for a pipe, a device and whatever else is no file; nothing is opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(f"{path}: not a regular file")
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def kind_of(path: Path, *, trust_pickle: bool = False) -> FileKind:
    """The kind of a readable model file; a plain pickle only for those who trust it.

    Raises: SourceError saying what the file is instead and what to do about it.
    """
    refuse_irregular(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
            if size > 257:
                file.seek(257)
                head_tar = file.read(5)
            else:
                head_tar = b""
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise SourceError(f"{path}: the file is empty")
    if head[:4] == ARCHIVE_MAGIC:
        return _kind_of_zip(path)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < SAFETENSORS_HEADER_LIMIT:
        return _checked_safetensors(path, size, int.from_bytes(head[:8], "little"))
    if head[:1] == b"\x80" and LEGACY_MAGIC in head:
        return "legacy torch"
    if head[:1] == b"\x80" and trust_pickle:
        return "plain pickle"
    if head[:1] == b"\x80":
        raise UntrustedSourceError(
            f"{path}: a plain pickle, which cannot be read without running code; save the model with "
            "torch.save(model, PATH), or add --trust-pickle if you trust whoever made the file"
        )
    if path.suffix == ".py":
        raise SourceError(f"{path}: say which function or class builds the model, as in {path}:make_model")
    if head_tar == b"ustar":
        raise SourceError(f"{path}: a tar archive; unpack it first")
    for magic, reason in FOREIGN:
        if head.lstrip().startswith(magic):
            raise SourceError(f"{path}: {reason}")
    if head[:1] == b"\x08" and path.suffix == ".onnx":
        raise SourceError(f"{path}: ONNX, not PyTorch; give the PyTorch model it was made from")
    raise SourceError(
        f"{path}: not a model file (it starts with {head[:8].hex(' ')}); "
        "expected a file of torch.save or safetensors"
    )


def _kind_of_zip(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {name.partition("/")[2] or name for name in archive.namelist()}
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        NotImplementedError,
        ArithmeticError,
        struct.error,
    ) as error:
        raise SourceError(
            f"{path}: truncated or damaged: it starts as a file of torch.save but ends differently "
            f"({error}); copy or download it again"
        ) from error
    if "constants.pkl" in entries:
        raise SourceError(
            f"{path}: a TorchScript program, whose Python classes are gone; give the module it was made from "
            "(torch.save(model, PATH)), or its state dict with --arch"
        )
    if "archive_format" in entries or any(e.startswith("models/") and e.endswith(".json") for e in entries):
        raise SourceError(
            f"{path}: an exported program (.pt2), a flat graph without modules; give the module it was "
            "exported from (torch.save(model, PATH)), or its state dict with --arch"
        )
    if "data.pkl" not in entries:
        raise SourceError(f"{path}: a zip archive without a model; expected a file of torch.save")
    return "torch"


def _checked_safetensors(path: Path, size: int, header: int) -> FileKind:
    """Checks that the header is whole and that the data it promises are there."""
    damaged = f"{path}: truncated or damaged safetensors file"
    if 8 + header > size:
        raise SourceError(f"{damaged}: its header says {header} bytes, the file has {size}")
    try:
        with path.open("rb") as file:
            file.seek(8)
            entries = json.loads(file.read(header))
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"{damaged}: its header is unreadable ({error})") from error
    if 8 + header + max(ends, default=0) != size:
        raise SourceError(f"{damaged}: expected {8 + header + max(ends, default=0)} bytes, found {size}")
    return "safetensors"


def missing_file(path: Path) -> str:
    """`net.pt: no such file; nearest: nets.pt, model.pt in DIR`."""
    folder = path.parent
    if (why := why_no_name(path)) is not None:
        return f"{str(path)[:80]!r}: not a name that a file can have: {why}"
    try:
        if path.exists():
            return f"{path}: not a regular file"
        if not folder.is_dir():
            return f"{path}: no such file (there is no folder {folder})"
        there = [x.name for x in folder.iterdir() if x.suffix in WEIGHT_SUFFIXES or x.is_dir()]
    except OSError:
        there = []
    near = difflib.get_close_matches(path.name, there, n=3, cutoff=0.5)
    return f"{path}: no such file" + (f"; nearest there: {', '.join(near)}" if near else "")


def refuse_directory(path: Path) -> SourceError:
    """The error for a folder, with what was probably meant."""
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        return SourceError(f"{path}: cannot be read: {error.strerror}")
    if "binarize.json" in names:
        scheme = _scheme_of(path / "binarize.json")
        return SourceError(
            f"{path}: already converted by binarize{scheme}, and converting twice would binarize binary "
            f"weights; use `binarize report {path}`, or convert its source again"
        )
    if "config.json" in names and '"architecture"' in _text(path / "config.json"):
        return SourceError(f"{path}: a folder; it looks like one of timm's: name it local-dir:{path}")
    models = [name for name in names if name.endswith(WEIGHT_SUFFIXES[:-1])][:3]
    found = f"; it holds {', '.join(models)}" if models else ""
    return SourceError(f"{path}: a folder; expected a model file{found}")


def _scheme_of(path: Path) -> str:
    """` with scheme 'adabin'`, or nothing where the record does not say."""
    try:
        record = json.loads(_text(path))
        plan = record.get("plan", {})
        name = plan.get("name") or record.get("scheme")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return f" with scheme {name!r}" if name else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
