"""A packed model recorded on one sample, as the C exporter translates it.

A packed layer with float parts (norm, shortcut, activation) is recorded as its product and these parts one by one, and a
nonlinearity that says its straight lines as these.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.fx
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear, piecewise_of
from binarize.capture.leaves import is_leaf
from binarize.capture.tape import Recording, operation_name, record
from binarize.exporters.c.steps import refuse
from binarize.layers.layer import BinaryLayer, run_parts
from binarize.modules.places import set_everywhere
from binarize.packed.layers import PackedLayer

__all__ = ["recorded"]


def recorded(model: nn.Module, sample: Tensor) -> Recording:
    """What a packed model does with one sample (batch of 1).

    Raises: UsageError, naming the layer and the reason, where it does not do the same with every sample.
    """
    split = copy.deepcopy(model).eval()
    if isinstance(split, PackedLayer) or next(split.children(), None) is None:
        split = nn.Sequential(split)  # a recording opens the root, whatever it is
    for path, layer in list(split.named_modules()):
        if type(layer) is PackedLayer:
            set_everywhere(split, path, _Split.of_layer(layer).eval())
        elif isinstance(layer, BinaryLayer):
            raise refuse(path, "it has no packed form: `binarize pack` says why")
        elif isinstance(layer, Nonlinearity) and isinstance(form := piecewise_of(layer), PiecewiseLinear):
            set_everywhere(split, path, form.eval())
    with _Watch(split) as watch:
        recording = record(split, (sample,))
    if watch.asked:
        raise refuse(
            "the model",
            f"its forward asks for the numbers of a tensor ({watch.asked[0]}), and may take another way",
        )
    _drop_unread(recording.graph)
    return recording


class _Split(PackedLayer):
    """A packed layer that runs its product as a module of its own, so that a recording shows every part."""

    core: PackedLayer

    @classmethod
    def of_layer(cls, layer: PackedLayer) -> _Split:
        split = cast(_Split, cls.from_bits(layer.form, layer.bits))
        split.take_parts(layer)
        split.core = PackedLayer.from_bits(layer.form, layer.bits)
        return split

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        y: Tensor = self.core(x if self.front is None else self.front(x))
        return run_parts(self, x, y)


class _Watch(TorchFunctionMode):
    """Notes where a forward turns tensors into Python numbers: a recording holds one way through its code.

    What a module asks that is recorded as one operation does not count.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.inside: list[nn.Module] = []
        for path, module in model.named_modules():
            if path and is_leaf(module):
                module.register_forward_pre_hook(lambda module, args: self.inside.append(module))
                module.register_forward_hook(lambda module, args, output: self._leave())

    def _leave(self) -> None:
        self.inside.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if not self.inside and (name := operation_name(func)) in _NUMBERS:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


_NUMBERS = frozenset(("__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy"))


def _drop_unread(graph: torch.fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("output", "placeholder"):
            graph.erase_node(node)
