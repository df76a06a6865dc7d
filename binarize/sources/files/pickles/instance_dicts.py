"""What an object from a file may hold in its instance dictionary, told before anything of it is called.

An attribute of the instance comes before the class's own: a file that holds `train` or `forward` would choose what
is called later. So an attribute may not have the name of a method, the tables of a module hold what torch puts there
and nothing else, and of all hooks only those of weight norm and spectral norm are known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _WrappedHook
from torch.nn.utils.spectral_norm import (
    SpectralNorm,
    SpectralNormLoadStateDictPreHook,
    SpectralNormStateDictHook,
)
from torch.nn.utils.weight_norm import WeightNorm

from binarize.modules.recurrent import check_recurrent

__all__ = ["HostileObject", "check_attributes", "check_hook_object", "check_module", "is_name"]

NAME_LENGTH = 256
# Power iterations of a spectral norm, each time it is called.
ITERATIONS = 100
TABLES: dict[str, type] = {"_parameters": nn.Parameter, "_buffers": Tensor, "_modules": nn.Module}
USUAL = vars(nn.Module())
HOOKS: dict[str, tuple[type, ...]] = {
    "_forward_pre_hooks": (WeightNorm, SpectralNorm),
    "_state_dict_hooks": (SpectralNormStateDictHook,),
    "_load_state_dict_pre_hooks": (SpectralNormLoadStateDictPreHook,),
}
HOOK_FIELDS: dict[type, tuple[str, ...]] = {
    WeightNorm: ("name", "dim"),
    SpectralNorm: ("name", "dim", "n_power_iterations", "eps"),
    SpectralNormStateDictHook: ("fn",),
    SpectralNormLoadStateDictPreHook: ("fn",),
    _WrappedHook: ("hook", "with_module"),
}


class HostileObject(ValueError):
    """An object of a file that would choose what is called later."""


def is_name(name: object) -> bool:
    """Whether something may name an attribute, a parameter or a child module."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= NAME_LENGTH
        and "." not in name
        and name.isprintable()
        and not (name.startswith("__") and name.endswith("__"))
    )


def check_attributes(kind: type, state: object) -> dict[str, Any]:
    """The attributes of an object of class `kind`, where none takes the place of something of the class.

    Raises: HostileObject naming the attribute, ValueError where they are damaged.
    """
    if not isinstance(state, dict):
        raise ValueError(f"a {kind.__name__} in it has no proper attributes")
    for name, value in state.items():
        if not is_name(name):
            raise HostileObject(f"a {kind.__name__} in it has an attribute named {name!r:.80}")
        _check_place(kind, name, value)
    return state


def check_module(kind: type[nn.Module], state: object) -> dict[str, Any]:
    """The same for a module.

    Raises: HostileObject naming the attribute, ValueError where a table of the module is damaged.
    """
    attributes = check_attributes(kind, state)
    for name, value in attributes.items():
        if name in USUAL and not _is_usual(name, value):
            raise ValueError(f"a {kind.__name__} in it has no proper {name}")
    for name in ("training", *TABLES):
        if name not in attributes:
            raise ValueError(f"a {kind.__name__} in it has no proper {name}")
    seen = set(attributes)
    for table in TABLES:
        for name, value in attributes[table].items():
            if name in seen:
                raise HostileObject(f"a {kind.__name__} in it has {name!r} twice")
            seen.add(name)
            _check_place(kind, name, value)
    for table, known in HOOKS.items():
        for hook in attributes.get(table, {}).values():
            _check_hook(kind, attributes, table, hook, known)
    if issubclass(kind, nn.RNNBase):
        check_recurrent(kind, attributes)
    return attributes


def check_hook_object(kind: type, state: object) -> dict[str, Any]:
    """The attributes of a hook of weight norm or spectral norm.

    Raises: HostileObject where they are others than such a hook has.
    """
    if not isinstance(state, dict) or set(state) != set(HOOK_FIELDS[kind]):
        raise HostileObject(f"a {kind.__name__} in it has other attributes than torch gives it")
    right = {
        "name": is_name,
        "dim": lambda value: value is None or _is_within(value, 8),
        "n_power_iterations": lambda value: _is_within(value, ITERATIONS),
        "eps": lambda value: type(value) is float,
        "fn": lambda value: type(value) is SpectralNorm,
        "hook": lambda value: type(value) is SpectralNormLoadStateDictPreHook,
        "with_module": lambda value: value is False,
    }
    for name, value in state.items():
        if not right[name](value):
            raise HostileObject(f"a {kind.__name__} in it has an odd {name}")
    return state


def _check_place(kind: type, name: str, value: object) -> None:
    """Refuses an attribute that takes the place of a method, or of a value by something that can be called."""
    found = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    inherited = any(name in vars(base) for base in kind.__mro__)
    if not inherited:
        return
    if callable(found) or hasattr(type(found), "__get__"):
        raise HostileObject(f"a {kind.__name__} in it has its own {name!r}, which the class has as a method")
    if callable(value) and not isinstance(value, nn.Module):
        raise HostileObject(f"a {kind.__name__} in it has its own {name!r}, which can be called")
    if name in vars(nn.Module) and value is not None and type(value) is not type(found):
        raise HostileObject(f"a {kind.__name__} in it has its own {name!r}")


def _is_usual(name: str, value: object) -> bool:
    """Whether what every module has is as torch makes it, hooks apart."""
    if name in TABLES:
        return type(value) in (dict, OrderedDict) and all(
            is_name(key) and (inner is None or isinstance(inner, TABLES[name]))
            for key, inner in value.items()  # type: ignore[attr-defined]
        )
    if name == "_non_persistent_buffers_set":
        return type(value) is set and all(isinstance(key, str) for key in value)
    if name in HOOKS:
        return type(value) in (dict, OrderedDict) and all(type(key) is int for key in value)  # type: ignore[attr-defined]
    if isinstance(USUAL[name], dict):  # every other table of hooks
        return type(value) in (dict, OrderedDict) and not value
    return type(value) is bool or (value is None and USUAL[name] is None)


def _check_hook(
    kind: type, attributes: Mapping[str, Any], table: str, hook: object, known: tuple[type, ...]
) -> None:
    inner = hook.hook if type(hook) is _WrappedHook else hook
    if type(inner) not in known or (type(hook) is _WrappedHook) != (table == "_load_state_dict_pre_hooks"):
        raise HostileObject(f"a {kind.__name__} in it has a hook ({type(inner).__name__}) in {table}")
    norm = inner if isinstance(inner, (WeightNorm, SpectralNorm)) else inner.fn  # type: ignore[attr-defined]
    name = norm.name
    parts = ("_g", "_v") if isinstance(norm, WeightNorm) else ("_orig",)
    vectors = () if isinstance(norm, WeightNorm) else ("_u", "_v")
    proper = (
        all(isinstance(attributes["_parameters"].get(name + part), Tensor) for part in parts)
        and all(isinstance(attributes["_buffers"].get(name + part), Tensor) for part in vectors)
        and isinstance(attributes.get(name), (Tensor, type(None)))
    )
    if not proper:
        raise HostileObject(f"a {kind.__name__} in it has a hook for {name!r}, which it does not hold so")
    _check_place(kind, name, attributes.get(name))


def _is_within(value: object, limit: int) -> bool:
    return type(value) is int and -limit <= value <= limit
