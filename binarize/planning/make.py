"""Layers x RuleSet -> Plan: rules decide, guards may only turn binarize into keep, edits are resolved to named nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from binarize.analysis.analyse import Analysis
from binarize.analysis.facts import shared_layers
from binarize.analysis.layer import Layer
from binarize.analysis.walk import walk_warning
from binarize.attention.explicit import explicit_for
from binarize.capture import Opened
from binarize.errors import NothingToBinarizeError
from binarize.planning.activations import ActivationChange, Choice, change_activations
from binarize.planning.advice import advise
from binarize.planning.edits import Edits, open_containers
from binarize.planning.parts.around import Around
from binarize.planning.parts.choose import choose_parts
from binarize.planning.parts.fronts import binary_projections, find_fronts, with_front
from binarize.planning.parts.layer_parts import LayerParts
from binarize.planning.parts.random_signs import express_random_signs
from binarize.planning.plan import Decision, Plan
from binarize.planning.positions import move_activations
from binarize.planning.record.capture import Capture, Level, Refusal
from binarize.planning.record.edit import Edit
from binarize.planning.record.edit_kinds import Explicit
from binarize.planning.record.origin import UNKNOWN
from binarize.planning.shortcuts import ShortcutChange, change_shortcuts, in_place
from binarize.rules.bind import bind
from binarize.rules.rule_set import Rule, RuleSet

__all__ = ["make_plan"]


def make_plan(
    analysis: Analysis, rules: RuleSet, source: str = "model", one_sided: Collection[str] = ()
) -> Plan:
    """Decide every layer and resolve what the rewriting will do. Touches no tensor.

    `one_sided` names layers whose input was measured to have hardly more than one sign.

    Raises: NothingToBinarizeError with the reasons grouped, where no layer ends up binary.
    """
    rules = bind(rules, analysis.layers)
    kept, choices = _decide(analysis.layers, rules)
    choices = binary_projections(analysis, rules, kept, choices)
    _keep_together(analysis, kept, choices)
    around = express_random_signs(analysis, kept, choices)
    if not choices:
        raise NothingToBinarizeError(_nothing(analysis, kept))
    activations, shortcuts, edits = _resolve(analysis, kept, choices)
    parts = choose_parts(analysis, choices, edits, Around(activations, shortcuts, around, one_sided))
    decisions = tuple(
        with_front(kept[layer.name], edits.fronts.get(layer.name))
        if layer.name in kept
        else _binarized(layer, choices[layer.name], parts[layer.name])
        for layer in analysis.layers
    )
    schemes = {choice.scheme.name: choice.scheme for choice in choices.values()}
    unknown = [name for name, part in parts.items() if part.threshold == UNKNOWN]
    return Plan(
        name=rules.name,
        source=source,
        decisions=decisions,
        edits=(
            *_explicit(analysis, choices),
            *edits.opened(),
            *edits.swaps(parts, choices),
            *around.edits,
            *edits.graph_edits(),
        ),
        schemes=schemes,
        hints=advise(decisions, schemes, unknown),
        unmatched=tuple(rules.unmatched(analysis.layers)),
        **_rest(analysis),
        warnings=tuple(map(walk_warning, analysis.graph.notes)) if analysis.graph.level == "walk" else (),
        capture=Capture(
            Level(analysis.graph.level),
            notes=analysis.graph.notes,
            refused=tuple(Refusal(path, why) for path, why in edits.refused.items()),
        ),
    )


def _explicit(analysis: Analysis, choices: Mapping[str, Choice]) -> list[Edit]:
    """The attentions of which a projection is binarized."""
    paths = dict.fromkeys(explicit_for(name, analysis.flow.modules) for name in choices)
    return [Explicit(path) for path in paths if path is not None]


def _decide(layers: tuple[Layer, ...], rules: RuleSet) -> tuple[dict[str, Decision], dict[str, Choice]]:
    """(layers that stay float, with their decision; layers to binarize, with rule and scheme)."""
    kept: dict[str, Decision] = {}
    choices: dict[str, Choice] = {}
    for layer in layers:
        rule = rules.decide(layer)
        if rule is None:
            kept[layer.name] = Decision(layer, "keep", _guard(layer) or "no rule matches it")
        elif rule.action == "keep":
            # What rules say of a first layer ("sees raw pixels") is not true of a table of words.
            why = _guard(layer) if layer.kind == "embedding" else rule.why
            kept[layer.name] = Decision(
                layer, "keep", why or "its rule says so", rule=rule.id, where=rule.where
            )
        else:
            guard = _guard(layer)
            if guard is not None:
                kept[layer.name] = Decision(layer, "keep", guard, rule=rule.id, where=rule.where, guard=guard)
            else:
                choices[layer.name] = Choice(rule, rules.scheme(rule))
    return kept, choices


def _keep_together(analysis: Analysis, kept: dict[str, Decision], choices: dict[str, Choice]) -> None:
    """Layers that share a parameter with one that stays float stay float as well."""
    layers = {layer.name: layer for layer in analysis.layers}
    groups = shared_layers(analysis.graph.shadow)
    changed = True
    while changed:
        changed = False
        for group in groups:
            floats = [name for name in group if name not in choices]
            for name in [name for name in group if name in choices] if floats else []:
                rule, why = (
                    choices.pop(name).rule,
                    f"it shares a parameter with {floats[0]}, which stays float",
                )
                kept[name] = Decision(layers[name], "keep", why, rule=rule.id, where=rule.where, guard=why)
                changed = True


def _guard(layer: Layer) -> str | None:
    """Why a layer cannot be binarized whatever the rules say."""
    if layer.obstacle is not None:
        return layer.obstacle
    if layer.kind not in ("conv", "conv_transpose", "linear"):
        return f"there is no binary {layer.type}"
    if layer.capture == "walk":
        return None
    if not layer.out_shape:
        return "its output is no tensor"
    # Convolutions take (C, H, W) as well, norms do not.
    if len(layer.out_shape) < len(layer.kernel) + 2:
        return "its input has no batch axis"
    return None


def _resolve(
    analysis: Analysis, kept: Mapping[str, Decision], choices: Mapping[str, Choice]
) -> tuple[dict[int, ActivationChange], dict[str, ShortcutChange], Edits]:
    """Plan activations and shortcuts, open the containers they need, and plan again without those that do not open."""
    if analysis.graph.level == "walk":
        unknown = {name: ShortcutChange(name, "none", "the model was not run") for name in choices}
        return {}, unknown, Edits(analysis.flow, {}, {}, unknown, (), ())
    names = {site: name for name, sites in analysis.nodes.items() for site in sites}
    calls = analysis.graph.calls
    blocked: set[int] = set()
    fixed: set[int] = set()
    alone: set[str] = set()
    closed: set[str] = set()
    refused: dict[str, str] = {}
    reasons: dict[str, str] = {}
    known: dict[tuple[str, frozenset[str]], Opened] = {}
    while True:
        activations = change_activations(analysis.flow, names, choices, calls, blocked)
        shortcuts = change_shortcuts(analysis, choices, closed)
        for layer, why in refused.items():
            if shortcuts[layer].action != "none":
                shortcuts[layer] = in_place(analysis, shortcuts[layer], choices[layer], why)
        moves = move_activations(analysis, choices, activations, shortcuts, fixed)
        fronts = {
            name: front
            for name, front in find_fronts(analysis, kept, choices, activations).items()
            if name not in alone
        }
        edits = open_containers(analysis, activations, shortcuts, moves, fronts, known)
        if not edits.failed:
            return activations, shortcuts, replace(edits, refused=reasons)
        for job in edits.failed:
            if job.moves:
                # Perhaps only the add that the activation would have to cross lies in a place that cannot be edited.
                fixed |= job.moves
                continue
            if across := {name for name in job.layers if shortcuts[name].across}:
                closed |= across
                continue
            if job.fronts:
                alone |= job.fronts
                reasons[job.path] = job.reason
                continue
            reasons[job.path] = job.reason
            where = job.path or "the model"
            blocked.update(job.activations)
            refused.update(dict.fromkeys(job.layers, f"{where} cannot be edited: {job.reason}"))


def _binarized(layer: Layer, choice: Choice, parts: LayerParts) -> Decision:
    rule: Rule = choice.rule
    return Decision(
        layer,
        "binarize",
        rule.why or choice.scheme.description or "matched",
        scheme=choice.scheme.name,
        weights_only=rule.weights_only or choice.scheme.input is None,
        rule=rule.id,
        where=rule.where,
        shortcut=parts.shortcut.kind,
        shortcut_why=parts.shortcut.why,
        norm=parts.norm_word,
        activation=parts.activation_word,
        threshold=parts.threshold_word,
        container=parts.container,
        extra_params=parts.extra_params,
        bitplanes=parts.bitplanes,
        scale_values=parts.scale_values,
    )


def _rest(analysis: Analysis) -> dict[str, Any]:
    """Float elements of the model that belong to none of the listed layers."""
    shadow = analysis.graph.shadow
    listed = sum(layer.params for layer in analysis.layers if layer.type[:2] != "F.")
    functional = sum(layer.params for layer in analysis.layers if layer.type[:2] == "F.")
    total = sum(p.numel() for p in shadow.parameters())
    return {
        "other_params": max(total - listed - functional, 0),
        "other_buffers": sum(b.numel() for b in shadow.buffers()),
    }


def _nothing(analysis: Analysis, kept: Mapping[str, Decision]) -> str:
    if not analysis.layers:
        return (
            "nothing to binarize: the model holds no convolution and no linear layer that its input reaches\n"
            "  give the module that holds them, or an example input that reaches them"
        )
    grouped: dict[str, list[str]] = {}
    for decision in kept.values():
        grouped.setdefault(decision.why, []).append(decision.layer.name)
    lines = [f"nothing to binarize: all {len(analysis.layers)} layers stay float"]
    for why, names in grouped.items():
        lines.append(
            f"  {len(names)} kept: {why} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        )
    return "\n".join([*lines, "  relax the rules, or name layers with --binarize PATTERN"])
