"""Checkpoints: finding the weights in them, and putting the weights into an architecture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from binarize.errors import SourceError
from binarize.sources.float_check import check_whole
from binarize.sources.prefixes import COUNTERS, modules_of, stripped
from binarize.trust import is_builder

__all__ = [
    "Checkpoint",
    "Mismatch",
    "fill",
    "find_weights",
    "mismatch",
    "new_head",
    "read_safetensors",
    "refuse_no_float",
    "weights_of",
    "x",
]

# Where training scripts put the weights, most specific first. Averaged weights come last.
KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
AVERAGED = ("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "swa_state_dict")


BINARIZED_KEY = re.compile(r"\.(weight_binarizer|input_binarizer)\.")
QUANTIZED_KEY = re.compile(
    r"\.(_packed_params|qweight|qzeros|zero_point|weight_scale|weight_fake_quant|activation_post_process|"
    r"absmax|quant_map|quant_state|SCB)(\.|$)"
)
SHOWN = 4
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


@dataclass(frozen=True)
class Mismatch:
    """How a state dict differs from a module: names, and (name, wanted, found) where the shape differs."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)


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


def mismatch(module: nn.Module, state: Mapping[str, Tensor]) -> Mismatch:
    """How `state` differs from what `module` takes."""
    wanted = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    shapes = [
        (key, tuple(value.shape), tuple(state[key].shape))
        for key, value in wanted.items()
        if key in state and value.shape != state[key].shape
    ]
    return Mismatch(
        [key for key in wanted if key not in state and not key.endswith(COUNTERS)],
        [key for key in state if key not in wanted and not key.endswith("_extra_state")],
        shapes,
    )


def new_head(difference: Mismatch, classes: int | None = None) -> int | None:
    """The number of classes in the file, where nothing but the number of classes differs.

    A head may have several numbers a class (a box has four): `classes` is the number that the module has, else it is the
    least first axis that differs.
    """
    if difference.missing or difference.unexpected or not difference.shapes:
        return None
    if any(not found or wanted[1:] != found[1:] for _, wanted, found in difference.shapes):
        return None
    own = classes or min(wanted[0] for _, wanted, _ in difference.shapes)
    counts = {found[0] * own / wanted[0] for _, wanted, found in difference.shapes}
    count = counts.pop()
    return int(count) if not counts and count == int(count) else None


def fill(make: Callable[[bool], nn.Module], state: Mapping[str, Tensor], path: str, arch: str) -> nn.Module:
    """The architecture with the weights of `state`; `make(meta)` builds it.

    Built without data where that loses nothing, so that no random weights are drawn only to be replaced.
    Floating-point tensors take the architecture's precision.

    Raises: SourceError listing what does not fit.
    """
    module = make(True)
    difference = mismatch(module, state)
    if difference:
        raise SourceError(_described(difference, path, arch))
    whole = not _holds_more_than_its_state(module)
    if not whole and any(tensor.is_meta for tensor in module.state_dict().values()):
        module = make(False)
    wanted = module.state_dict()
    fitted = {key: _converted(path, key, value, wanted[key]) for key, value in state.items() if key in wanted}
    try:
        module.load_state_dict(fitted, strict=False, assign=whole)
    except (RuntimeError, TypeError, ValueError) as error:
        raise SourceError(f"{path} does not fit --arch {arch}: {error}") from error
    return module


def _converted(path: str, key: str, value: Tensor, wanted: Tensor) -> Tensor:
    """A tensor in the architecture's precision; whole numbers and 8-bit floats do not stand for weights."""
    if not isinstance(value, Tensor) or not isinstance(wanted, Tensor):  # a module's own extra state
        return value
    plain = value.is_floating_point() and value.dtype.itemsize > 1
    if wanted.is_floating_point() and not plain:
        raise SourceError(f"{path}: already quantized: {key} is {value.dtype}; {FLOAT}")
    return value.to(wanted.dtype) if plain else value


def _holds_more_than_its_state(module: nn.Module) -> bool:
    """Whether tensors live outside the state dict, or under two names: `assign` would lose those."""
    if len(list(module.parameters())) != sum(1 for _ in module.named_parameters(remove_duplicate=False)):
        return True
    for part in module.modules():
        if part._non_persistent_buffers_set:
            return True
        plain = (value for key, value in vars(part).items() if key not in ("_parameters", "_buffers"))
        for value in plain:
            items = value if isinstance(value, (list, tuple)) else (value,)
            if any(isinstance(item, Tensor) for item in items):
                return True
    return False


def refuse_no_float(names: Iterable[str], path: str) -> None:
    """Raises: SourceError, where names in a state dict are those of a binarized or quantized model."""
    for name in names:
        if BINARIZED_KEY.search(name):
            raise SourceError(f"{path}: the state dict of an already binarized model ({name}); {FLOAT}")
        if QUANTIZED_KEY.search(name):
            raise SourceError(f"{path}: the state dict of an already quantized model ({name}); {FLOAT}")


def _described(difference: Mismatch, path: str, arch: str) -> str:
    """Which names and shapes do not fit, a few of each, and what that usually means."""
    refuse_no_float(difference.unexpected, path)
    lines = [f"{path} does not fit --arch {arch}:"]
    for title, keys in (("missing", difference.missing), ("not in the architecture", difference.unexpected)):
        if keys:
            lines.append(f"  {title} ({len(keys)}): {_few(keys)}")
    if difference.shapes:
        shown = [f"{key} is {x(found)}, expected {x(wanted)}" for key, wanted, found in difference.shapes]
        lines.append(f"  another shape ({len(shown)}): {_few(shown)}")
    others = (*difference.missing, *difference.unexpected)
    if others and not difference.shapes and all(key.startswith(("aux", "AuxLogits")) for key in others):
        lines.append("  only auxiliary heads differ; arguments can be given: --arch 'NAME(aux_logits=False)'")
    return "\n".join(lines)


def _few(items: list[str]) -> str:
    more = f", ... and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def x(shape: tuple[int, ...]) -> str:
    """`64x3x7x7`."""
    return "x".join(map(str, shape)) or "a scalar"
