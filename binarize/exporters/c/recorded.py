"""A packed model recorded on one sample, as the C exporter translates it: every layer opened, down to torch's functions.

A packed layer with float parts (norm, shortcut, activation) is recorded as its product and these parts one by one, and a
nonlinearity that says its straight lines as these. Attention, norms and the like are taken apart (`apart`).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.fx
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear, piecewise_of
from binarize.capture.tape import Recording, operation_name, record
from binarize.exporters.c.apart import Apart
from binarize.exporters.c.call import refuse
from binarize.layers.layer import BinaryLayer, run_parts
from binarize.modules.places import set_everywhere
from binarize.packed.freeze import Example
from binarize.packed.layers import PackedLayer

__all__ = ["recorded"]


def recorded(model: nn.Module, sample: Example) -> Recording:
    """What a packed model does with one sample (batch of 1).

    Raises: UsageError, naming the layer and the reason, where it does not do the same with every sample.
    """
    split = copy.deepcopy(model).eval()
    if isinstance(split, (PackedLayer, Nonlinearity)):
        split = nn.Sequential(split)  # a recording opens the root, whatever it is
    for path, layer in list(split.named_modules()):
        if type(layer) is PackedLayer:
            set_everywhere(split, path, _Split.of_layer(layer).eval())
        elif isinstance(layer, BinaryLayer):
            raise refuse(path, "it has no packed form: `binarize pack` says why")
        elif isinstance(layer, Nonlinearity) and isinstance(form := piecewise_of(layer), PiecewiseLinear):
            set_everywhere(split, path, form.eval())
    with _Watch(split, sample) as watch, _taking_apart(split):
        recording = record(split, sample[0], sample[1], is_leaf=_is_leaf)
    if watch.asked:
        raise refuse(
            "the model",
            f"its forward asks for the numbers of a tensor ({watch.asked[0]}), and may take another way; write what "
            "depends on them with torch.where, or leave it to the code around the network",
        )
    _drop_unread(recording.graph)
    return recording


def _is_leaf(module: nn.Module) -> bool:
    return type(module) in (PackedLayer, PiecewiseLinear)


@contextlib.contextmanager
def _taking_apart(model: nn.Module) -> Iterator[None]:
    """While the model runs, operations are taken apart before a recorder that is active sees them."""
    modes: list[Apart] = []

    def enter(module: nn.Module, args: object) -> None:
        modes.append(Apart())
        modes[-1].__enter__()

    def leave(module: nn.Module, args: object, output: object) -> None:
        modes.pop().__exit__(None, None, None)

    handles = [model.register_forward_pre_hook(enter)]
    handles.append(model.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
        read = x if self.front is None else self.front(x)
        y: Tensor = self.core(read) if output_size is None else self.core(read, output_size)
        return run_parts(self, x, y)


class _Watch(TorchFunctionMode):
    """Notes where a forward turns tensors that the input decides into Python numbers: a recording holds one way alone."""

    def __init__(self, model: nn.Module, sample: Example) -> None:
        super().__init__()
        self.asked: list[str] = []
        # Tensors that the input decides, kept so that no other takes their place in memory.
        self.decided = {id(x): x for x in pytree.tree_leaves(sample) if isinstance(x, Tensor)}
        self.inside = 0
        for module in model.modules():
            if _is_leaf(module):
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    def _enter(self, module: nn.Module, args: object) -> None:
        self.inside += 1

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        self.inside -= 1
        self._note(args, output)

    def _note(self, given: object, output: object) -> None:
        if any(id(x) in self.decided for x in pytree.tree_leaves(given)):
            self.decided |= {id(y): y for y in pytree.tree_leaves(output) if isinstance(y, Tensor)}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = operation_name(func)
        if not self.inside and name in _NUMBERS and any(id(x) in self.decided for x in args):
            self.asked.append(name)
        output = func(*args, **(kwargs or {}))
        if not self.inside:
            written = args[0] if name == "__setitem__" else None
            self._note((args, kwargs), (output, written))
        return output


_NUMBERS = frozenset(("__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy"))


def _drop_unread(graph: torch.fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("output", "placeholder"):
            graph.erase_node(node)
