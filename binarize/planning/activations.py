"""Which activations stand in front of a sign, and what becomes of them.

The sign of a ReLU's output is +1 everywhere. So a nonnegative activation whose value only binary inputs read gives way
to the scheme's signed nonlinearity; in a pre-activation chain (norm, ReLU, convolution) it is dropped, since the norm in
front of it is centred already. Where a float layer reads the value too, it stays, and the binary layer signs the value
against a threshold. The one behind the last binary layer gives way where the scheme says so (`last_activation`), and
nothing takes the place of the one behind the first layer where it says that (`first_activation`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from binarize.analysis.flow import Flow
from binarize.capture.leaves import CONVOLUTIONS
from binarize.planning.record.edit import NewActivation
from binarize.rules.rule_set import Rule
from binarize.schemes.part import Part
from binarize.schemes.scheme import Scheme

__all__ = ["EXCHANGES", "ActivationChange", "Choice", "change_activations", "channel_dim"]


# Operations that may move the channels to another axis.
EXCHANGES = frozenset({"permute", "transpose", "movedim", "swapaxes", "swapdims", "mT", "T"})


@dataclass(frozen=True)
class Choice:
    """The rule that binarizes a layer and the scheme it means."""

    rule: Rule
    scheme: Scheme

    @cached_property
    def signed(self) -> bool:
        """Whether the layer's input is replaced by its sign (not for binary weights alone, not for {0, 1} inputs)."""
        if self.scheme.input is None:
            return False
        return not getattr(self.scheme.input.build(channels=1, channel_dim=1), "nonnegative", False)


@dataclass(frozen=True)
class ActivationChange:
    """One activation that is replaced (`part`) or dropped (`part` is None)."""

    node: int
    action: Literal["replace", "drop"]
    part: Part | None
    channels: int
    channel_dim: int
    # Path of the module to swap; None where only an edit of the graph can reach this one call.
    path: str | None
    # Layers that it feeds, in execution order; of the last one, the binary layer that makes its value.
    readers: tuple[str, ...]
    label: str

    @cached_property
    def nonnegative(self) -> bool:
        """Whether the new module starts as a function without negative values (RPReLU with slope 0)."""
        if self.part is None:
            return False
        # Numbers are needed even where all new tensors lie on the meta device.
        with torch.no_grad(), torch.device("cpu"):
            values = torch.linspace(-4, 4, 9).unsqueeze(1).expand(9, self.channels)
            return bool((self.part.build(channels=self.channels, channel_dim=1)(values) >= 0).all())

    @property
    def new(self) -> NewActivation:
        """The module that takes its place."""
        return NewActivation(self.part, self.channels, self.channel_dim)


def change_activations(
    flow: Flow,
    names: Mapping[int, str],
    choices: Mapping[str, Choice],
    calls: Mapping[str, int],
    blocked: Collection[int] = (),
) -> dict[int, ActivationChange]:
    """The changes by node. `names` maps call sites to layers, `choices` holds the layers that are binarized.

    `blocked` activations are left alone: the container around them cannot be edited.
    """
    changes = {}
    for i, kind in enumerate(flow.kinds):
        if kind not in ("activation", "norm_act") or i in blocked or not _nonnegative(flow, i):
            continue
        readers, float_readers = _readers(flow, i, names, choices)
        if not readers:
            readers = _maker(flow, i, names, choices)
        elif float_readers:
            continue
        if not readers or any(choices[name].rule.activation == "keep" for name in readers):
            continue
        scheme = choices[readers[0]].scheme
        wanted = scheme.first_activation if _is_first(flow, i) else "replace"
        if wanted == "keep":
            continue
        dropped = wanted == "drop" or _is_preactivation(flow, i)
        part = None if dropped else scheme.nonlinearity
        dim = channel_dim(flow, i)
        path = _swappable_path(flow, i, calls)
        action: Literal["replace", "drop"] = "drop" if part is None else "replace"
        changes[i] = ActivationChange(
            i, action, part, flow.shape(i)[dim], dim, path, tuple(readers), _label(flow, i)
        )
    return changes


