"""The float model beside the binary one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.errors import UsageError, did_you_mean
from binarize.layers.layer import BinaryLayer
from binarize.modules.modes import evaluating

__all__ = ["Taps", "Teacher", "block_ends"]


_POOLS = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd)


class Teacher(nn.Module):
    """A model that is asked and never trained: it runs in evaluation mode, without gradients, and is left as it was.

    `scale` and `shift`, per channel, turn the student's normalized images into the teacher's.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, model: nn.Module, scale: Tensor | None = None, shift: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def train(self, mode: bool = True) -> Teacher:
        """The model keeps its mode."""
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> object:
        if self.scale is not None and self.shift is not None:
            channels = (1, -1, *[1] * (images.dim() - 2))
            images = images * self.scale.view(channels) + self.shift.view(channels)
        if not self.model.training:
            return self.model(images)
        with evaluating(self.model):
            return self.model(images)


class Taps:
    """The outputs of some modules in the last forward pass.

    Example:
        >>> with Taps(model, ["layer1", "layer2"]) as taps:    # doctest: +SKIP
        ...     model(images)
        ...     taps["layer1"]
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._model = model
        self.names = tuple(names)
        self._outputs: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Taps:
        modules = dict(self._model.named_modules())
        for name in self.names:
            if name not in modules:
                raise UsageError(
                    f'the {type(self._model).__name__} has no module "{name}"{did_you_mean(name, modules)}'
                )
            self._handles.append(modules[name].register_forward_hook(self._keep(name)))
        return self

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            tensors = [value for value in pytree.tree_leaves(output) if isinstance(value, Tensor)]
            if tensors:
                self._outputs[name] = tensors[0]

        return hook

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._outputs.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._outputs

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._outputs:
            raise UsageError(f'the module "{name}" gave no tensor in this forward pass; match another one')
        return self._outputs[name]

    def clear(self) -> None:
        """Forget the outputs, and the graph that hangs on them."""
        self._outputs.clear()


def block_ends(model: nn.Module) -> tuple[str, ...]:
    """The modules after which student and teacher are compared where nobody names any, in the order of registration.

    They are the innermost modules around binary layers (a block of a ResNet), and the pools of a plain chain.
    """
    around: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, BinaryLayer) and "." in name:
            around.add(name.rpartition(".")[0])
    inner = {name for name in around if not any(other.startswith(f"{name}.") for other in around)}
    chains = tuple(f"{name}." for name in inner) if inner else ("",)
    found = []
    for name, module in model.named_modules():
        pool = isinstance(module, _POOLS) and name.startswith(chains) and ".shortcut" not in name
        if name in inner or pool:
            found.append(name)
    return tuple(found)
