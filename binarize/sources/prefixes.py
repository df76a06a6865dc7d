"""Names that wrappers put around a model's own: DataParallel, torch.compile, Lightning, an average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["COUNTERS", "inside", "modules_of", "outer_names", "stripped", "unwrapped"]

# Segments that wrappers add: DataParallel, torch.compile, activation checkpointing, FSDP.
WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
OUTER = ("module.", "model.", "net.", "network.")
COUNTERS = ("num_batches_tracked",)  # absent from checkpoints of torch before 0.4.1


def stripped(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The state without the segments that wrappers add, and which those were."""
    used = [segment for segment in WRAPPERS if any(segment in key for key in state)]
    for segment in used:
        state = {key.replace(segment, ""): value for key, value in state.items()}
    while True:
        # An average of weights counts what it has averaged beside the model.
        inner = {key: value for key, value in state.items() if key != "n_averaged"}
        if not inner or not all(key.startswith("module.") for key in inner):
            return state, used
        used.append("module.")
        state = {key.removeprefix("module."): value for key, value in inner.items()}


def modules_of(state: Mapping[Any, Any], segments: list[str]) -> frozenset[str]:
    """The paths that torch wrote beside a state dict (the versions of its modules), without the `segments` of wrappers."""
    versions = getattr(state, "_metadata", None)
    paths = (
        [f"{path}." for path in versions if isinstance(path, str)] if isinstance(versions, Mapping) else []
    )
    for segment in segments:
        paths = [
            path.removeprefix(segment) if segment == "module." else path.replace(segment, "")
            for path in paths
        ]
    return frozenset(path.rstrip(".") for path in paths)


def outer_names(state: Mapping[str, Tensor]) -> list[str]:
    """Names that may have been put around a model's own (`model.`, `backbone.`), the usual ones first."""
    first = {f"{key.partition('.')[0]}.": None for key in state if "." in key}
    second = {
        outer + key.removeprefix(outer).partition(".")[0] + ".": None
        for outer in OUTER
        for key in state
        if key.startswith(outer) and key.removeprefix(outer).count(".")
    }
    return [*(outer for outer in OUTER if outer in first), *(o for o in first if o not in OUTER), *second]


def inside(state: Mapping[str, Tensor], outer: str) -> dict[str, Tensor]:
    """The weights under an outer name, without it."""
    return {key.removeprefix(outer): value for key, value in state.items() if key.startswith(outer)}


def unwrapped(state: dict[str, Tensor], module: nn.Module) -> tuple[dict[str, Tensor], str]:
    """The state without an outer name such as `model.` if it fits the module only then, and that name."""
    wanted = {key for key in module.state_dict() if not key.endswith(COUNTERS)}
    if wanted <= state.keys():
        return state, ""
    for outer in outer_names(state):
        inner = inside(state, outer)
        if inner and wanted <= inner.keys():
            return inner, outer
    return state, ""