def channel_dim(flow: Flow, i: int) -> int:
    """The axis of the channels in what node `i` yields: 1, or -1 for tokens out of a linear layer.

    Where axes were exchanged on the way, the channels are where the size is the layer's.
    """
    shape = flow.shape(i)
    if len(shape) <= 2:
        return 1
    # (node, whether axes were exchanged between it and node i)
    seen, queue = {i}, [(i, False)]
    for node, exchanged in queue:
        exchanged ^= flow.op(node) in EXCHANGES
        for j in flow.data_inputs[node]:
            if flow.kinds[j] == "site":
                module = flow.module(j)
                is_conv = "conv" in flow.op(j) if module is None else isinstance(module, CONVOLUTIONS)
                own = 1 if is_conv else -1
                channels, dim = flow.shape(j)[own], -own if exchanged else own
                fitting = [axis for axis in (1, -1) if shape[axis] == channels]
                return fitting[0] if len(fitting) == 1 else dim
            if j not in seen:
                seen.add(j)
                queue.append((j, exchanged))
    return 1


def _nonnegative(flow: Flow, i: int) -> bool:
    return flow.is_data[i] and flow.activation_name(i) in ("relu", "relu6")


def _readers(
    flow: Flow, start: int, names: Mapping[int, str], choices: Mapping[str, Choice]
) -> tuple[list[str], list[str]]:
    """(layers that would sign this value, what needs it as it is), through everything that does not compute."""
    binary: dict[int, str] = {}
    floats: list[str] = []
    seen, stack = {start}, [start]
    while stack:
        for j in flow.users[stack.pop()]:
            if j in seen:
                continue
            seen.add(j)
            kind = flow.kinds[j]
            if kind == "site":
                name = names[j]
                if name in choices and choices[name].signed:
                    binary[j] = name
                elif name in choices or j not in flow.projections:
                    floats.append(name)
            elif kind in ("pool", "identity", "concat", "add", "scale"):
                stack.append(j)
            elif kind == "output":
                floats.append("the model's output")
            elif kind in ("gate", "other"):
                floats.append(flow.label(j))
            # A norm or another activation makes values of its own.
    return [binary[j] for j in sorted(binary)], floats


def _maker(flow: Flow, start: int, names: Mapping[int, str], choices: Mapping[str, Choice]) -> list[str]:
    """The binary layer behind whose norm and adds this activation stands, if no binary layer comes after it.

    Its scheme says whether such a one gives way too.
    """
    if _is_preactivation(flow, start):
        return []
    if any(flow.descendants[start] >> j & 1 for j, name in names.items() if name in choices):
        return []
    found = max((j for j in _sites_behind(flow, start) if j not in flow.projections), default=-1)
    choice = choices.get(names[found]) if found >= 0 else None
    if choice is None or not choice.signed or choice.scheme.last_activation == "keep":
        return []
    return [names[found]]


def _is_first(flow: Flow, start: int) -> bool:
    """Whether the activation stands behind the first layer, its norm and its pooling."""
    sites = _sites_behind(flow, start)
    return bool(sites) and sites <= flow.first_sites


def _sites_behind(flow: Flow, start: int) -> set[int]:
    """The layers whose values an activation works on, through norms, adds, pooling and what does not compute."""
    seen, stack, found = {start}, [start], set()
    while stack:
        for j in flow.data_inputs[stack.pop()]:
            if j in seen:
                continue
            seen.add(j)
            if flow.kinds[j] == "site":
                found.add(j)
            elif flow.kinds[j] in ("norm", "norm_act", "identity", "add", "scale", "pool"):
                stack.append(j)
    return found


def _is_preactivation(flow: Flow, i: int) -> bool:
    """Whether the activation works on a stream that goes on without it, and not on a layer's output."""
    j, through_norm = i, flow.kinds[i] == "norm_act"
    while flow.data_inputs[j]:
        j = flow.data_inputs[j][0]
        if flow.kinds[j] == "norm":
            through_norm = True
        elif flow.kinds[j] == "pool" and len(flow.users[j]) > 1:
            break  # a stream begins behind it
        elif flow.kinds[j] not in ("identity", "scale", "pool"):
            break
    if flow.kinds[j] == "site":
        return False
    if through_norm:
        return flow.kinds[j] != "placeholder"
    return flow.kinds[j] in ("add", "concat") and len(flow.users[j]) > 1


def _swappable_path(flow: Flow, i: int, calls: Mapping[str, int]) -> str | None:
    node = flow.nodes[i]
    if node.op != "call_module" or calls.get(str(node.target), 1) != 1:
        return None
    if sum(1 for other in flow.nodes if other.op == "call_module" and other.target == node.target) != 1:
        return None
    return f"{node.target}.act" if flow.kinds[i] == "norm_act" else str(node.target)


def _label(flow: Flow, i: int) -> str:
    module = flow.module(i)
    if flow.kinds[i] == "norm_act" and module is not None:
        return type(module.act).__name__
    return flow.label(i)
