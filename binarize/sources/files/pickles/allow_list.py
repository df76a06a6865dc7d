"""What a pickle may name.

Classes of `torch.nn`, `torchvision` and `timm` that are modules or enumerations, classes of the standard library
and numpy that training scripts put beside the weights, and the few functions that torchvision's own models
refer to. Never every name below a package: some download, and whatever is allowed can be called by a pickle.
"""

from __future__ import annotations

import copy
import enum
import importlib
import re
import warnings
from collections import OrderedDict
from typing import Any

from torch import nn

from binarize.former_names import FORMER

__all__ = ["PACKAGES", "StandIn", "resolve"]

# The last one is the network of the demo.
PACKAGES = ("torch.nn", "torchvision", "timm", "binarize.demo")
REFUSED_CLASSES = ("torch.nn.parallel.distributed.DistributedDataParallel",)  # joins a process group
# Wrappers of C++ objects and of whole trainings, which do more than compute.
REFUSED_MODULES = (
    "torch.nn.cpp",
    "timm.task",
    "timm.data",
    "timm.optim",
    "torchvision.datasets",
    "torchvision.io",
)
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
REFUSED_BASES = ("torch.fx.graph_module.GraphModule", "torch.jit._script.ScriptModule")  # compile source text

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
# Functions without a module that names them.
BUILTIN = {"torch._C._nn.gelu": nn.functional.gelu}

USUAL = vars(nn.Module())
# What a stand-in keeps of what every module has, and what it has itself and takes from no file.
KEPT = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
OWN = frozenset({*dir(nn.Module), *USUAL})


class StandIn(nn.Module):
    """Takes the place of a class outside the list: it keeps its attributes and does nothing.

    A module among them still shows its parameters, so that they can be put into an architecture.
    """

    def __new__(cls, *_: object) -> StandIn:
        return object.__new__(cls)

    @classmethod
    def of(cls, state: object) -> StandIn:
        """One with the attributes of the object whose place it takes, where they take the place of no method."""
        made = object.__new__(cls)
        found = state if isinstance(state, dict) else {}
        attributes = {name: value for name, value in found.items() if name not in OWN}
        for name, usual in USUAL.items():
            kept = name in KEPT and type(found.get(name)) in (dict, OrderedDict, set)
            attributes[name] = found[name] if kept else copy.copy(usual)
        vars(made).update({name: value for name, value in attributes.items() if isinstance(name, str)})
        return made


def resolve(name: str) -> Any:
    """The class or function of that name where it is allowed, else None. Imports only from PACKAGES."""
    if name in BUILTIN:
        return BUILTIN[name]
    if len(name) > 200 or not NAME.fullmatch(name):
        return None
    path, _, attribute = name.rpartition(".")
    path = FORMER.get(path, (path,))[0]
    name = f"{path}.{attribute}"
    if not any(path == package or path.startswith(f"{package}.") for package in PACKAGES):
        return None
    if any(path == refused or path.startswith(f"{refused}.") for refused in REFUSED_MODULES):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of modules that are to go: nothing the user can change
            found = getattr(importlib.import_module(path), attribute, None)
    except (ImportError, ValueError):
        return None
    return found if found is not None and _is_allowed(name, found) else None


def _is_allowed(name: str, found: object) -> bool:
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
