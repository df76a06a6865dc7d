"""From changes to named edits: which containers have to be opened, and which of their nodes each change means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from binarize.analysis.analyse import Analysis
from binarize.analysis.flow import Flow
from binarize.capture import Opened, TraceError, common_container, open_container
from binarize.planning.activations import ActivationChange, Choice
from binarize.planning.parts.fronts import Front
from binarize.planning.positions import Move
from binarize.planning.record.edit import Edit, NewActivation
from binarize.planning.record.edit_kinds import (
    AddShortcut,
    AddValue,
    Attach,
    MoveActivation,
    Open,
    Replace,
    ReplaceActivation,
    ReplaceOperand,
)
from binarize.planning.shortcuts import ShortcutChange

if TYPE_CHECKING:
    from binarize.planning.parts.layer_parts import LayerParts

__all__ = ["Edits", "Job", "open_containers"]


@dataclass
class Job:
    """One container and the changes that have to be made in its graph."""

    path: str
    opened: set[str] = field(default_factory=set)
    activations: set[int] = field(default_factory=set)
    layers: set[str] = field(default_factory=set)
    moves: set[int] = field(default_factory=set)
    # Float layers that something is put in front of.
    fronts: set[str] = field(default_factory=set)
    reason: str = ""


@dataclass(frozen=True)
class Edits:
    """The opened containers and the changes each of them holds."""

    flow: Flow
    nodes: Mapping[str, list[int]]
    activations: Mapping[int, ActivationChange]
    shortcuts: Mapping[str, ShortcutChange]
    jobs: tuple[tuple[Job, Opened], ...]
    failed: tuple[Job, ...]
    moves: Mapping[int, Move] = field(default_factory=dict)
    fronts: Mapping[str, Front] = field(default_factory=dict)
    # Container path -> why it could not be edited.
    refused: Mapping[str, str] = field(default_factory=dict)
    # Activation node -> path of the module that takes its place in the graph; found by homes.py.
    homes: dict[int, str | None] = field(default_factory=dict)

    def container_of_layer(self, name: str) -> str | None:
        """The container in which this layer's shortcut is edited, None where it is not."""
        return next((job.path for job, _ in self.jobs if name in job.layers), None)

    def container_of_activation(self, node: int) -> str | None:
        """The container in which this activation is edited, None where it is not."""
        return next((job.path for job, _ in self.jobs if node in job.activations), None)

    def opened(self) -> list[Edit]:
        """How each container is traced again on reload."""
        return [Open(job.path, tuple(opened.opened), dict(opened.concrete)) for job, opened in self.jobs]

    def swaps(self, parts: Mapping[str, LayerParts], choices: Mapping[str, Choice]) -> list[Edit]:
        """Edits that put a module at a path: binary layers, and activations that are modules of their own."""
        edits: list[Edit] = [part.swap(choices[name].scheme.name) for name, part in parts.items()]
        for node, change in self.activations.items():
            if change.path is not None and not self._moved(node):
                edits.append(Replace(change.path, change.new))
            elif change.path is None and self.homes.get(node) and change.part is not None:
                home = self.homes[node]
                assert home is not None
                if not any(name == home.rpartition(".")[0] for name in parts):
                    edits.append(Attach(home, change.new))
        for part in parts.values():
            if part.moved_activation is not None:
                edits.append(Replace(part.moved_activation, NewActivation(None, 0, 1)))
        return edits

    def _moved(self, node: int) -> bool:
        """Whether the activation of this norm moves under the layer in front, since an add goes in between."""
        return self._added_behind(node) and node not in self.moves

    def _added_behind(self, node: int) -> bool:
        return any(change.end == node for change in self.shortcuts.values() if change.action != "none")

    def _read_otherwise(self, *nodes: int) -> bool:
        """Whether the readers of one of these values get another one: a sum, or what a moved activation worked on."""
        return any(node in self.moves or self._added_behind(node) for node in nodes)

    def graph_edits(self) -> list[Edit]:
        """Edits inside the opened containers: what moves, what is added, then outer adds, then activations."""
        edits: list[Edit] = []
        for job, opened in self.jobs:
            names = [name for name in self.nodes if name in job.layers]
            edits += [e for node in sorted(job.moves) for e in self._moves(opened, self.moves[node])]
            edits += [e for name in names for e in self._added(opened, self.shortcuts[name])]
            edits += [e for name in names for e in self._merged(opened, self.shortcuts[name])]
            edits += [self._activated(opened, self.activations[node]) for node in sorted(job.activations)]
            fronts = [self.fronts[name] for name in sorted(job.fronts)]
            owner = self.flow.modules[opened.path]
            edits += [one.edit(opened.path, owner, self._traced(opened, one.site)) for one in fronts]
        return edits

    def _traced(self, opened: Opened, node: int) -> str:
        return opened.node_for(self.flow.nodes[node]).name

    def _moves(self, opened: Opened, move: Move) -> Iterable[Edit]:
        if not move.in_place:
            add = None if move.add < 0 else self._traced(opened, move.add)
            node, behind = self._traced(opened, move.node), self._traced(opened, move.behind)
            yield MoveActivation(opened.path, node, behind, add)

    def _added(self, opened: Opened, change: ShortcutChange) -> Iterable[Edit]:
        if change.end < 0:
            return
        bent = next((move.node for move in self.moves.values() if move.behind == change.end), None)
        # A norm that applies an activation itself lends it to the layer: the add goes in between.
        replaced = self.activations.get(change.end)
        gone = replaced is not None and replaced.part is None
        activation = self.flow.kinds[change.end] == "norm_act" and not gone and bent is None
        after = self._traced(opened, change.end if bent is None else bent)
        if change.action == "own":
            source = self._traced(opened, self.nodes[change.layer][0])
            yield AddShortcut(opened.path, change.layer, after, source, activation)
        elif change.action == "value":
            value = self._traced(opened, change.value)
            yield AddValue(
                opened.path, change.layer, after, value, activation, self._read_otherwise(change.value)
            )

    def _merged(self, opened: Opened, change: ShortcutChange) -> Iterable[Edit]:
        if change.merge < 0:
            return
        node, old, new = (self._traced(opened, i) for i in (change.merge, change.replaced, change.value))
        yield ReplaceOperand(opened.path, node, old, new, self._read_otherwise(change.replaced, change.value))

    def _activated(self, opened: Opened, change: ActivationChange) -> Edit:
        home = self.homes.get(change.node) if change.part is not None else None
        return ReplaceActivation(opened.path, self._traced(opened, change.node), home)

    def check(self) -> None:
        """Resolve every node once, so that what cannot be named fails while there is still a way back.

        Raises: TraceError.
        """
        self.graph_edits()


