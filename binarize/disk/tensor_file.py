"""Tensors as a safetensors file whose bytes depend on nothing but the tensors and the texts beside them."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["save_tensors"]


def save_tensors(tensors: Mapping[str, Tensor], path: Path, texts: Mapping[str, str]) -> None:
    """Write the file. Raises: OSError, also where safetensors calls a full disk something else."""
    try:
        save_file(dict(tensors), path, metadata=dict(texts))
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number is not None else errno.EIO
        raise OSError(code, os.strerror(code) if number is not None else str(error), str(path)) from error
    _sort_texts(path)


def _sort_texts(path: Path) -> None:
    """The texts in the order of their names: safetensors writes them in one that changes from call to call."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # else it is escaped in another way than json does: a file like any other
            file.seek(8)
            file.write(text.ljust(length))
