"""What each node of a recorded graph is: a layer, an activation, a norm, an add, or an operation that moves values.

A *site* is a node that a layer stands behind: a convolution or linear layer that sees the model's input. Nodes are
known by their position in execution order; ancestors and descendants are bit sets (Python integers), so graphs of
thousands of nodes take a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Literal

import torch.fx
from torch import nn
from torch.utils import _pytree as pytree

from binarize.analysis import calls
from binarize.analysis.calls import read_by
from binarize.capture.tape import Recording

__all__ = ["Operations"]

Node = torch.fx.Node
NodeKind = Literal[
    "placeholder", "get_attr", "output", "site", "activation", "norm", "norm_act", "pool", "identity", "add", "concat",
    "gate", "scale", "other",
]  # fmt: skip
# Weights of a frozen layer that is a constant of the model (a fixed expectation over 16 bins, a blur).
_SMALL_CONSTANT = 256


class Operations:
    """The nodes of one recording, what each reads, reaches and is."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.root = recording.root
        self.modules = dict(self.root.named_modules(remove_duplicate=False))
        self.nodes: list[Node] = list(recording.graph.nodes)
        self.index: dict[Node, int] = {node: i for i, node in enumerate(self.nodes)}
        self.inputs = [[self.index[n] for n in read_by(node)] for node in self.nodes]
        self.users: list[list[int]] = [[] for _ in self.nodes]
        for i, inputs in enumerate(self.inputs):
            for j in inputs:
                self.users[j].append(i)
        self.ancestors = self._closure(self.inputs, range(len(self.nodes)))
        self.descendants = self._closure(self.users, reversed(range(len(self.nodes))))
        placeholders = sum(1 << i for i, node in enumerate(self.nodes) if node.op == "placeholder")
        # Nodes that depend on the input; the rest computes with parameters alone.
        self.is_data = [bool((self.ancestors[i] | 1 << i) & placeholders) for i in range(len(self.nodes))]
        self._weights: dict[int, list[str]] = {}
        self.kinds: list[NodeKind] = [self._kind(i) for i in range(len(self.nodes))]
        self.sites = [i for i, kind in enumerate(self.kinds) if kind == "site"]
        self.data_inputs = [[j for j in inputs if self.is_data[j]] for inputs in self.inputs]

    def _closure(self, edges: list[list[int]], order: Iterable[int]) -> list[int]:
        reach = [0] * len(self.nodes)
        for i in order:
            for j in edges[i]:
                reach[i] |= reach[j] | 1 << j
        return reach

    # --- what a node is

    def module(self, i: int) -> nn.Module | None:
        """The leaf module that node `i` calls, if it calls one."""
        node = self.nodes[i]
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def op(self, i: int) -> str:
        """Name of the operation; the class name for a leaf module."""
        return str(self.nodes[i].meta.get("op", self.nodes[i].op))

    def label(self, i: int) -> str:
        """The operation as a reader knows it: "ReLU" for a module, "F.relu" for a function, "add" for operators."""
        op = self.op(i)
        if self.nodes[i].op == "call_module":
            return op
        plain = op.strip("_")
        if plain in ("iadd", "radd"):
            plain = "add"
        return (
            f"F.{plain}"
            if plain in calls.NONNEG | calls.LOWNEG | calls.NORM | {"linear", "dropout"} | calls.CONV
            else plain
        )

    def shape(self, i: int) -> tuple[int, ...]:
        """Shape of what node `i` yields; () if it is no tensor."""
        return tuple(self.nodes[i].meta.get("shape") or ())

    def frames(self, i: int) -> tuple[tuple[str, int], ...]:
        """The module calls around node `i`, outermost first."""
        return tuple(self.nodes[i].meta.get("frames", ()))

    def activation_name(self, i: int) -> str:
        """Lower-case name of the activation function of node `i`, "" if it is none."""
        module = self.module(i)
        if module is not None and self.kinds_norm_act(module):
            module = getattr(module, "act", None)
        name = (type(module).__name__ if module is not None else self.op(i)).lower().strip("_")
        if name in ("clamp", "clamp_min", "clip") and self.nodes[i].op != "call_module":
            return "relu6" if self._clamps_at_zero(i) else ""
        return name if name in calls.NONNEG | calls.LOWNEG | calls.OTHER_ACTIVATIONS else ""

    def kinds_norm_act(self, module: nn.Module) -> bool:
        """Whether the module is a norm that applies an activation itself (timm's BatchNormAct2d and kin)."""
        return (
            hasattr(module, "act") and "Norm" in type(module).__name__ and isinstance(module.act, nn.Module)
        )

    def _clamps_at_zero(self, i: int) -> bool:
        node = self.nodes[i]
        lower = node.kwargs.get("min", node.args[1] if len(node.args) > 1 else None)
        return isinstance(lower, (int, float)) and lower == 0

    def _kind(self, i: int) -> NodeKind:
        node = self.nodes[i]
        if node.op in ("placeholder", "get_attr", "output"):
            return node.op  # type: ignore[return-value]
        module = self.module(i)
        if module is not None:
            return self._module_kind(i, module)
        op = self.op(i)
        if self.functional_weights(i):
            return "site"
        operands = len({j for j in self.inputs[i] if self.is_data[j]})
        plain = op.strip("_")
        if op in calls.ADD and operands >= 2:
            return "add"
        if op in calls.CONCAT:
            return "concat"
        if op in calls.MULTIPLY | {"div", "__truediv__", "div_", "addcmul"}:
            if (
                operands < 2
                and sum(isinstance(one, torch.fx.Node) and one in self.index for one in node.args) > 1
            ):
                return "other" if node.args[0] is node.args[1] else "scale"
            return "gate" if operands >= 2 else "scale"
        if op in calls.ADD or op in calls.SUBTRACT:
            return "scale" if operands < 2 else "other"
        if self.activation_name(i):
            return "activation"
        if plain in calls.NORM:
            return "norm"
        if op in calls.POOL or "pool" in op:
            return "pool"
        return "identity" if op in calls.IDENTITY or plain in calls.IDENTITY else "other"

    def _module_kind(self, i: int, module: nn.Module) -> NodeKind:
        name = type(module).__name__
        if isinstance(module, calls.LAYERS) or self._multiplies(i, module):
            return "site" if self.is_data[i] and not self._constant_layer(module) else "other"
        if self.kinds_norm_act(module):
            return "norm_act" if self.activation_name(i) else "norm"
        if "Norm" in name:
            return "norm"
        if self.activation_name(i) or type(module).__module__ == "torch.nn.modules.activation":
            return "activation"
        if "Pool" in name or "Pad" in name or "Upsample" in name or "PixelShuffle" in name:
            return "pool"
        if (
            "Drop" in name
            or "StochasticDepth" in name
            or isinstance(module, (nn.Identity, nn.Flatten, nn.Unflatten, nn.ChannelShuffle))
        ):
            return "identity"
        return "other"

    def _multiplies(self, i: int, module: nn.Module) -> bool:
        """Whether a module of the model's own is a layer: it holds a matrix, and its forward takes a product."""
        made = {str(op).rstrip("_") for op in self.nodes[i].meta.get("inside", ())}
        if not made & (calls.CONV | calls.MATRIX | {"linear"}):
            return False
        return any(parameter.dim() > 1 for parameter in module.parameters())

    def _constant_layer(self, module: nn.Module) -> bool:
        """A small frozen layer in a model that trains is arithmetic written as a layer (YOLO's DFL)."""
        frozen = [p for p in module.parameters() if not p.requires_grad]
        count = sum(p.numel() for p in module.parameters())
        return len(frozen) == len(list(module.parameters())) and count < _SMALL_CONSTANT and self.trains

    @cached_property
    def trains(self) -> bool:
        """Whether any parameter of the model asks for gradients."""
        return any(p.requires_grad for p in self.root.parameters())

    def functional_weights(self, i: int) -> list[str]:
        """Paths of the parameters that the weight of a functional layer (`F.linear(x, self.weight)`) is made from.

        Empty if node `i` is none: a product with a constant or a buffer has nothing to be learned.
        """
        if i not in self._weights:
            self._weights[i] = self._functional_weights(i)
        return self._weights[i]

    def _functional_weights(self, i: int) -> list[str]:
        node, op = self.nodes[i], self.op(i).rstrip("_")
        if node.op != "call_function" or not self.is_data[i]:
            return []
        if op in calls.CONV or op == "linear":
            weights = [node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")]
        elif self.op(i) in calls.MATRIX or op in calls.MATRIX:
            factors = node.args[1:] if op.startswith(("add", "badd")) else node.args
            weights = [*pytree.tree_leaves((factors, node.kwargs))]
        else:
            return []
        found: list[str] = []
        for weight in weights:
            if isinstance(weight, torch.fx.Node):
                j = self.index[weight]
                if not self.is_data[j]:
                    found += self._parameters_of(j)
                elif op in calls.CONV or op == "linear":
                    found += self._mixed(j)
        # A matrix comes before the biases that are read with it.
        return sorted(dict.fromkeys(found), key=lambda path: self.parameters[path].dim() < 2)

    def _parameters_of(self, i: int) -> list[str]:
        """The parameters that a data-free value is made from."""
        sources = [j for j in range(i + 1) if (self.ancestors[i] | 1 << i) >> j & 1]
        paths = [str(self.nodes[j].target) for j in sources if self.nodes[j].op == "get_attr"]
        return [path for path in paths if path in self.parameters]

    def _mixed(self, i: int) -> list[str]:
        """The banks of filters that a weight is mixed from anew for each input: its parameters, up to the next layer."""
        seen, stack, found = {i}, [i], []
        while stack:
            j = stack.pop()
            node = self.nodes[j]
            if node.op == "get_attr":
                found.append(str(node.target))
            if node.op == "call_module" or self.functional_weights(j):
                continue
            stack += [k for k in self.inputs[j] if k not in seen]
            seen.update(self.inputs[j])
        return [path for path in found if path in self.parameters and self.parameters[path].dim() > 2]

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The model's parameters, under every name that they have."""
        return dict(self.root.named_parameters(remove_duplicate=False))
