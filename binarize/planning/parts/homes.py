"""Where new activations hang that only the graph can reach: under the binary layer they follow, else under its container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from binarize.analysis.analyse import Analysis
from binarize.analysis.flow import Flow
from binarize.planning.activations import ActivationChange, Choice
from binarize.planning.edits import Edits

if TYPE_CHECKING:
    from binarize.planning.parts.layer_parts import LayerParts

__all__ = ["house_activations"]


def house_activations(
    analysis: Analysis,
    choices: Mapping[str, Choice],
    activations: Mapping[int, ActivationChange],
    edits: Edits,
    parts: Mapping[str, LayerParts],
) -> None:
    """New activations hang under the binary layer they follow, else under the container."""
    flow = analysis.flow
    names = {site: name for name, sites in analysis.nodes.items() for site in sites}
    taken: set[str] = set()
    for node, change in activations.items():
        if change.path is not None or change.part is None:
            continue
        container = edits.container_of_activation(node)
        assert container is not None
        prefix = f"{container}." if container else ""
        owner = _producer(flow, node, names, choices, taken, prefix)
        if owner is not None:
            parts[owner].activation = change.new
            edits.homes[node] = f"{owner}.activation"
            taken.add(owner)
        else:
            edits.homes[node] = _free_name(analysis, prefix, taken)
            taken.add(str(edits.homes[node]))
        for name in change.readers:
            if parts[name].container is None:
                parts[name].container = container


def _producer(
    flow: Flow,
    node: int,
    names: Mapping[int, str],
    choices: Mapping[str, Choice],
    taken: set[str],
    prefix: str,
) -> str | None:
    """The binary layer of this container whose output, behind its norm and adds, the activation works on."""
    seen, stack, found = {node}, [node], []
    while stack:
        for j in flow.data_inputs[stack.pop()]:
            if j in seen:
                continue
            seen.add(j)
            if flow.kinds[j] == "site":
                name = names[j]
                if (
                    name in choices
                    and name not in taken
                    and name.startswith(prefix)
                    and j not in flow.projections
                ):
                    found.append(j)
            elif flow.kinds[j] in ("norm", "norm_act", "identity", "add", "scale", "pool"):
                stack.append(j)
    return names[max(found)] if found else None


def _free_name(analysis: Analysis, prefix: str, taken: set[str]) -> str:
    owner = analysis.flow.modules[prefix.rstrip(".")]
    number = 0
    while True:
        name = "activation" if number == 0 else f"activation_{number}"
        if not hasattr(owner, name) and prefix + name not in taken:
            return prefix + name
        number += 1
