"""A torch.fx.GraphModule whose forward is made without printing names: copied, pickled and edited like any other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch.fx
from torch import nn

from binarize.capture.code import EscapedCode, Guard, code_of
from binarize.capture.expressions import Globals

__all__ = ["GraphModel"]


class GraphModel(torch.fx.GraphModule):
    """A module that runs a graph."""

    # What has to be asked ahead of some steps whenever the graph runs.
    guard: ClassVar[Guard | None] = None

    def __init__(self, root: nn.Module, graph: torch.fx.Graph, class_name: str = "GraphModel") -> None:
        graph.set_codegen(EscapedCode(type(self).guard))
        super().__init__(root, graph, class_name)

    def __reduce__(self) -> tuple[Any, ...]:
        code = code_of({"forward": self.graph}, guard=type(self).guard)
        state = {name: value for name, value in vars(self).items() if name != "_graph"}
        # Each GraphModule has a class of its own below the one that was written down.
        return _rebuild_graph, (type(self).__mro__[1], type(self).__name__, state, code.source, code.names)


class _Closed(torch.fx.Tracer):
    """Looks into no module and no function."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _rebuild_graph(
    cls: type[GraphModel], name: str, state: Mapping[str, Any], source: str, names: Globals
) -> torch.fx.GraphModule:
    """A pickle's way back: whoever unpickles without a check trusts the file."""
    namespace = {name: torch if kind == "module" else value for name, (kind, value) in names.items()}
    exec(compile(source, "<forward of a packed model>", "exec"), namespace)
    functions = tuple(
        value
        for kind, value in names.values()
        if kind == "object" and callable(value) and (cls.guard is None or value is not cls.guard.check)
    )
    root = type(name, (nn.Module,), {"forward": namespace["forward"]})()
    vars(root).update(state)
    graph = _Closed(autowrap_modules=(math,), autowrap_functions=functions).trace(root)
    return cls(root, graph, name)
