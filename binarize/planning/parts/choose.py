"""What each binary layer carries: norm, threshold, shortcut, activation, and the words and counts the report shows."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from binarize.analysis.analyse import Analysis
from binarize.analysis.flow import Flow
from binarize.analysis.layer import Layer
from binarize.layers.shortcuts import ShortcutSpec
from binarize.planning.activations import ActivationChange, Choice
from binarize.planning.edits import Edits
from binarize.planning.parts.around import Around
from binarize.planning.parts.fronts import norm_in_front
from binarize.planning.parts.homes import house_activations
from binarize.planning.parts.layer_parts import LayerParts, channel_dim_of
from binarize.planning.parts.random_signs import reads_means
from binarize.planning.record.edit import NewActivation
from binarize.planning.record.edit_kinds import named_sizes
from binarize.planning.shortcuts import ShortcutChange
from binarize.planning.thresholds import Origins, choose_threshold, unknown_threshold
from binarize.schemes.part import Part, part_options

__all__ = ["choose_parts"]


def choose_parts(
    analysis: Analysis, choices: Mapping[str, Choice], edits: Edits, around: Around
) -> dict[str, LayerParts]:
    """The parts of every binarized layer; also finds a home for the activations that only the graph can reach."""
    activations, shortcuts = around.activations, around.shortcuts
    if analysis.graph.level == "walk":
        chosen = [layer for layer in analysis.layers if layer.name in choices]
        return {layer.name: _apart(layer, choices[layer.name], shortcuts[layer.name]) for layer in chosen}
    flow = analysis.flow
    signs = flow.signs(lambda i: i in activations and not activations[i].nonnegative)
    parts: dict[str, LayerParts] = {}
    # Filled layer by layer, in execution order: what stands in front of a layer is known when it is reached.
    norms: dict[int, str] = {}
    origins = Origins(flow, activations, norms, _added_values(analysis, shortcuts), edits.moves)
    for layer in analysis.layers:
        if layer.name not in choices:
            continue
        choice, site = choices[layer.name], analysis.nodes[layer.name][0]
        part = parts[layer.name] = LayerParts(layer, shortcuts[layer.name])
        _choose_norm(flow, layer, site, choice, activations, part)
        if part.norm is not None:
            norms |= dict.fromkeys(analysis.nodes[layer.name], f"{layer.name}.norm")
        inputs = [signs[j] for i in analysis.nodes[layer.name] for j in flow.data_inputs[i][:1]]
        if layer.name in around.random_signs.norms:
            part.norm_word = f"its own centring for {around.random_signs.norms[layer.name]}"
        if layer.name in around.random_signs.signed:
            part.activation = NewActivation(Part("bernoulli.OutputSign"), 0, channel_dim_of(layer))
            part.activation_inside = True
        if choice.signed and part.input_norm is None and not reads_means(choice):
            same_sign = layer.name in around.one_sided or any(sign != "any" for sign in inputs)
            threshold = choose_threshold(origins, site, choice.scheme.input, same_sign)
            if threshold is not None:
                part.threshold, part.own_threshold = threshold.origin, threshold.own
                part.threshold_word = threshold.words
        change = shortcuts[layer.name]
        bent = any(move.behind == site for move in edits.moves.values())
        part.shortcut_inside = change.action == "own" and change.end == site and not bent
        part.container = edits.container_of_layer(layer.name)
        _describe_activation(flow, site, activations, edits, part)
    house_activations(analysis, choices, activations, edits, parts)
    for name, part in parts.items():
        _move_norm_activation(analysis, activations, edits, part)
        _act_inside(analysis, name, choices[name], activations, part)
        _count(choices[name], activations, part)
    return parts


def _added_values(
    analysis: Analysis, shortcuts: Mapping[str, ShortcutChange]
) -> dict[int, tuple[int, ShortcutSpec]]:
    """Node -> the layer whose own shortcut ends there, and the shortcut."""
    return {
        change.end: (analysis.nodes[name][0], change.spec)
        for name, change in shortcuts.items()
        if change.action == "own" and change.spec is not None
    }


def _apart(layer: Layer, choice: Choice, shortcut: ShortcutChange) -> LayerParts:
    """The parts of a layer whose surroundings are not known: all that it needs, it brings along."""
    part = LayerParts(layer, shortcut)
    if choice.scheme.norm == "missing":
        part.norm = _norm_class(layer)
        part.norm_word = f"added {part.norm}"
    elif choice.scheme.norm == "before_sign":
        part.input_norm = _norm_class(layer)
        part.norm_word = f"added {part.input_norm} before the sign"
    if choice.signed and part.input_norm is None:
        threshold = unknown_threshold(choice.scheme.input)
        part.threshold, part.own_threshold = threshold.origin, threshold.own
        part.threshold_word = threshold.words
    _count(choice, {}, part)
    return part


def _norm_class(layer: Layer) -> str:
    if layer.kind == "linear":
        return "BatchNorm1d" if len(layer.out_shape) == 2 else "LayerNorm"
    return f"BatchNorm{len(layer.kernel)}d"


def _choose_norm(
    flow: Flow,
    layer: Layer,
    site: int,
    choice: Choice,
    activations: Mapping[int, ActivationChange],
    part: LayerParts,
) -> None:
    if layer.norm_after is not None:
        part.norm_word = f"kept {layer.norm_after}"
    if choice.scheme.norm == "missing" and (layer.norm_after is None or part.shortcut.in_place):
        part.norm = _norm_class(layer)
        part.norm_word = f"added {part.norm}"
    elif choice.scheme.norm == "before_sign" and not norm_in_front(flow, site, activations):
        part.input_norm = _norm_class(layer)
        part.norm_word = f"added {part.input_norm} before the sign"


def _describe_activation(
    flow: Flow, site: int, activations: Mapping[int, ActivationChange], edits: Edits, part: LayerParts
) -> None:
    """Say what became of the activation that makes this layer's input."""
    i = site
    while flow.data_inputs[i]:
        i = flow.data_inputs[i][0]
        if i in activations:
            change = activations[i]
            part.activation_word = (
                f"dropped {change.label}" if change.part is None else f"{change.label} -> {change.part.name}"
            )
            if i in edits.moves:
                part.activation_word += " before the add"
            return
        if flow.kinds[i] in ("activation", "norm_act"):
            part.activation_word = (
                f"kept {flow.label(i) if flow.kinds[i] == 'activation' else flow.activation_name(i)}"
            )
            return
        if flow.kinds[i] not in ("identity", "pool"):
            return


