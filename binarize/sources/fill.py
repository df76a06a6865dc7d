"""Weights put into an architecture: what does not fit, a head of other classes, and the loading itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from binarize.errors import SourceError
from binarize.sources.prefixes import COUNTERS
from binarize.sources.state_dicts import FLOAT, refuse_no_float

__all__ = ["Mismatch", "fill", "mismatch", "new_head", "x"]

# Names of each sort in a message.
SHOWN = 4


@dataclass(frozen=True)
class Mismatch:
    """How a state dict differs from a module: names, and (name, wanted, found) where the shape differs."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)


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
