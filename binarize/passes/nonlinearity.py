"""Activations in front of a sign give way to the scheme's nonlinearity, or go."""

from __future__ import annotations

import operator

import torch.fx
from torch import nn

from binarize.errors import RewriteError
from binarize.modules.places import set_everywhere
from binarize.planning.record.edit import NewActivation
from binarize.planning.record.edit_kinds import Attach, MoveActivation, Replace, ReplaceActivation

__all__ = ["attach_module", "move_activation", "replace_activation", "replace_module"]


# Where a node's `meta` keeps what its readers get since an edit put something between.
READ = "binarize_read"


def replace_module(root: nn.Module, edit: Replace) -> None:
    """Put the nonlinearity (or nn.Identity) where an activation module stands that only one call uses."""
    old = root.get_submodule(edit.container)
    new = _like(root, edit.container, edit.new, old.training)
    # The tables of hooks themselves, so that the user's handles still remove them.
    hooks = {name: value for name, value in vars(old).items() if "hook" in name and "state_dict" not in name}
    vars(new).update(hooks)
    set_everywhere(root, edit.container, new)


def attach_module(root: nn.Module, edit: Attach) -> None:
    """Hang a new nonlinearity under a container, for an activation that was a function or shared between calls."""
    parent, _, name = edit.container.rpartition(".")
    owner = root.get_submodule(parent)
    if hasattr(owner, name):
        raise RewriteError(f"attach: {edit.container} exists already")
    owner.add_module(name, _like(root, edit.container, edit.new, owner.training))


def replace_activation(graph: torch.fx.Graph, edit: ReplaceActivation) -> None:
    """Replace one call of an activation by a call of the edit's module; without one, its input is passed on."""
    node = find_node(graph, edit.node, edit.op)
    value = _argument(node)
    if edit.module is not None:
        with graph.inserting_after(node):
            new = graph.create_node("call_module", relative(edit.module, edit.container), (value,))
        value = new
    node.replace_all_uses_with(value)
    graph.erase_node(node)


def move_activation(graph: torch.fx.Graph, edit: MoveActivation) -> None:
    """Let a call of an activation work on the value of another node, in front of the add that reads it."""
    node, behind = find_node(graph, edit.node, edit.op), find_node(graph, edit.behind, edit.op)
    value = _argument(node)
    node.replace_all_uses_with(value)
    node.meta[READ] = value
    if edit.add is None:
        behind.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
    else:
        add = find_node(graph, edit.add, edit.op)
        add.replace_input_with(behind, node)
        # Gradients of the nonlinearity may need its output as it was.
        if add.target is operator.iadd:
            add.target = operator.add
        elif add.op == "call_method":
            add.target = str(add.target).rstrip("_")
    node.replace_input_with(value, behind)
    behind.append(node)


def _argument(node: torch.fx.Node) -> torch.fx.Node:
    """What a call of an activation works on."""
    value = node.args[0] if node.args else node.kwargs["input"]
    assert isinstance(value, torch.fx.Node)
    return value


def find_node(graph: torch.fx.Graph, name: str, op: str) -> torch.fx.Node:
    """The node of that name.

    Raises: RewriteError, where the graph is not the one that was planned for.
    """
    for node in graph.nodes:
        if node.name == name:
            return node
    raise RewriteError(
        f"{op}: the container's graph has no node {name!r}; it was planned on another version of its code"
    )


def relative(module: str, container: str) -> str:
    """A module's path as seen from the container."""
    return module.removeprefix(f"{container}.") if container else module


def _like(root: nn.Module, path: str, said: NewActivation, training: bool) -> nn.Module:
    """The new module, on the device and in the dtype of the model around it."""
    if said.part is None:
        new: nn.Module = nn.Identity()
    else:
        new = said.part.build(channels=said.channels, channel_dim=said.channel_dim)
    parent = path.rpartition(".")[0]
    while True:
        parameter = next((p for p in root.get_submodule(parent).parameters() if p.is_floating_point()), None)
        if parameter is not None or not parent:
            break
        parent = parent.rpartition(".")[0]
    if parameter is not None:
        new.to(device=parameter.device, dtype=parameter.dtype)
    return new.train(training)