def open_containers(
    analysis: Analysis,
    activations: Mapping[int, ActivationChange],
    shortcuts: Mapping[str, ShortcutChange],
    moves: Mapping[int, Move],
    fronts: Mapping[str, Front],
    known: dict[tuple[str, frozenset[str]], Opened],
) -> Edits:
    """Find the container of every change that needs one, and trace them all. Those that fail are listed as failed.

    `known` holds those that were traced before, and is added to.
    """
    flow = analysis.flow
    jobs: dict[str, Job] = {}
    for node, change in activations.items():
        if change.path is None:
            job = _job(jobs, flow, [node])
            job.activations.add(node)
    for touched, layers in _touched_by_shortcuts(analysis, shortcuts, moves):
        _job(jobs, flow, touched).layers.update(layers)
    for node, move in moves.items():
        job = _job(jobs, flow, [i for i in (node, move.behind, move.add) if i >= 0])
        job.moves.add(node)
    for front in fronts.values():
        _job(jobs, flow, [front.site]).fronts.add(front.layer)
    _merge_nested(jobs)
    done, failed = [], []
    for job in jobs.values():
        try:
            key = job.path, frozenset(job.opened)
            if key not in known:
                known[key] = open_container(analysis.graph, flow.recording, *key)
            opened = known[key]
            Edits(flow, analysis.nodes, activations, shortcuts, ((job, opened),), (), moves, fronts).check()
            done.append((job, opened))
        except TraceError as error:
            job.reason = str(error)
            failed.append(job)
    return Edits(flow, analysis.nodes, activations, shortcuts, tuple(done), tuple(failed), moves, fronts)


def _job(jobs: dict[str, Job], flow: Flow, touched: Iterable[int]) -> Job:
    path, opened = common_container(flow.frames(i) for i in touched)
    job = jobs.setdefault(path, Job(path))
    job.opened |= opened
    return job


def _touched_by_shortcuts(
    analysis: Analysis, shortcuts: Mapping[str, ShortcutChange], moves: Mapping[int, Move]
) -> Iterable[tuple[list[int], list[str]]]:
    """(nodes that must be visible in one graph, layers whose shortcut that is)."""
    bent = {move.behind: node for node, move in moves.items()}
    by_merge: dict[int, list[str]] = {}
    for name, change in shortcuts.items():
        site = analysis.nodes[name][0]
        if change.action == "own" and (change.end != site or site in bent):
            yield [site, change.end, bent.get(change.end, site)], [name]
        elif change.action == "value":
            block = analysis.flow.block_of[site]
            by_merge.setdefault(block.merge, []).append(name)
    for merge, names in by_merge.items():
        nodes = [merge]
        for name in names:
            nodes.append(analysis.nodes[name][0])
            nodes += [shortcuts[name].value] if shortcuts[name].across else []
            if shortcuts[name].end >= 0:
                nodes += [shortcuts[name].end, bent.get(shortcuts[name].end, merge)]
        yield nodes, names


def _merge_nested(jobs: dict[str, Job]) -> None:
    """A container that another one inlines has no forward of its own any more: its changes move to the outer one."""
    changed = True
    while changed:
        changed = False
        for outer in list(jobs.values()):
            prefix = f"{outer.path}." if outer.path else ""
            for child in sorted(outer.opened):
                inner = jobs.pop(prefix + child, None)
                if inner is not None:
                    outer.opened |= {f"{child}.{path}" for path in inner.opened}
                    outer.activations |= inner.activations
                    outer.layers |= inner.layers
                    outer.moves |= inner.moves
                    outer.fronts |= inner.fronts
                    changed = True
