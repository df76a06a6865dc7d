"""Real values around binary layers, added in a container's graph.

before   x ── layer ── norm ──────────────── users        add_shortcut, add_value
after    x ── layer ── norm ── (+) [─ act ]─ users
         └── shortcut, or another value ┘
"""

from __future__ import annotations

import operator
from typing import Any

import torch.fx
from torch import nn

from binarize.passes.nonlinearity import READ, find_node, relative
from binarize.planning.record.edit_kinds import AddShortcut, AddValue, ReplaceOperand

__all__ = ["add_shortcut", "add_value", "replace_operand"]


def add_shortcut(graph: torch.fx.Graph, container: nn.Module, edit: AddShortcut) -> None:
    """Add `layer.shortcut(x)` behind a node, x being the layer's own input."""
    after = find_node(graph, edit.after, edit.op)
    site = find_node(graph, edit.source_of, edit.op)
    source = site.args[0] if site.args else next(iter(site.kwargs.values()))
    assert isinstance(source, torch.fx.Node)
    _keep_value(graph, container, source)
    with graph.inserting_after(after):
        path = relative(f"{edit.layer}.shortcut", edit.container)
        carried = graph.create_node("call_module", path, (source,))
    _add(graph, after, carried, edit)


def add_value(graph: torch.fx.Graph, container: nn.Module, edit: AddValue) -> None:
    """Add the value of another node behind a node; what computes that value is moved in front where it stands later."""
    after = find_node(graph, edit.after, edit.op)
    value = _value(graph, edit.value, edit)
    _keep_value(graph, container, value)
    _hoist(graph, value, after)
    _add(graph, after, value, edit)


def replace_operand(graph: torch.fx.Graph, container: nn.Module, edit: ReplaceOperand) -> None:
    """Let an outer add take the last real value in place of the block's shortcut, which went to the first layer."""
    node = find_node(graph, edit.node, edit.op)
    old, new = _value(graph, edit.old, edit), _value(graph, edit.new, edit)
    _keep_value(graph, container, new)
    node.replace_input_with(old, new)
    if node.target is operator.iadd and node.args[0] is new:
        node.target = operator.add


def _value(graph: torch.fx.Graph, name: str, edit: AddValue | ReplaceOperand) -> torch.fx.Node:
    """The node of that name, or what its readers get by now."""
    node = find_node(graph, name, edit.op)
    read: torch.fx.Node = node.meta.get(READ, node)
    return read if edit.summed else node


def _add(
    graph: torch.fx.Graph, after: torch.fx.Node, value: torch.fx.Node, edit: AddShortcut | AddValue
) -> None:
    later = value if value in _nodes_behind(after) else after
    with graph.inserting_after(later):
        total = graph.create_node("call_function", operator.add, (after, value))
    result = total
    if edit.activation:
        with graph.inserting_after(total):
            path = relative(f"{edit.layer}.activation", edit.container)
            result = graph.create_node("call_module", path, (total,))
    after.replace_all_uses_with(result, delete_user_cb=lambda user: user not in (total, value))
    # Readers of an activation that has moved read what it read before.
    after.meta.setdefault(READ, result)


def _out_of_place(function: object) -> Any:
    """`F.relu` for `F.relu_`; any other function as it is."""
    name = str(getattr(function, "__name__", ""))
    if not name.endswith("_") or name.startswith("_"):
        return function
    for home in (torch.nn.functional, torch):
        if getattr(home, name, None) is function:
            return getattr(home, name.rstrip("_"), function)
    return function


def _nodes_behind(node: torch.fx.Node) -> set[torch.fx.Node]:
    nodes = list(node.graph.nodes)
    return set(nodes[nodes.index(node) + 1 :])


def _hoist(graph: torch.fx.Graph, value: torch.fx.Node, before: torch.fx.Node) -> None:
    """Move `value` and what it is computed from in front of `before`, keeping their order."""
    behind = _nodes_behind(before)
    needed, stack = set(), [value]
    while stack:
        node = stack.pop()
        if node in behind and node not in needed:
            needed.add(node)
            stack += node.all_input_nodes
    for node in [n for n in graph.nodes if n in needed]:
        before.prepend(node)


def _keep_value(graph: torch.fx.Graph, container: nn.Module, tapped: torch.fx.Node) -> None:
    """Operations that would overwrite a value which a new add reads work out of place from now on."""
    for user in list(tapped.users):
        if user.op == "call_module":
            module = container.get_submodule(str(user.target))
            if getattr(module, "inplace", False) and user.args[0] is tapped:
                module.inplace = False  # type: ignore[assignment]
        elif user.op == "call_function":
            if user.target is operator.iadd and user.args[0] is tapped:
                user.target = operator.add
            elif user.target is operator.imul and user.args[0] is tapped:
                user.target = operator.mul
            elif user.args and user.args[0] is tapped:
                user.target = _out_of_place(user.target)
            if user.kwargs.get("inplace"):
                user.kwargs = {**user.kwargs, "inplace": False}
        elif user.op == "call_method" and str(user.target).endswith("_") and user.args[0] is tapped:
            user.target = str(user.target).rstrip("_")
