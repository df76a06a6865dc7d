"""A module's `forward` replaced by generated code, its object kept: attributes, hooks, parameter names, isinstance.

The object's class becomes a generated subclass of its own class whose only override is `forward`. Pickling and copying
rebuild that class from (base class, source), so no torch.fx object is ever stored.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import linecache
from collections.abc import Mapping
from typing import Any

import torch.fx
from torch import nn

from binarize.capture.code import code_of
from binarize.errors import RewriteError

__all__ = ["forward_source", "give_forward", "is_generated", "printed_hash", "source_hash"]


class _Globals(dict[str, tuple[str, Any]]):
    """Names in the source -> ("module", name) for modules, ("object", object) for all else. Copies of a model share it."""

    def __deepcopy__(self, memo: object) -> _Globals:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


# (base class, source, objects in it) -> the generated class
_classes: dict[tuple[Any, ...], type[nn.Module]] = {}


def give_forward(
    module: nn.Module, graph: torch.fx.Graph, methods: Mapping[str, torch.fx.Graph] | None = None
) -> str:
    """Let `module` run `graph` from now on, and `methods` under their names. Returns the source of all of them.

    Raises: RewriteError, where the graph is none, or reads what the module does not have.
    """
    functions = {"forward": graph, **(methods or {})}
    for part in functions.values():
        try:
            part.lint()
        except RuntimeError as error:
            raise RewriteError(f"a forward is no program: {error.args[0].splitlines()[0]}") from error
    code = code_of(functions, module)
    module.__class__ = _generated_class(type(module), code.source, _Globals(code.names))
    return code.source


def is_generated(module: nn.Module) -> bool:
    """Whether the module's forward was rewritten."""
    return "_binarize_source" in vars(type(module))


def forward_source(module: nn.Module) -> str:
    """The source of a rewritten forward."""
    return str(vars(type(module))["_binarize_source"])


def source_hash(source: str) -> str:
    """sha256 of a rewritten forward, kept in the plan to notice another version of the model's code."""
    return hashlib.sha256(source.encode()).hexdigest()


def printed_hash(graph: torch.fx.Graph, methods: Mapping[str, torch.fx.Graph]) -> str:
    """The hash that was kept for the same forward while torch.fx printed it; that text is never run."""
    text = ""
    for function, part in {"forward": graph, **methods}.items():
        text += part.python_code("self").src.replace("def forward(", f"def {function}(", 1)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _generated_class(base: type[nn.Module], source: str, names: _Globals) -> type[nn.Module]:
    held = tuple((name, value if kind == "module" else id(value)) for name, (kind, value) in names.items())
    key = (base, source, held)
    if key not in _classes:
        namespace = {
            name: importlib.import_module(value) if kind == "module" else value
            for name, (kind, value) in names.items()
        }
        functions = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        filename = f"<forward of {base.__qualname__} rewritten by binarize, {source_hash(source)[:12]}>"
        exec(compile(source, filename, "exec"), namespace)
        # Tracebacks and torch.compile show the lines.
        linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
        _classes[key] = type(
            base.__name__,
            (base,),
            {
                **{name: namespace[name] for name in functions},
                "__reduce_ex__": _reduce,
                "__module__": base.__module__,
                "__qualname__": base.__qualname__,
                "__doc__": base.__doc__,
                "_binarize_source": source,
                "_binarize_globals": names,
            },
        )
    return _classes[key]


def _reduce(self: nn.Module, protocol: object) -> tuple[Any, ...]:
    cls = type(self)
    get_state = getattr(self, "__getstate__", None)
    state = get_state() if get_state is not None else self.__dict__
    return _rebuild, (cls.__mro__[1], vars(cls)["_binarize_source"], vars(cls)["_binarize_globals"]), state


def _rebuild(base: type[nn.Module], source: str, names: Mapping[str, tuple[str, Any]]) -> nn.Module:
    """A pickle's way back, of this version and of older ones: whoever unpickles without a check trusts the file."""
    cls = _generated_class(base, source, names if isinstance(names, _Globals) else _Globals(names))
    return cls.__new__(cls)
