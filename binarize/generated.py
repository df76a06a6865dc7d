"""A module's `forward` replaced by printed code, its object kept: attributes, hooks, parameter names, isinstance.

The object's class becomes a generated subclass of its own class whose only override is `forward`. Pickling and copying
rebuild that class from (base class, source), so no torch.fx object is ever stored.
"""

from __future__ import annotations

import hashlib
import importlib
import linecache
import re
import types
from collections.abc import Mapping
from typing import Any

import torch.fx
from torch import nn

__all__ = ["forward_source", "give_forward", "is_generated", "source_hash"]

# Names in the printed code -> ("module", name) for modules, ("object", object) for all else.
Globals = dict[str, tuple[str, Any]]

# Names of the functions in a source.
_FUNCTION = re.compile(r"^def (\w+)\(", re.MULTILINE)

_classes: dict[tuple[type, str], type[nn.Module]] = {}


def give_forward(
    module: nn.Module, graph: torch.fx.Graph, methods: Mapping[str, torch.fx.Graph] | None = None
) -> str:
    """Let `module` run `graph` from now on, and `methods` under their names. Returns the source of all of them."""
    source = ""
    names: Globals = {}
    for function, part in {"forward": graph, **(methods or {})}.items():
        part.lint()
        code = part.python_code("self")
        source += code.src.replace("def forward(", f"def {function}(", 1)
        for name, value in code.globals.items():
            # torch.fx lists its own modules too, whether the code uses them or not.
            if re.search(rf"\b{name}\b", code.src):
                is_module = isinstance(value, types.ModuleType)
                names[name] = ("module", value.__name__) if is_module else ("object", value)
    module.__class__ = _generated_class(type(module), source, names)
    return source


def is_generated(module: nn.Module) -> bool:
    """Whether the module's forward was rewritten."""
    return "_binarize_source" in vars(type(module))


def forward_source(module: nn.Module) -> str:
    """The source of a rewritten forward."""
    return str(vars(type(module))["_binarize_source"])


def source_hash(source: str) -> str:
    """sha256 of a rewritten forward, kept in the plan to notice another version of the model's code."""
    return hashlib.sha256(source.encode()).hexdigest()


def _generated_class(base: type[nn.Module], source: str, names: Globals) -> type[nn.Module]:
    key = (base, source)
    if key not in _classes:
        namespace = {
            name: importlib.import_module(value) if kind == "module" else value
            for name, (kind, value) in names.items()
        }
        filename = f"<forward of {base.__qualname__} rewritten by binarize, {source_hash(source)[:12]}>"
        exec(compile(source, filename, "exec"), namespace)
        # Tracebacks and torch.compile show the lines.
        linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
        _classes[key] = type(
            base.__name__,
            (base,),
            {
                **{name: namespace[name] for name in _FUNCTION.findall(source)},
                "__reduce_ex__": _reduce,
                "__module__": base.__module__,
                "__qualname__": base.__qualname__,
                "__doc__": base.__doc__,
                "_binarize_source": source,
                "_binarize_globals": names,
            },
        )
    return _classes[key]


def _reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    cls = type(self)
    get_state = getattr(self, "__getstate__", None)
    state = get_state() if get_state is not None else self.__dict__
    return _rebuild, (cls.__mro__[1], vars(cls)["_binarize_source"], vars(cls)["_binarize_globals"]), state


def _rebuild(base: type[nn.Module], source: str, names: Globals) -> nn.Module:
    cls = _generated_class(base, source, names)
    return cls.__new__(cls)
