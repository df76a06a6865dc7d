"""What lies between a layer that yields means of random signs and the layers that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from binarize.analysis.flow import Flow
from binarize.schemes.part import Part

__all__ = ["MeanPath"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout, nn.AlphaDropout)
# What changes no mean of a sign, or what a plan takes away in front of a sign.
_PASSED_ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh"})
_AVERAGES_OF = frozenset({"mean", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"})
_AVERAGE_MODULES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


@dataclass
class MeanPath:
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
