"""Graph -> [Layer]: what every layer is and where it stands. Facts only; no decision is made here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from binarize.analysis.layer import InputSign, Layer, Position, Skip

if TYPE_CHECKING:
    from binarize.analysis.flow import Flow
    from binarize.capture import Graph

__all__ = ["Analysis", "analyse"]


@dataclass(frozen=True)
class Analysis:
    """All layers in execution order, and the data flow that they were read from."""

    layers: tuple[Layer, ...]
    # The recording with the most layers: in training mode where only that runs the auxiliary heads.
    flow: Flow
    graph: Graph
    # Layer name -> the nodes of `flow` that call it.
    nodes: dict[str, list[int]]


def analyse(graph: Graph) -> Analysis:
    """Read every layer off the recordings of a model.

    Layers that no recording reaches are listed last with the reason; nothing that holds a weight is left out.
    """
    from binarize.analysis.facts import entangled
    from binarize.analysis.flow import Flow

    evaluation = Flow(graph.evaluation)
    flow = evaluation
    if graph.training is not None:
        training = Flow(graph.training)
        if set(_sites_by_name(training)) > set(_sites_by_name(evaluation)):
            flow = training
    nodes = _sites_by_name(flow)
    called_in_evaluation = set(_sites_by_name(evaluation))
    reasons = entangled(flow)
    signs = flow.signs()
    layers: list[Layer] = []
    for name, sites in nodes.items():
        calls = len(sites) if name in called_in_evaluation else 0
        layers.append(_layer(flow, name, sites, len(layers), calls, signs, reasons))
    layers += _never_called(graph, flow, set(nodes), len(layers))
    return Analysis(tuple(layers), flow, graph, nodes)


def _sites_by_name(flow: Flow) -> dict[str, list[int]]:
    """Layer name -> its call sites, names in order of their first call."""
    called = {str(flow.nodes[i].target) for i in flow.sites if flow.module(i) is not None}
    found: dict[str, list[int]] = {}
    for i in flow.sites:
        name = str(flow.nodes[i].target) if flow.module(i) is not None else _functional_name(flow, i, called)
        found.setdefault(name, []).append(i)
    return found


def _functional_name(flow: Flow, site: int, called: set[str]) -> str:
    """A functional layer is named after the module whose weight it uses, or after its bare parameter.

    `called` modules have a row of their own: a decoder's `F.linear(x, embedding.weight)` is another layer.
    """
    path = flow.functional_weights(site)[0]
    owner, _, leaf = path.rpartition(".")
    of_torch = type(flow.modules[owner]).__module__.startswith("torch.nn.")
    return owner if leaf == "weight" and of_torch and owner not in called else path


def _layer(
    flow: Flow,
    name: str,
    sites: list[int],
    order: int,
    calls: int,
    signs: list[InputSign],
    entangled: dict[str, str],
) -> Layer:
    from binarize.analysis.facts import (
        count_macs,
        functional_facts,
        functional_obstacle,
        module_facts,
        obstacle_of,
    )

    first = sites[0]
    block = flow.block_of.get(first)
    in_shape = flow.shape(flow.data_inputs[first][0]) if flow.data_inputs[first] else ()
    module = flow.module(first)
    facts = module_facts(module) if module is not None else functional_facts(flow, first)
    batch = _batch(flow)
    position: Position = "none"
    if any(site in flow.first_sites for site in sites):
        position = "first"
    elif any(site in flow.last_sites for site in sites):
        position = "last"
    skip: Skip = "none"
    if block is not None:
        skip = "concat" if block.kind == "concat" else "own" if block.span == 1 else "enclosing"
    return Layer(
        name=name,
        order=order,
        in_shape=in_shape,
        out_shape=flow.shape(first),
        # What runs in training mode only costs nothing at inference.
        macs=sum(count_macs(flow, site, module, facts) for site in sites) // batch if calls else 0,
        position=position,
        skip=skip,
        span=block.span if block is not None else 0,
        input_sign=_worst_sign([signs[j] for site in sites for j in flow.data_inputs[site][:1]]),
        downsample=any(site in flow.projections for site in sites),
        gate=any(site in flow.gates for site in sites),
        preceded_by=tuple(dict.fromkeys(flow.label(j) for j in flow.data_inputs[first])),
        followed_by=tuple(dict.fromkeys(flow.label(j) for j in flow.users[first])),
        norm_after=_norm_after(flow, first),
        inside=_ancestors(flow, name),
        calls=calls,
        obstacle=functional_obstacle(flow, first, name)
        if module is None
        else obstacle_of(module, name, entangled),
        **facts,
    )


def _batch(flow: Flow) -> int:
    """Samples in the example: the first dimension of the first input."""
    for i, node in enumerate(flow.nodes):
        if node.op == "placeholder" and flow.shape(i):
            return max(flow.shape(i)[0], 1)
    return 1


def _worst_sign(signs: list[InputSign]) -> InputSign:
    worst: tuple[InputSign, ...] = ("nonneg", "lowneg")
    for sign in worst:
        if sign in signs:
            return sign
    return "any"


def _norm_after(flow: Flow, site: int) -> str | None:
    """The norm that alone reads the output, looking through what does not compute (and through pooling)."""
    i = site
    while len(flow.users[i]) == 1:
        i = flow.users[i][0]
        if flow.kinds[i] in ("norm", "norm_act"):
            node = flow.nodes[i]
            return str(node.target) if node.op == "call_module" else flow.label(i)
        if flow.kinds[i] not in ("identity", "pool"):
            return None
    return None


def _ancestors(flow: Flow, name: str) -> tuple[str, ...]:
    from binarize.attention.multihead import Explicit

    around = [flow.modules[path] for path in _paths_around(name) if path in flow.modules]
    # An attention is taken apart in the copy that is recorded only; behind Explicit stands what it was.
    kinds = [type(m).__mro__[2] if isinstance(m, Explicit) else type(m) for m in around]
    return tuple(kind.__name__ for kind in kinds)


def _paths_around(name: str) -> list[str]:
    """The paths of the modules around a layer, outermost first."""
    names = name.split(".")[:-1]
    return ["", *(".".join(names[: k + 1]) for k in range(len(names)))]


def _never_called(graph: Graph, flow: Flow, seen: set[str], order: int) -> list[Layer]:
    """Convolutions and linear layers that the example did not reach, or that hold a fixed constant."""
    from torch import nn

    from binarize.analysis.facts import module_facts
    from binarize.capture.leaves import CONVOLUTIONS, is_leaf

    readers = {
        path.rpartition(".")[0]: flow.label(site)
        for site in flow.sites
        for path in flow.functional_weights(site)
    }
    layers: list[Layer] = []
    for path, module in graph.shadow.named_modules():
        if path in seen or not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            continue
        calls = graph.calls.get(path, 0)
        # Parts of a closed module (nn.MultiheadAttention's out_proj) are used by it without being called.
        parent = graph.shadow.get_submodule(path.rpartition(".")[0])
        if isinstance(parent, nn.MultiheadAttention):
            continue
        reason = "not reached by the forward pass on the example"
        if path in readers:
            reason = f"the model reads its weight itself ({readers[path]})"
        elif calls and not is_leaf(module):
            reason = "its own weight is not used: its forward runs the layers inside it"
        elif calls:
            trains = any(parameter.requires_grad for parameter in module.parameters())
            reason = "its input does not depend on the model's" if trains else "frozen constant of the model"
        for around in _paths_around(path):
            module_around = graph.shadow.get_submodule(around)
            if around and graph.calls.get(around) and is_leaf(module_around):
                reason = f"part of {around}, a {type(module_around).__name__}, which is one operation"
                break
        facts = module_facts(module)
        layers.append(Layer(name=path, order=order + len(layers), calls=calls, obstacle=reason, **facts))
    return layers
