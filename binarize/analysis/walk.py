"""Module -> [Layer] without running it: what is left where a model does not run on any input that is known.

Layers come in the order in which they are registered, which may be another than that of execution; the first and the last
are only guessed from it, and what stands before, behind and around a layer is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch.fx
from torch import Tensor, nn

from binarize.analysis.analyse import Analysis, analyse
from binarize.analysis.facts import entangled, module_facts, obstacle_of
from binarize.analysis.flow import Flow
from binarize.analysis.layer import Layer
from binarize.capture import Graph, Recording, capture
from binarize.capture.leaves import CONVOLUTIONS, is_leaf
from binarize.errors import CaptureError
from binarize.inputs import shapes
from binarize.sources import Source

__all__ = ["analysed", "walk", "walk_warning"]

_LAYERS = (*CONVOLUTIONS, nn.Linear, nn.MultiheadAttention, nn.RNNBase, nn.Embedding)


def analysed(
    source: Source, images: tuple[tuple[Any, ...], Mapping[str, Any]] | None, *, asked_for: bool
) -> Analysis:
    """What the model does with the images; all that a walk over its modules tells, where it runs on nothing known.

    Raises: CaptureError, where the images were `asked_for` and the model runs on others, or nothing can be swapped.
    """
    if images is None:
        how = shapes.asked_for(source.module)
        return walk(source.module, f"the shape of its input is not known; {how}")
    try:
        return analyse(capture(source.module, *images))
    except CaptureError as error:
        runs_on = _nearest(source.module, images) if asked_for else None
        if runs_on is not None:
            raise CaptureError(f"{error}\n  it runs on {runs_on}") from error
        return walk(source.module, str(error))


def _nearest(module: nn.Module, images: tuple[tuple[Any, ...], Mapping[str, Any]]) -> str | None:
    """The shapes of an input that the model takes: the given one as a batch, or one made from its layers."""
    args, kwargs = images
    if len(args) == 1 and isinstance(args[0], Tensor) and not kwargs:
        try:
            capture(module, (args[0].unsqueeze(0),), {})
        except CaptureError:
            pass
        else:
            return f"{(1, *args[0].shape)}, a batch of one"
    other = shapes.infer(module)
    return None if other is None else ", ".join(str(kind.shape) for kind in other.kinds)


def walk(module: nn.Module, reason: str) -> Analysis:
    """Every layer of a model that could not be recorded for that reason.

    Raises: CaptureError with the reason, where no layer could be swapped either.
    """
    graph = Graph(module, Recording(module, torch.fx.Graph(), None), None, "walk", (reason,))
    flow = Flow(graph.evaluation)
    reasons = entangled(flow)
    layers = [
        Layer(
            name=name,
            order=order,
            inside=_around(module, name),
            capture="walk",
            obstacle=obstacle_of(part, name, reasons),
            **module_facts(part),
        )
        for order, (name, part) in enumerate(_layers(module))
    ]
    if all(layer.obstacle is not None for layer in layers):
        held = ", ".join(f"{layer.name or 'the model itself'}: {layer.obstacle}" for layer in layers[:3])
        raise CaptureError(
            f"{reason}\n  nor can a walk over its modules swap anything: "
            + (held or "it holds no convolution and no linear layer")
        )
    layers[0] = replace(layers[0], position="first")
    if len(layers) > 1:
        layers[-1] = replace(layers[-1], position="last")
    return Analysis(tuple(layers), flow, graph, {})


def walk_warning(reason: str) -> str:
    """What a user has to know of a model that was converted by a walk."""
    return (
        "module walk: the model was not run, so that nothing is known of its data flow. Which layer is first and which is "
        "last was guessed from the order of registration, no shortcut was looked for or added, each binary layer has a "
        "norm and a threshold of its own, ReLUs before signs stay, and nothing was checked by running it. "
        f"The reason: {reason}"
    )


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers with their paths in order of registration; what an attention or a recurrent layer holds belongs to it."""
    closed: list[str] = []
    for name, part in module.named_modules():
        if any(name.startswith(f"{path}.") for path in closed):
            continue
        own = any(parameter.dim() > 1 for parameter in part.parameters(recurse=False))
        if isinstance(part, _LAYERS):
            closed.append(name)
            yield name, part
        elif own and name and is_leaf(part) and not isinstance(part, nn.LayerNorm):
            yield name, part


def _around(module: nn.Module, name: str) -> tuple[str, ...]:
    """Class names of the modules around a layer, outermost first."""
    parts = name.split(".")[:-1]
    paths = ["", *(".".join(parts[: depth + 1]) for depth in range(len(parts)))] if name else []
    return tuple(type(module.get_submodule(path)).__name__ for path in paths)
