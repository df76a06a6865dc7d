"""Checkpoints: finding the weights in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from binarize.errors import SourceError
from binarize.modules.float_check import check_whole
from binarize.sources.prefixes import modules_of, stripped
from binarize.trust import is_builder

__all__ = ["Checkpoint", "find_weights", "read_safetensors", "refuse_no_float", "weights_of"]

# Where training scripts put the weights, most specific first. Averaged weights come last.
KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
AVERAGED = ("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "swa_state_dict")


BINARIZED_KEY = re.compile(r"\.(weight_binarizer|input_binarizer)\.")
QUANTIZED_KEY = re.compile(
    r"\.(_packed_params|qweight|qzeros|zero_point|weight_scale|weight_fake_quant|activation_post_process|"
    r"absmax|quant_map|quant_state|SCB)(\.|$)"
)
FLOAT = "give the float model's"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds for us: a whole module or a state dict, and where it was found.

    `archs` are the architectures that the training script may have meant by the name it wrote beside them. `modules` are
    the paths of all modules, those without weights too, where the state dict came straight from a module.
    """

    module: nn.Module | None
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    archs: tuple[str, ...] = ()
    modules: frozenset[str] = frozenset()
    # Whether reading it ran what the file says, on the user's word.
    trusted: bool = False


def find_weights(content: object, path: str) -> Checkpoint:
    """The module or state dict in what a file holds.

    Raises: SourceError listing what was found instead.
    """
    if isinstance(content, nn.Module):
        check_whole(content, path)
        return Checkpoint(content, {})
    if not isinstance(content, Mapping):
        raise SourceError(
            f"{path}: holds a {type(content).__name__}; expected a module, a state dict or a checkpoint"
        )
    if not content:
        raise SourceError(f"{path}: holds an empty dictionary; expected a state dict or a checkpoint")
    found = next(_inside(content, depth=2), None)
    if found is None:
        refuse_no_float(map(str, content), path)
        listed = ", ".join(f"{key} ({type(value).__name__})" for key, value in list(content.items())[:8])
        raise SourceError(f"{path}: no weights found under {', '.join(KEYS)}; it holds {listed}")
    where, value = found
    what = "model" if isinstance(value, nn.Module) else "weights"
    notes = [f"took the {what} under {where!r}"] if where else []
    averaged = [key for key in AVERAGED if _is_weights(content.get(key)) and not where.startswith(key)]
    if averaged:
        notes.append(f"the averaged weights under {averaged[0]!r} were left")
    archs = tuple(dict.fromkeys(_written_archs(content)))
    if isinstance(value, nn.Module):
        check_whole(value, path)
        return Checkpoint(value, {}, tuple(notes), archs)
    state, segments = stripped({str(key): tensor for key, tensor in value.items()})
    if segments:
        notes.append(f"stripped {', '.join(map(repr, segments))} from the names")
    return Checkpoint(None, state, tuple(notes), archs, modules_of(value, segments))


def weights_of(module: nn.Module, path: str) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a module from a file, without calling any of its code."""
    check_whole(module, path)
    state = {}
    for prefix, part in nn.Module.named_modules(module):
        for key, tensor in {**part._parameters, **part._buffers}.items():
            if isinstance(tensor, Tensor) and key not in part._non_persistent_buffers_set:
                state[f"{prefix}.{key}" if prefix else key] = tensor
    return state


def _inside(content: Mapping[Any, Any], depth: int) -> Iterator[tuple[str, Any]]:
    """Every module or state dict in a checkpoint with its key, in order of preference."""
    if _is_state_dict(content):
        yield "", content
        return
    for key in (*KEYS, *AVERAGED):
        value = content.get(key)
        if _is_weights(value):
            yield key, value
        elif isinstance(value, Mapping) and depth:
            for inner, found in _inside(value, depth - 1):
                yield f"{key}.{inner}" if inner else key, found


def _is_weights(value: object) -> bool:
    return isinstance(value, nn.Module) or (isinstance(value, Mapping) and _is_state_dict(value))


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    """Tensors under dotted names, beside which modules may keep state of other types (`_extra_state`)."""
    tensors = [key for key, value in content.items() if isinstance(value, Tensor)]
    return bool(tensors) and all(
        isinstance(key, str) and (isinstance(value, Tensor) or key.endswith("_extra_state"))
        for key, value in content.items()
    )


def _written_archs(content: Mapping[Any, Any]) -> Iterator[str]:
    """timm writes `arch` and `version`, the ImageNet example `arch`, torchvision's scripts `args.model`.

    What a file may not name is passed over like a name that no library knows.
    """
    args = content.get("args")
    for value in (content.get("arch"), getattr(args, "model", None), getattr(args, "arch", None)):
        if not (isinstance(value, str) and is_builder(f"timm:{value}")):
            continue
        if "version" not in content:
            yield f"torchvision:{value}"
        if "lr_scheduler" not in content and "best_acc1" not in content:
            yield f"timm:{value}"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises: SourceError where it is damaged."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
        if "binarize" in said or said.get("format", "").startswith("binarize"):
            raise SourceError(f"{path}: the weights of an already binarized model; {FLOAT}")
        return load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, RuntimeError) as error:
        raise SourceError(f"{path}: damaged safetensors file: {error}") from error


def refuse_no_float(names: Iterable[str], path: str) -> None:
    """Raises: SourceError, where names in a state dict are those of a binarized or quantized model."""
    for name in names:
        if BINARIZED_KEY.search(name):
            raise SourceError(f"{path}: the state dict of an already binarized model ({name}); {FLOAT}")
        if QUANTIZED_KEY.search(name):
            raise SourceError(f"{path}: the state dict of an already quantized model ({name}); {FLOAT}")
