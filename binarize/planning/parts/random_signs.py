"""Which layers of a graph can hand on means of random signs, and what has to give way around them.

A mean of ±1 passes what moves values or takes the largest of a window. A BatchNorm behind such a layer goes: the layer
centres its own sums, and the norm's scale would cancel. Averages of means are expectations, which a layer that yields
expectations may read, and float layers. Sums, products and all else make of ±1 what is no sign: there a layer stays float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from binarize.analysis.analyse import Analysis
from binarize.analysis.layer import Layer
from binarize.planning.activations import Choice
from binarize.planning.decision import Decision
from binarize.planning.parts.mean_path import MeanPath
from binarize.planning.record.edit import Edit, NewActivation
from binarize.planning.record.edit_kinds import Replace
from binarize.schemes.part import Part

__all__ = ["NOT_RANDOM", "RandomSigns", "express_random_signs", "has_random_weight", "reads_means"]

_WEIGHT, _MEANS = "bernoulli.Probabilities", ("bernoulli.Means", "bernoulli.Averages")
_INPUT_SIGN, _AVERAGES = Part("bernoulli.InputSign"), Part("bernoulli.Averages")


@dataclass(frozen=True)
class RandomSigns:
    """What the plan does around layers with random signs."""

    edits: tuple[Edit, ...] = ()
    # Layer -> path of the norm that its own centring stands for.
    norms: Mapping[str, str] = field(default_factory=dict)
    # Layers whose hardened sums are signed at once, since a float layer reads them.
    signed: frozenset[str] = frozenset()


NOT_RANDOM = RandomSigns()


def has_random_weight(choice: Choice) -> bool:
    """Whether the layer's weights are signs with probabilities."""
    return choice.scheme.weight is not None and choice.scheme.weight.name == _WEIGHT


def reads_means(choice: Choice) -> bool:
    """Whether the layer reads means of signs, which have no threshold."""
    return choice.scheme.input is not None and choice.scheme.input.name in _MEANS


def _yields_signs(choice: Choice) -> bool:
    part = choice.scheme.weight
    return has_random_weight(choice) and part is not None and part.kwargs.get("reads", "sign") == "sign"


def express_random_signs(
    analysis: Analysis, kept: dict[str, Decision], choices: dict[str, Choice]
) -> RandomSigns:
    """Keep the layers that cannot be expressed, give the others the input they read, and say what gives way."""
    if not any(map(has_random_weight, choices.values())):
        return NOT_RANDOM
    layers = {layer.name: layer for layer in analysis.layers}
    if analysis.graph.level == "walk":
        _keep(
            layers,
            kept,
            choices,
            dict.fromkeys(choices, "the model was not run, so nobody knows what reads it"),
        )
        return NOT_RANDOM
    names = {site: name for name, sites in analysis.nodes.items() for site in sites}
    while True:
        paths = {name: MeanPath(analysis.flow, analysis.nodes[name][0], names) for name in _random(choices)}
        refused = _refused(layers, choices, paths)
        if not refused:
            break
        _keep(layers, kept, choices, refused)
    _choose_inputs(choices, paths)
    return _around(choices, paths)


def _random(choices: Mapping[str, Choice]) -> list[str]:
    return [name for name, choice in choices.items() if has_random_weight(choice)]


def _keep(
    layers: Mapping[str, Layer],
    kept: dict[str, Decision],
    choices: dict[str, Choice],
    reasons: Mapping[str, str],
) -> None:
    for name, why in reasons.items():
        rule = choices.pop(name).rule
        kept[name] = Decision(layers[name], "keep", why, rule=rule.id, where=rule.where, guard=why)


def _refused(
    layers: Mapping[str, Layer], choices: Mapping[str, Choice], paths: Mapping[str, MeanPath]
) -> dict[str, str]:
    """Layers that cannot be expressed -> why; those behind them are looked at again without them."""
    refused: dict[str, str] = {}
    for name, path in paths.items():
        layer = layers[name]
        if layer.kind not in ("conv", "linear") or (layer.kind == "conv" and len(layer.kernel) != 2):
            refused[name] = f"sums of random signs are known of Conv2d and Linear, not of {layer.type}"
        elif not _yields_signs(choices[name]):
            continue
        elif path.obstacle is not None:
            refused[name] = path.obstacle
    signs = {name for name in paths if name not in refused and _yields_signs(choices[name])}
    for name in sorted(signs):
        for reader in paths[name].averaged & signs - refused.keys():
            refused[reader] = f"it reads averages of the signs of {name}, which are no signs"
    if refused:
        return refused
    feeders = _feeders(choices, paths)
    for name in paths:
        if feeders[name] and not _all_means(paths[name], feeders[name], paths):
            refused[name] = "it reads signs beside numbers that are none"
    return refused


def _feeders(choices: Mapping[str, Choice], paths: Mapping[str, MeanPath]) -> dict[str, set[str]]:
    """Layer -> the layers whose means it reads."""
    found: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        if _yields_signs(choices[name]):
            for reader in path.readers & found.keys():
                found[reader].add(name)
    return found


def _all_means(path: MeanPath, feeders: set[str], paths: Mapping[str, MeanPath]) -> bool:
    """Whether everything that reaches a layer without crossing another one comes from its feeders."""
    flow = path.flow
    sites = {paths[name].site for name in feeders}
    seen, stack = {path.site}, [path.site]
    while stack:
        for j in flow.data_inputs[stack.pop()]:
            if j in seen:
                continue
            seen.add(j)
            if flow.kinds[j] == "site":
                if j not in sites and path.names[j] not in feeders:
                    return False
            elif flow.kinds[j] == "placeholder":
                return False
            else:
                stack.append(j)
    return True


def _choose_inputs(choices: dict[str, Choice], paths: Mapping[str, MeanPath]) -> None:
    """Whoever reads no means signs real numbers; whoever reads averages takes them as they are."""
    feeders = _feeders(choices, paths)
    averaged = {name for path in paths.values() for name in path.averaged}
    for name in paths:
        scheme = choices[name].scheme
        if feeders[name] and name in averaged:
            choices[name] = Choice(
                choices[name].rule, replace(scheme, name=f"{scheme.name} (averages)", input=_AVERAGES)
            )
        elif not feeders[name] and reads_means(choices[name]):
            choices[name] = Choice(
                choices[name].rule, replace(scheme, name=f"{scheme.name} (input)", input=_INPUT_SIGN)
            )


def _around(choices: Mapping[str, Choice], paths: Mapping[str, MeanPath]) -> RandomSigns:
    edits: dict[str, Edit] = {}
    norms: dict[str, str] = {}
    signed: set[str] = set()
    for name, path in paths.items():
        if not _yields_signs(choices[name]):
            continue
        for gone in sorted(path.gone):
            edits[gone] = Replace(gone, NewActivation(None, 0, 1))
        for place, part in path.pools.items():
            edits[place] = Replace(place, NewActivation(part, 0, 1))
        if path.norm is not None:
            norms[name] = path.norm
        if path.averaged or any(reader not in choices for reader in path.readers):
            signed.add(name)
    return RandomSigns(tuple(edits.values()), norms, frozenset(signed))
