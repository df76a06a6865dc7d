"""Containers opened for editing: the smallest module that owns everything an edit touches, traced and verified."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch.fx

from binarize.capture.graph import Graph
from binarize.capture.tape import Recording
from binarize.capture.tracer import TraceError, align, concrete_arguments, trace_container
from binarize.modules.hooks import HOOK_TABLES

__all__ = ["Opened", "common_container", "open_container"]


@dataclass(frozen=True)
class Opened:
    """A container's verified graph, and which node of it stands for which recorded step."""

    path: str
    # Children (relative paths) inlined into the graph; everything else is one call.
    opened: tuple[str, ...]
    # Arguments of its forward that hold no tensor, at the value they had in the recorded call.
    concrete: dict[str, Any]
    graph: torch.fx.Graph
    steps: dict[torch.fx.Node, list[torch.fx.Node]]

    def node_for(self, recorded: torch.fx.Node) -> torch.fx.Node:
        """The traced node whose value is that of a recorded step.

        Raises: TraceError, where the step is hidden inside a closed child and not what the child returns.
        """
        if recorded.target is operator.getitem and (part := self._part(recorded)) is not None:
            return part
        for node, steps in self.steps.items():
            if recorded in steps:
                inside = set(steps)
                visible = [step for step in steps if any(user not in inside for user in step.users)]
                if visible == [recorded] or (len(steps) == 1):
                    return node
                raise TraceError(f"{recorded.meta['op']} is hidden inside {node.target}")
        # A value made before the container ran is one of its arguments.
        for node in self.graph.nodes:
            if node.op == "placeholder" and self._argument.get(node) is recorded:
                return node
        raise TraceError(f"{recorded.meta['op']} is not part of {self.path or 'the model'}")

    def _part(self, recorded: torch.fx.Node) -> torch.fx.Node | None:
        """The traced node that picks the same part of a structured value (`torch.split(x, 2)[1]`)."""
        whole, index = recorded.args
        for node, steps in self.steps.items():
            if steps and steps[0] is whole:
                users = [user for user in node.users if user.target is operator.getitem]
                return next((user for user in users if user.args[1] == index), None)
        return None

    @property
    def _argument(self) -> dict[torch.fx.Node, torch.fx.Node]:
        return {node: steps[0] for node, steps in self.steps.items() if node.op == "placeholder" and steps}


def open_container(graph: Graph, main: Recording, path: str, opened: Iterable[str] = ()) -> Opened:
    """Trace one container and verify it against every recording in which it runs.

    `main` is the recording whose steps the result is matched with.
    Raises: TraceError with the reason.
    """
    inlined = tuple(sorted(opened))
    calls = main.calls.get(path, 0)
    if calls != 1:
        raise TraceError(f"it is called {calls} times")
    container = graph.shadow.get_submodule(path)
    if "forward" in vars(container):
        raise TraceError("its forward is set on the object and not on its class")
    for child in inlined:
        tables = [getattr(container.get_submodule(child), name) for name in HOOK_TABLES]
        # The shadow has only such hooks as the model does not run without; an inlined child would no longer fire them.
        if any(tables):
            raise TraceError(f"hooks of the model itself stand on {child}")
    concrete = _storable(concrete_arguments(container, *main.arguments[path, 0]))
    traced = trace_container(container, concrete, inlined)
    steps: dict[torch.fx.Node, list[torch.fx.Node]] = {}
    for recording, training in ((graph.evaluation, False), (graph.training, True)):
        if recording is None or not recording.calls.get(path):
            continue
        container.train(training)
        try:
            aligned = align(recording, path, 0, container, traced)
        finally:
            container.eval()
        if recording is main:
            steps = aligned
    return Opened(path, inlined, concrete, traced, steps)


def _storable(concrete: dict[str, Any]) -> dict[str, Any]:
    """The same arguments; they are written down with the plan, so they have to be plain values."""
    for name, value in concrete.items():
        if not (value is None or isinstance(value, (bool, int, float, str))):
            raise TraceError(f"argument {name!r} of its forward is a {type(value).__name__}")
    return concrete


def common_container(frames: Iterable[tuple[tuple[str, int], ...]]) -> tuple[str, set[str]]:
    """(path of the innermost module whose call is around all the given steps, children of it that must be opened)."""
    all_frames = list(frames)
    shared = all_frames[0]
    for other in all_frames[1:]:
        length = 0
        while length < min(len(shared), len(other)) and shared[length] == other[length]:
            length += 1
        shared = shared[:length]
    path = shared[-1][0]
    prefix = f"{path}." if path else ""
    opened = {p.removeprefix(prefix) for frame in all_frames for p, _ in frame[len(shared) :]}
    return path, opened
