"""A module without its weights as a file that loads by the allow-list (`structure.pt`).

Parameters and persistent buffers are stored as shapes; non-persistent buffers, which no state dict holds, as
data. Tensors under two names stay one tensor, since the pickle stores each parameter once.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from binarize.errors import SourceError
from binarize.modules.copies import without_data
from binarize.modules.float_check import check_whole
from binarize.modules.tensors import _entries, tied_tensors
from binarize.sources.files.safe_pickle import load_pickle_safely, refused_globals

__all__ = ["load_structure", "save_structure"]


FORMAT = "binarize structure 1"
# Where the sizes of the weights are unknown.
LIMIT = 1 << 36


def save_structure(module: nn.Module, path: str | Path) -> list[str]:
    """Writes `module` without its weights, or writes nothing and says what stands in the way.

    The reasons are classes outside the allow-list, hooks, and attributes that cannot be pickled; the caller
    then has to be given the float model again when loading.
    """
    hooked = [name or "the model" for name, part in module.named_modules() if _hooks(part)]
    if hooked:
        return [f"{name} has hooks" for name in hooked]
    file = io.BytesIO()
    try:
        skeleton = without_data(module, keep_unsaved=True)
        torch.save({"format": FORMAT, "module": skeleton, "tied": tied_tensors(module)}, file)
    except (pickle.PicklingError, AttributeError, TypeError, RuntimeError, ValueError) as error:
        return [f"it cannot be pickled: {error}"]
    path = Path(path)
    path.write_bytes(file.getvalue())
    try:
        refused = refused_globals(path)
    except SourceError as error:
        refused = [str(error)]
    if refused:
        path.unlink()
    return refused


def load_structure(path: str | Path, *, meta: bool = False, limit: int = LIMIT) -> nn.Module:
    """The module that `save_structure` wrote; its weights are uninitialised memory, or nothing with `meta`.

    `limit` are the bytes that this memory may take: the file itself has no more than shapes.

    Raises: SourceError where the file is damaged or something else, UntrustedSourceError where it would run
    code.
    """
    content = load_pickle_safely(path)
    if not isinstance(content, dict) or not _is_format(content.get("format")):
        raise SourceError(f"{path}: not a structure file of this version of binarize")
    module, tied = content.get("module"), content.get("tied")
    if isinstance(module, nn.Module):
        check_whole(module, str(path))
    if not isinstance(module, nn.Module) or not _is_names(tied) or tied != tied_tensors(module):
        raise SourceError(f"{path}: damaged: its module does not agree with its list of tied tensors")
    if not meta:
        needed = sum(tensor.numel() * tensor.element_size() for tensor in _without_memory(module))
        if needed > limit:
            raise SourceError(
                f"{path}: damaged: its shapes ask for {needed:,} bytes, which no weights here have"
            )
        try:
            _allocate(module)
        except (RuntimeError, MemoryError) as error:
            raise SourceError(f"{path}: there is no memory for its {needed:,} bytes of weights") from error
    return module


def _is_format(found: object) -> bool:
    return isinstance(found, str) and found == FORMAT


def _is_names(found: object) -> bool:
    return isinstance(found, list) and all(
        isinstance(group, list) and all(isinstance(name, str) for name in group) for group in found
    )


def _without_memory(module: nn.Module) -> list[Tensor]:
    """Every tensor without data, once."""
    found = {id(tensor): tensor for _, tensor in _entries(module) if tensor.is_meta}
    return list(found.values())


def _allocate(module: nn.Module) -> None:
    """Gives every tensor without data uninitialised memory on the CPU, one for each tied group."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        tables: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for table in tables:
            for name, tensor in table.items():
                if tensor is None or not tensor.is_meta:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty_like(tensor, device="cpu")
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                table[name] = made[id(tensor)]


def _hooks(part: nn.Module) -> bool:
    tables = (value for key, value in vars(part).items() if key.endswith("_hooks"))
    return any(tables)
