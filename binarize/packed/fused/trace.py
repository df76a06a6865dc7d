"""A packed model -> the steps that it takes. What cannot be traced, or says itself what it computes, stays one step."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.fx.passes.shape_prop import ShapeProp

from binarize.binarizers.nonlinearity import Nonlinearity
from binarize.capture import TraceError
from binarize.capture.graph_model import GraphModel
from binarize.capture.valued import ValuedTracer, trace_on
from binarize.errors import CaptureError
from binarize.modules.outputs import tensors_in
from binarize.packed.agreement import OTHER_INPUTS, are_equal
from binarize.packed.graph.bounds import GUARD
from binarize.packed.layers import PackedLayer

__all__ = ["CLOSED", "graph_of_steps", "traced_steps"]

Closed = Literal["nothing", "childless", "all"]
# Which modules of the user's own stay closed, from the form with most to fuse on.
CLOSED: tuple[Closed, ...] = ("nothing", "childless", "all")


def graph_of_steps(
    model: nn.Module, closed: Closed = "nothing", example: tuple[Tensor, ...] | None = None
) -> Graph:
    """The model's graph, its modules opened as far as they can be, and as `closed` allows.

    Where code asks for values, those of the example answer.

    Raises: CaptureError, where the forward of the model itself cannot be traced.
    """
    try:
        try:
            graph = _Tracer(closed).trace(model)
        except Exception:  # as below
            if example is None:
                raise
            bound = inspect.signature(model.forward).bind(*example)
            bound.apply_defaults()
            graph, any_batch = trace_on(lambda values: _Tracer(closed, values), model, dict(bound.arguments))
            if not any_batch:
                raise TraceError("its steps are others for another batch") from None
    except Exception as error:  # anything can come out of a user's forward run on proxies
        raise CaptureError(f"{type(model).__name__} cannot be traced as a whole: {error}") from error
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    return graph


class _Tracer(ValuedTracer):
    """Opens everything but torch's modules, packed layers, nonlinearities, and what cannot be opened."""

    def __init__(self, closed: Closed, example: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.closed, self.example = closed, example

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (PackedLayer, Nonlinearity)) or super().is_leaf_module(m, module_qualified_name):
            return True
        childless = next(m.children(), None) is None
        return type(m) is not nn.Sequential and (
            self.closed == "all" or (self.closed == "childless" and childless)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._running:
            return super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        steps, stack = len(self.graph.nodes), dict(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # as above; the module runs as it is, which is exact
            for node in reversed(list(self.graph.nodes)[steps:]):
                # A parameter's step is remembered by the tracer for who reads it next.
                if node.op != "get_attr":
                    self.graph.erase_node(node)
            self.module_stack.clear()
            self.module_stack.update(stack)
            return self.create_proxy("call_module", path, args, kwargs)


class _Shapes(ShapeProp):
    """Runs a graph on numbers step by step, as guarded as its forward."""

    def run_node(self, n: Node) -> Any:
        if GUARD.concerns(n):
            GUARD.check(n.target, *self.fetch_args_kwargs_from_env(n))
        return super().run_node(n)


class _Fused(GraphModel):
    """The graph may be that of a file."""

    guard = GUARD


def traced_steps(model: nn.Module, example: tuple[Tensor, ...]) -> _Fused:
    """The model as steps that know their shapes; as many of its modules opened as the model's own results allow."""
    with torch.no_grad():
        # A forward may write into what it is given.
        expected = tensors_in(model(*(one.clone() for one in example)))
        for closed in CLOSED:
            traced = _Fused(model, graph_of_steps(model, closed, example))
            try:
                # Where a step fails, torch prints it.
                with contextlib.redirect_stderr(io.StringIO()):
                    found = tensors_in(_Shapes(traced).propagate(*(one.clone() for one in example)))
            except OTHER_INPUTS:
                continue  # a forward that takes another way where tensors only stand for themselves
            if are_equal(found, expected):
                return traced
    raise CaptureError(
        f"{type(model).__name__} cannot be traced: its steps compute something else than it does"
    )
