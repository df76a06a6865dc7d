"""What a pickle may name.

Classes of `torch.nn`, `torchvision` and `timm` that are modules or enumerations, classes of the standard library
and numpy that training scripts put beside the weights, and the few functions that torchvision's own models
refer to. Never every name below a package: some download, and whatever is allowed can be called by a pickle.
"""

from __future__ import annotations

import argparse
import enum
import functools
import importlib
import pathlib
from typing import Any

from torch import nn

__all__ = ["PACKAGES", "StandIn", "resolve", "stand_in"]

# The last one is the network of the demo.
PACKAGES = ("torch.nn", "torchvision", "timm", "binarize.demo_data")
REFUSED_CLASSES = ("torch.nn.parallel.distributed.DistributedDataParallel",)  # joins a process group
REFUSED_BASES = ("torch.fx.graph_module.GraphModule", "torch.jit._script.ScriptModule")  # compile source text

# Paths become pure paths, which touch no disk.
PLAIN_CLASSES: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "functools.partial": functools.partial,
    "pathlib.PosixPath": pathlib.PurePosixPath,
    "pathlib.WindowsPath": pathlib.PureWindowsPath,
}
# Functions and plain classes that modules of these packages refer to, the hooks of weight and spectral norm too.
HARMLESS = (
    "torch.nn.functional.gelu",
    "torch.nn.functional.relu",
    "torch.nn.modules.module._WrappedHook",
    "torch.nn.utils.spectral_norm.SpectralNorm",
    "torch.nn.utils.spectral_norm.SpectralNormLoadStateDictPreHook",
    "torch.nn.utils.spectral_norm.SpectralNormStateDictHook",
    "torch.nn.utils.weight_norm.WeightNorm",
    "torchvision.models.detection._utils.BalancedPositiveNegativeSampler",
    "torchvision.models.detection._utils.BoxCoder",
    "torchvision.models.detection._utils.BoxLinearCoder",
    "torchvision.models.detection._utils.Matcher",
    "torchvision.models.detection._utils.SSDMatcher",
    "torchvision.models.optical_flow.raft._pass_through_h",
    "torchvision.ops.boxes.box_iou",
)
# Both spellings: files written under numpy 1 and numpy 2.
NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMPY_FUNCTIONS = ("scalar", "_reconstruct")


class StandIn(nn.Module):
    """Takes the place of a class outside the list: it keeps its attributes and does nothing.

    A module among them still shows its parameters, so that they can be put into an architecture.
    """

    def __new__(cls, *_: object) -> StandIn:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def stand_in() -> type[StandIn]:
    """A stand-in class for one foreign name."""
    return type("StandIn", (StandIn,), {})


def resolve(name: str) -> list[Any]:
    """What to allow for a name: the object, beside it what its instances need, or nothing.

    Imports only from PACKAGES and numpy.
    """
    if name in PLAIN_CLASSES:
        return [PLAIN_CLASSES[name]]
    path, _, attribute = name.rpartition(".")
    if path.partition(".")[0] == "numpy":
        return _resolve_numpy(path, attribute)
    if not any(path == package or path.startswith(f"{package}.") for package in PACKAGES):
        return []
    try:
        found = getattr(importlib.import_module(path), attribute, None)
    except (ImportError, ValueError):
        return []
    return [found] if found is not None and _is_allowed(name, found) else []


def _is_allowed(name: str, found: Any) -> bool:
    if name in HARMLESS:
        return True
    if not isinstance(found, type) or f"{found.__module__}.{found.__qualname__}" != name:
        return False
    if issubclass(found, enum.Enum):
        return True
    bases = {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__}
    return (
        issubclass(found, nn.Module) and name not in REFUSED_CLASSES and not bases.intersection(REFUSED_BASES)
    )


def _resolve_numpy(path: str, attribute: str) -> list[Any]:
    """Scalars and arrays. A dtype's own class (`Float64DType`) is not named in the file, but made by it."""
    import numpy as np

    if path in NUMPY_MODULES and attribute in NUMPY_FUNCTIONS:
        try:
            return [getattr(importlib.import_module("numpy._core.multiarray"), attribute)]
        except ImportError:
            return [getattr(importlib.import_module("numpy.core.multiarray"), attribute)]
    if (path, attribute) == ("numpy", "dtype"):
        return [np.dtype, *(type(np.dtype(code)) for code in np.typecodes["All"])]
    return [np.ndarray] if (path, attribute) == ("numpy", "ndarray") else []
