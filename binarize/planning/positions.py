"""Which nonlinearities stand in front of an add: `position: before_add`.

after_add    layer ─ norm ─ (+) ─ act ─ readers        before_add    layer ─ norm ─ act ─ (+) ─ readers

The add is one that a shortcut brings, or the one that ends a residual block of the model. A nonlinearity is moved only
where whatever reads the layer's value, or the add, reads it through that nonlinearity; elsewhere it stays behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from binarize.analysis.analyse import Analysis
from binarize.analysis.flow import Flow
from binarize.planning.activations import ActivationChange, Choice
from binarize.planning.shortcuts import ShortcutChange

__all__ = ["Move", "move_activations"]

# What may stand between an add and the nonlinearity behind it.
_BETWEEN = frozenset({"identity", "pool", "scale"})


@dataclass(frozen=True)
class Move:
    """A nonlinearity that works on a layer's own value. Nodes are positions in the flow."""

    # The activation, and the value that it bends from now on; of a norm with an activation in it both are the norm.
    node: int
    behind: int
    # The residual add that reads it; -1: every reader of the value does, and an add of ours stands in front of them.
    add: int = -1
    # Whether the activation reads that value already, so that only the add has to stand behind it.
    in_place: bool = False


def move_activations(
    analysis: Analysis,
    choices: Mapping[str, Choice],
    activations: Mapping[int, ActivationChange],
    shortcuts: Mapping[str, ShortcutChange],
    fixed: Collection[int] = (),
) -> dict[int, Move]:
    """The moves by the activation's node. Those that are `fixed` stay: their container cannot be edited."""
    flow = analysis.flow
    names = {site: name for name, sites in analysis.nodes.items() for site in sites}
    ends = {
        change.end
        for name, change in shortcuts.items()
        if change.action != "none"
        and change.end >= 0
        and not change.in_place
        and len(analysis.nodes[name]) == 1
    }
    moves = {}
    for node, change in activations.items():
        wanted = choices[change.readers[0]].scheme.position == "before_add"
        if change.part is None or not wanted or node in fixed:
            continue
        move = Move(node, node, in_place=True) if node in ends else _found(flow, node, ends, names, choices)
        if move is not None:
            moves[node] = move
    return moves


def _found(
    flow: Flow, node: int, ends: Collection[int], names: Mapping[int, str], choices: Mapping[str, Choice]
) -> Move | None:
    """Where the nonlinearity goes: the nearest add in front of it, if nothing else reads what lies between."""
    if flow.kinds[node] == "norm_act":
        return None
    i = node
    while len(flow.data_inputs[i]) == 1:
        before = flow.data_inputs[i][0]
        if set(flow.users[before]) != {i}:
            return None
        if before in ends:
            return Move(node, before, in_place=i == node)
        if flow.kinds[before] == "add":
            branch = _binary_branch(flow, before, names, choices)
            return None if branch is None else Move(node, branch, before)
        if flow.kinds[before] not in _BETWEEN:
            return None
        i = before
    return None


def _binary_branch(
    flow: Flow, add: int, names: Mapping[int, str], choices: Mapping[str, Choice]
) -> int | None:
    """The operand of a residual add that a binary layer makes; None where the block's last layer is float."""
    for block in sorted(flow.blocks, key=lambda block: (block.span, len(block.inner))):
        if block.merge == add and block.kind == "add":
            name = names[max(block.inner)]
            return block.branch if name in choices and choices[name].signed else None
    return None
