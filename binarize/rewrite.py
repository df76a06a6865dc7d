"""Carry a plan out on a copy of the model: open the containers, swap the layers, edit the graphs, print the forwards."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx
from torch import nn

from binarize.attention import make_explicit, why_not_explicit
from binarize.capture import TraceError, trace_container
from binarize.capture.methods import hold_methods, take_methods
from binarize.capture.shadow import HOOK_TABLES, computed_tensors, silenced_hooks
from binarize.errors import REFUSALS, CheckError, RewriteError
from binarize.generated import give_forward, printed_hash, source_hash
from binarize.passes import GRAPH_PASSES, MODULE_PASSES, swap_layer
from binarize.plan import Edit, Plan

__all__ = ["copy_model", "rewrite"]


# What a pass raises on a model, or a plan, that the other was not made for.
_MISFITS = (*REFUSALS, StopIteration, SyntaxError)


def rewrite(module: nn.Module, plan: Plan) -> dict[str, str]:
    """Carry out `plan` on `module` itself (see `copy_model`).

    Returns the sha256 of every rewritten forward by container path. Where the plan holds such hashes already (it was
    saved and is replayed), they must be the same.

    Raises: RewriteError, where the module is not the one that was planned for; CheckError, where a hash differs.
    """
    for edit in plan.edits:
        if edit.op == "explicit":
            with _fitting(edit):
                _make_explicit(module, edit.container)
    # Traced while every layer is still float: the plan's node names were taken from such a trace, without hooks.
    graphs: dict[str, torch.fx.Graph] = {}
    with silenced_hooks(module):
        for edit in plan.edits:
            if edit.op == "open":
                with _fitting(edit):
                    graphs[edit.container] = _open(module, edit.container, edit.args)
    for edit in plan.edits:
        with _fitting(edit):
            _carry_out(module, edit, plan, graphs)
    return _generate(module, graphs, plan.capture.get("sources") or {})


def _carry_out(module: nn.Module, edit: Edit, plan: Plan, graphs: Mapping[str, torch.fx.Graph]) -> None:
    if edit.op == "swap":
        swap_layer(module, edit.container, edit.args, plan.schemes[edit.args["scheme"]])
    elif edit.op in MODULE_PASSES:
        MODULE_PASSES[edit.op](module, edit.container, edit.args)
    elif edit.op in GRAPH_PASSES:
        container = module.get_submodule(edit.container)
        GRAPH_PASSES[edit.op](graphs[edit.container], container, edit.container, edit.args)
    elif edit.op not in ("explicit", "open"):
        raise RewriteError(f"the plan asks for an unknown operation {edit.op!r}")


@contextmanager
def _fitting(edit: Edit) -> Iterator[None]:
    """Around an edit: a model that lacks what the edit names, or has it in another form, is a RewriteError.

    A plan of ours fits the model it was made for; one from a file may be any, beside any model.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except _MISFITS as error:
        text = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else str(error)
        place = f"{edit.op} {edit.container or 'the model'}"
        raise RewriteError(f"{place}: {text or type(error).__name__}") from error


def copy_model(module: nn.Module, shared: Iterable[object] = ()) -> nn.Module:
    """A copy that shares no storage and no module with the original; hooks, flags, dtypes and devices carry over.

    What is in `shared` is not copied: with `module.parameters()` the copy has state of its own, and the same weights.

    A hook is copied like everything else, so that it speaks to the copy where it holds a part of the model. One that
    cannot be copied, since it holds an open file or an output of the model, is shared.
    """
    memo: dict[int, Any] = {id(hook): hook for hook in _uncopyable_hooks(module)}
    memo.update(computed_tensors(module))
    memo.update({id(one): one for one in shared})
    return copy.deepcopy(module, memo)


def _uncopyable_hooks(module: nn.Module) -> list[object]:
    parts = {id(part): part for part in module.modules()}
    found: list[object] = []
    for part in module.modules():
        for table in HOOK_TABLES:
            for hook in getattr(part, table).values():
                try:
                    # Modules stand for themselves: only what the hook holds besides is copied here.
                    copy.deepcopy(hook, dict(parts))
                except (TypeError, RuntimeError, pickle.PickleError):
                    found.append(hook)
    return found


def _make_explicit(module: nn.Module, path: str) -> None:
    attention = module.get_submodule(path)
    if why_not_explicit(attention) is not None:
        raise RewriteError(f"explicit: {path} is a {type(attention).__name__}, not the planned attention")
    make_explicit(attention)


def _open(module: nn.Module, path: str, args: Mapping[str, object]) -> torch.fx.Graph:
    opened, concrete = args["opened"], args["concrete"]
    assert isinstance(opened, (list, tuple)) and isinstance(concrete, dict)
    try:
        graph = trace_container(module.get_submodule(path), concrete, opened)
    except (TraceError, AttributeError) as error:
        raise RewriteError(f"container {path or 'the model'} cannot be opened as planned: {error}") from error
    hold_methods(graph)
    return graph


def _generate(
    module: nn.Module, graphs: Mapping[str, torch.fx.Graph], saved: Mapping[str, str]
) -> dict[str, str]:
    """Give every opened container its new forward, and compare with the hashes that were saved, if there are any."""
    hashes, printed = {}, {}
    for path, graph in graphs.items():
        with _fitting(Edit(path, "forward")):
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
