"""A module that a library's builder made: on the CPU, without data or with downloaded weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from binarize.errors import SourceError

__all__ = ["Built", "downloaded", "made", "replace_head"]


@dataclass(frozen=True)
class Built:
    """A module made by a named builder, with what is known of its input.

    `reproducible` says that `build(spec)` alone gives the same structure again, offline.
    """

    module: nn.Module
    input_shape: tuple[int, ...] | None
    weights: str | None
    inputs: int = 1
    reproducible: bool = True


def replace_head(module: nn.Module, fresh: nn.Module) -> list[str]:
    """Takes over from `fresh` the layers whose parameters have another shape, and gives their names.

    `fresh` differs only in the number of classes, so that these are the layers that give the classes.
    """
    wanted = {key: value.shape for key, value in fresh.named_parameters()}
    owners = {
        key.rpartition(".")[0]
        for key, value in module.named_parameters()
        if key in wanted and wanted[key] != value.shape
    }
    for owner in sorted(owners):
        module.set_submodule(owner, fresh.get_submodule(owner))
    return sorted(owners)


def downloaded(spec: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` gives; failures of the network and of files become a SourceError."""
    try:
        return make()
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceError(f"{spec}: its weights cannot be loaded: {reason}") from error


def made(make: Callable[[], nn.Module], meta: bool) -> nn.Module:
    """What `make` gives, on the CPU or without parameter data.

    Builders that compute with tensors cannot run on the meta device; their modules are moved there instead.
    """
    if not meta:
        return make()
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):
        return make().to("meta")