def _move_norm_activation(
    analysis: Analysis, activations: Mapping[int, ActivationChange], edits: Edits, part: LayerParts
) -> None:
    """Where an add goes between a norm and the activation inside it, the activation moves under the layer."""
    flow, end = analysis.flow, part.shortcut.end
    if part.shortcut.action == "none" or end < 0 or flow.kinds[end] != "norm_act" or end in edits.moves:
        return
    part.moved_activation = f"{flow.nodes[end].target}.act"
    channels = flow.shape(end)[1]
    change = activations.get(end)
    if change is not None:
        part.activation = change.new if change.part is not None else None
        return
    module = flow.module(end)
    assert module is not None
    kind = type(module.act)
    part.activation = NewActivation(Part(f"torch.nn.{kind.__name__}"), channels, 1)


def _act_inside(
    analysis: Analysis,
    name: str,
    choice: Choice,
    activations: Mapping[int, ActivationChange],
    part: LayerParts,
) -> None:
    """Behind a dropped pre-activation the nonlinearity goes after the new norm, where nothing else comes first."""
    flow = analysis.flow
    site = analysis.nodes[name][0]
    if part.activation is not None or part.norm is None or choice.scheme.nonlinearity is None:
        return
    dropped = part.activation_word.startswith("dropped") and len(analysis.nodes[name]) == 1
    following = {flow.kinds[user] for user in flow.users[site]}
    first = choice.scheme.position == "before_add"
    if dropped and not following & {"activation", "norm", "norm_act", "output", *(() if first else ("add",))}:
        dim = channel_dim_of(part.layer)
        part.activation = NewActivation(choice.scheme.nonlinearity, part.layer.out_channels, dim)
        part.activation_inside, part.activation_first = True, first and part.shortcut_inside
        part.activation_word += f", {choice.scheme.nonlinearity.name} behind the new norm"
        if first and (part.shortcut.action != "none" or "add" in following):
            part.activation_word += ", before the add"


def _count(choice: Choice, activations: Mapping[int, ActivationChange], part: LayerParts) -> None:
    """Float parameters that the conversion adds for this layer."""
    import torch

    layer, scheme = part.layer, choice.scheme
    dim = channel_dim_of(layer)
    extra = 0
    with torch.device("meta"):
        if scheme.input is not None:
            sizes = {"channels": layer.in_channels, "out_channels": layer.out_channels}
            binarizer = scheme.input.build(**sizes, channel_dim=dim)
            extra += _parameters(binarizer)
            part.bitplanes = int(getattr(binarizer, "bitplanes", 1))
        if scheme.weight is not None:
            weights = scheme.weight.build(channels=layer.out_channels, axis=0)
            extra += _parameters(weights) if getattr(weights, "keeps_parameters", True) else 0
            # Of a binarizer that does not say it: nearly all of them scale each filter.
            per_filter, per_layer = getattr(weights, "stored", (1, 0))
            part.scale_values = per_filter * layer.out_channels + per_layer
        if scheme.scale is not None:
            if "height" in (part_options(scheme.scale.name) or ()) and dim == 1:
                part.scale_size = tuple(layer.out_shape[2:])
            sizes = named_sizes(part.scale_size)
            extra += _parameters(scheme.scale.build(channels=layer.out_channels, channel_dim=dim, **sizes))
        first_reader = [c for c in activations.values() if c.part is not None and c.readers[0] == layer.name]
        for change in first_reader:
            assert change.part is not None
            extra += _parameters(change.part.build(channels=change.channels, channel_dim=change.channel_dim))
        if part.activation_inside and part.activation is not None and scheme.nonlinearity is not None:
            extra += _parameters(scheme.nonlinearity.build(channels=layer.out_channels, channel_dim=dim))
    if part.norm is not None:
        extra += 2 * layer.out_channels - (layer.out_channels if layer.bias else 0)
    if part.input_norm is not None:
        extra += 2 * layer.in_channels
    if part.threshold is not None and not part.own_threshold:
        extra += layer.in_channels
    if part.shortcut.spec is not None and part.shortcut.action == "own":
        extra += part.shortcut.spec.params(layer.in_channels, layer.out_channels)
    part.extra_params = extra


def _parameters(module: nn.Module) -> int:
    """Parameters of a module, without those that serve in training alone."""
    if getattr(module, "training_only", False):
        return 0
    own = sum(p.numel() for p in module.parameters(recurse=False))
    return own + sum(map(_parameters, module.children()))
