"""Activations in front of a sign give way to the scheme's nonlinearity, or go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.fx
from torch import nn

from binarize.errors import RewriteError
from binarize.modules.places import set_everywhere
from binarize.schemes.part import Part

__all__ = ["attach_module", "replace_activation", "replace_module"]


def replace_module(root: nn.Module, path: str, args: Mapping[str, Any]) -> None:
    """Put the nonlinearity (or nn.Identity) where an activation module stands that only one call uses."""
    old = root.get_submodule(path)
    new = _like(root, path, args, old.training)
    # The tables of hooks themselves, so that the user's handles still remove them.
    hooks = {name: value for name, value in vars(old).items() if "hook" in name and "state_dict" not in name}
    vars(new).update(hooks)
    set_everywhere(root, path, new)


def attach_module(root: nn.Module, path: str, args: Mapping[str, Any]) -> None:
    """Hang a new nonlinearity under a container, for an activation that was a function or shared between calls."""
    parent, _, name = path.rpartition(".")
    owner = root.get_submodule(parent)
    if hasattr(owner, name):
        raise RewriteError(f"attach: {path} exists already")
    owner.add_module(name, _like(root, path, args, owner.training))


def replace_activation(
    graph: torch.fx.Graph, container: nn.Module, path: str, args: Mapping[str, Any]
) -> None:
    """Replace one call of an activation by a call of the module at `args["module"]`; None passes its input on."""
    node = find_node(graph, args["node"], "replace_activation")
    value = node.args[0] if node.args else node.kwargs["input"]
    assert isinstance(value, torch.fx.Node)
    if args["module"] is not None:
        with graph.inserting_after(node):
            new = graph.create_node("call_module", relative(args["module"], path), (value,))
        value = new
    node.replace_all_uses_with(value)
    graph.erase_node(node)


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


def _like(root: nn.Module, path: str, args: Mapping[str, Any], training: bool) -> nn.Module:
    """The new module, on the device and in the dtype of the model around it."""
    part = args["part"]
    new = (
        Part.from_json(part).build(channels=args["channels"], channel_dim=args["channel_dim"])
        if part
        else nn.Identity()
    )
    parent = path.rpartition(".")[0]
    while True:
        parameter = next((p for p in root.get_submodule(parent).parameters() if p.is_floating_point()), None)
        if parameter is not None or not parent:
            break
        parent = parent.rpartition(".")[0]
    if parameter is not None:
        new.to(device=parameter.device, dtype=parameter.dtype)
    return new.train(training)
