"""Which layers of a graph can hand on means of random signs, and what has to give way around them.

A mean of ±1 passes what moves values or takes the largest of a window. A BatchNorm behind such a layer goes: the layer
centres its own sums, and the norm's scale would cancel. Averages of means are expectations, which a layer that yields
expectations may read, and float layers. Sums, products and all else make of ±1 what is no sign: there a layer stays float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from binarize.analysis.analyse import Analysis
from binarize.analysis.flow import Flow
from binarize.analysis.layer import Layer
from binarize.planning.activations import Choice
from binarize.planning.decision import Decision
from binarize.planning.record.edit import Edit, NewActivation
from binarize.planning.record.edit_kinds import Replace
from binarize.schemes.part import Part

__all__ = ["NOT_RANDOM", "RandomSigns", "express_random_signs", "has_random_weight", "reads_means"]

_WEIGHT, _MEANS = "bernoulli.Probabilities", ("bernoulli.Means", "bernoulli.Averages")
_INPUT_SIGN, _AVERAGES = Part("bernoulli.InputSign"), Part("bernoulli.Averages")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout, nn.AlphaDropout)
# What changes no mean of a sign, or what a plan takes away in front of a sign.
_PASSED_ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh"})
_AVERAGES_OF = frozenset({"mean", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"})
_AVERAGE_MODULES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


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
        paths = {name: _Path(analysis.flow, analysis.nodes[name][0], names) for name in _random(choices)}
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


@dataclass
class _Path:
    """What lies between a layer and the layers that read it."""

    flow: Flow
    site: int
    names: Mapping[int, str]
    readers: set[str] = field(default_factory=set)
    # Of these, those that read an average.
    averaged: set[str] = field(default_factory=set)
    norm: str | None = None
    gone: set[str] = field(default_factory=set)
    pools: dict[str, Part] = field(default_factory=dict)
    obstacle: str | None = None

    def __post_init__(self) -> None:
        seen: set[tuple[int, bool]] = set()
        stack = [(self.site, False)]
        while stack:
            node, averaged = stack.pop()
            for user in self.flow.users[node]:
                state = (user, averaged or self._averages(user))
                if state in seen:
                    continue
                seen.add(state)
                if self.flow.kinds[user] == "site":
                    self.readers.add(self.names[user])
                    if state[1]:
                        self.averaged.add(self.names[user])
                elif self._passes(user):
                    stack.append(state)
                elif self.obstacle is None:
                    self.obstacle = self._words(user)

    def _averages(self, node: int) -> bool:
        module = self.flow.module(node)
        return isinstance(module, _AVERAGE_MODULES) or self.flow.op(node) in _AVERAGES_OF

    def _passes(self, node: int) -> bool:
        """Whether means stay means there; notes what has to give way for it."""
        flow, kind, module = self.flow, self.flow.kinds[node], self.flow.module(node)
        if kind == "activation":
            return flow.activation_name(node) in _PASSED_ACTIVATIONS
        if isinstance(module, _DROPOUTS):
            self.gone.add(str(flow.nodes[node].target))
            return self._once(node)
        if kind == "norm" and type(module) in _NORMS:
            self.norm = str(flow.nodes[node].target)
            self.gone.add(self.norm)
            return self._once(node) and len(flow.data_inputs[node]) == 1
        if kind == "pool":
            return self._pools(node, module)
        return kind in ("identity", "concat") and "dropout" not in flow.op(node)

    def _pools(self, node: int, module: nn.Module | None) -> bool:
        if self._averages(node):
            return True
        if type(module) is nn.MaxPool2d:
            if module.ceil_mode or module.return_indices or not self._once(node):
                return False
            sizes = {key: getattr(module, key) for key in ("kernel_size", "stride", "padding", "dilation")}
            plain = {key: list(size) if isinstance(size, tuple) else size for key, size in sizes.items()}
            self.pools[str(self.flow.nodes[node].target)] = Part("bernoulli.MaxPool", plain)
            return True
        # A function is no module that another could take the place of: the largest mean of its window stands for it.
        return module is None and self.flow.op(node) in ("max_pool2d", "adaptive_max_pool2d")

    def _once(self, node: int) -> bool:
        target = self.flow.nodes[node].target
        same = [n for n in self.flow.nodes if n.op == "call_module" and n.target == target]
        return self.flow.nodes[node].op == "call_module" and len(same) == 1

    def _words(self, node: int) -> str:
        kind = self.flow.kinds[node]
        if kind == "output":
            return "it is an output of the model, and a sign is no number to give out"
        if kind == "add":
            return "its output is added to another one: a sum of signs is no sign"
        return f"{self.flow.label(node)} reads its output, and makes of signs what is no sign"


def _refused(
    layers: Mapping[str, Layer], choices: Mapping[str, Choice], paths: Mapping[str, _Path]
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


def _feeders(choices: Mapping[str, Choice], paths: Mapping[str, _Path]) -> dict[str, set[str]]:
    """Layer -> the layers whose means it reads."""
    found: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        if _yields_signs(choices[name]):
            for reader in path.readers & found.keys():
                found[reader].add(name)
    return found


def _all_means(path: _Path, feeders: set[str], paths: Mapping[str, _Path]) -> bool:
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


def _choose_inputs(choices: dict[str, Choice], paths: Mapping[str, _Path]) -> None:
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


def _around(choices: Mapping[str, Choice], paths: Mapping[str, _Path]) -> RandomSigns:
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
