"""Carry a plan out on a copy of the model: open the containers, swap the layers, edit the graphs, print the forwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.fx
from torch import nn

from binarize.attention.explicit import make_explicit, why_not_explicit
from binarize.capture import TraceError, trace_container
from binarize.capture.methods import hold_methods, take_methods
from binarize.errors import REFUSALS, CheckError, RewriteError
from binarize.modules.copies import spread_sizes
from binarize.modules.hooks import silenced_hooks
from binarize.passes.front import put_in_front
from binarize.passes.generated import give_forward, printed_hash, source_hash
from binarize.passes.nonlinearity import attach_module, move_activation, replace_activation, replace_module
from binarize.passes.shortcut import add_shortcut, add_value, replace_operand
from binarize.passes.swap import swap_layer
from binarize.planning.plan import Plan
from binarize.planning.record.edit import Edit
from binarize.planning.record.edit_kinds import (
    AddShortcut,
    AddValue,
    Attach,
    Explicit,
    GraphEdit,
    MoveActivation,
    Open,
    Precede,
    Replace,
    ReplaceActivation,
    ReplaceOperand,
    Swap,
)

__all__ = ["edit_graph", "rewrite"]


# What a pass raises on a model, or a plan, that the other was not made for.
_MISFITS = (*REFUSALS, StopIteration, SyntaxError)


def rewrite(module: nn.Module, plan: Plan) -> dict[str, str]:
    """Carry out `plan` on `module` itself (see `copy_model`).

    Returns the sha256 of every rewritten forward by container path. Where the plan holds such hashes already (it was
    saved and is replayed), they must be the same.

    Raises: RewriteError, where the module is not the one that was planned for; CheckError, where a hash differs.
    """
    spread_sizes(module)
    for edit in plan.edits:
        if isinstance(edit, Explicit):
            with _fitting(edit.op, edit.container):
                _make_explicit(module, edit.container)
    # Traced while every layer is still float: the plan's node names were taken from such a trace, without hooks.
    graphs: dict[str, torch.fx.Graph] = {}
    with silenced_hooks(module):
        for edit in plan.edits:
            if isinstance(edit, Open):
                with _fitting(edit.op, edit.container):
                    graphs[edit.container] = _open(module, edit)
    for edit in plan.edits:
        with _fitting(edit.op, edit.container):
            _carry_out(module, edit, plan, graphs)
    return _generate(module, graphs, plan.capture.sources)


def _carry_out(module: nn.Module, edit: Edit, plan: Plan, graphs: Mapping[str, torch.fx.Graph]) -> None:
    match edit:
        case Explicit() | Open():
            pass  # done before
        case Swap():
            swap_layer(module, edit, plan.schemes[edit.scheme])
        case Replace():
            replace_module(module, edit)
        case Attach():
            attach_module(module, edit)
        case (
            AddShortcut() | AddValue() | ReplaceOperand() | ReplaceActivation() | MoveActivation() | Precede()
        ):
            edit_graph(graphs[edit.container], module.get_submodule(edit.container), edit)
        case _:
            raise RewriteError(f"the plan asks for an unknown operation {edit.op!r}")


def edit_graph(graph: torch.fx.Graph, container: nn.Module, edit: GraphEdit) -> None:
    """Carry out an edit on the graph of its container."""
    match edit:
        case AddShortcut():
            add_shortcut(graph, container, edit)
        case AddValue():
            add_value(graph, container, edit)
        case ReplaceOperand():
            replace_operand(graph, container, edit)
        case ReplaceActivation():
            replace_activation(graph, edit)
        case MoveActivation():
            move_activation(graph, edit)
        case Precede():
            put_in_front(graph, container, edit)


@contextmanager
def _fitting(op: str, path: str) -> Iterator[None]:
    """Around an edit: a model that lacks what the edit names, or has it in another form, is a RewriteError.

    A plan of ours fits the model it was made for; one from a file may be any, beside any model.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except _MISFITS as error:
        text = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else str(error)
        place = f"{op} {path or 'the model'}"
        raise RewriteError(f"{place}: {text or type(error).__name__}") from error


def _make_explicit(module: nn.Module, path: str) -> None:
    attention = module.get_submodule(path)
    if why_not_explicit(attention) is not None:
        raise RewriteError(f"explicit: {path} is a {type(attention).__name__}, not the planned attention")
    make_explicit(attention)


def _open(module: nn.Module, edit: Open) -> torch.fx.Graph:
    try:
        graph = trace_container(module.get_submodule(edit.container), edit.concrete, edit.opened)
    except (TraceError, AttributeError) as error:
        where = edit.container or "the model"
        raise RewriteError(f"container {where} cannot be opened as planned: {error}") from error
    hold_methods(graph)
    return graph


def _generate(
    module: nn.Module, graphs: Mapping[str, torch.fx.Graph], saved: Mapping[str, str]
) -> dict[str, str]:
    """Give every opened container its new forward, and compare with the hashes that were saved, if there are any."""
    hashes, printed = {}, {}
    for path, graph in graphs.items():
        with _fitting("forward", path):
            container = module.get_submodule(path)
            methods = take_methods(graph, container)
            hashes[path] = source_hash(give_forward(container, graph, methods))
            if path in saved and saved[path] != hashes[path]:
                printed[path] = printed_hash(graph, methods)
    for path, digest in saved.items():
        if digest not in (hashes.get(path), printed.get(path)):
            raise CheckError(
                f"the rewritten forward of {path or 'the model'} differs from the saved one: the float model's code is "
                "another version\n  load with the versions named in binarize.json, or convert the model again"
            )
    return hashes
