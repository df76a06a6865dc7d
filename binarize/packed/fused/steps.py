"""The steps of a traced model: what one calls, its shape, who reads it, and the straight lines of an activation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from binarize.binarizers.nonlinearity import PiecewiseLinear, piecewise_of

__all__ = ["as_node", "calls_of", "form_of", "module_at", "only_user", "shape_of", "skip_reader", "table_of"]


def shape_of(node: Node) -> tuple[int, ...] | None:
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return None if shape is None else tuple(shape)


def module_at(traced: GraphModule, node: object, kind: type | tuple[type, ...]) -> Any:
    if isinstance(node, Node) and node.op == "call_module" and len(node.args) == 1 and not node.kwargs:
        module = traced.get_submodule(str(node.target))
        return module if isinstance(module, kind) else None
    return None


def calls_of(traced: GraphModule, path: str) -> int:
    return sum(node.op == "call_module" and node.target == path for node in traced.graph.nodes)


def only_user(traced: GraphModule, node: Node, kind: type | tuple[type, ...]) -> Any:
    (user,) = node.users if len(node.users) == 1 else (None,)
    return module_at(traced, user, kind)


def skip_reader(traced: GraphModule, node: Node) -> None:
    """The only reader of a node, which the node now does itself, leaves the graph."""
    (user,) = node.users
    node.meta = dict(user.meta)
    user.replace_all_uses_with(node)
    traced.graph.erase_node(user)


def as_node(value: object) -> Node:
    assert isinstance(value, Node)
    return value


def form_of(module: nn.Module | None) -> PiecewiseLinear | None:
    """The straight lines of an activation; None where it runs as it is."""
    form = None if module is None else piecewise_of(module)
    return form if isinstance(form, PiecewiseLinear) else None


def table_of(form: PiecewiseLinear, channels: int, axes: int) -> Tensor | None:
    """(pre, positive, negative, post) of y = (z > 0 ? positive z : negative z) + post, z = x + pre."""
    if form.limited or (form.channels > 1 and form.channel_dim % axes != 1):
        return None
    return form.table(channels)
