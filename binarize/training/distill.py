"""Losses that compare the binary model with a teacher: its output, or its features on the way.

    divergence      T^2 KL(teacher || student) of class probabilities   Hinton et al., 2015, https://arxiv.org/abs/1503.02531
    attention       distance of normalized maps of sum_c a_c^2          Zagoruyko, Komodakis, 2017,
                                                                        https://arxiv.org/abs/1612.03928
    features        squared distance over the teacher's variance
    tree_distance   the same over every tensor of any output, without any label

Where features are compared, the names of modules are the same in both: a converted model keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from binarize.errors import UsageError, did_you_mean
from binarize.layers.layer import BinaryLayer
from binarize.modules.modes import evaluating
from binarize.modules.outputs import class_dim, opened

__all__ = ["Taps", "Teacher", "attention", "block_ends", "divergence", "features", "tree_distance"]


# Added to norms and variances.
_EPS = 1e-8

_POOLS = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd)


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over images and positions.

    T^2 keeps the gradients' size when T changes. Shapes: (N, C, ...) both; (N, tokens, C) both.
    """
    _require_same(student, teacher, "the logits")
    dim = class_dim(student)
    near = F.log_softmax(student.float() / temperature, dim)
    wanted = F.log_softmax(teacher.float() / temperature, dim)
    return F.kl_div(near, wanted, reduction="none", log_target=True).sum(dim).mean() * temperature**2


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the maps sum_c a_c^2, each divided by its own length; the mean over images.

    The numbers of channels may differ, the positions may not. Shapes: (N, C, ...), or (N, tokens, C).
    """
    ours, theirs = _energy(student), _energy(teacher)
    _require_same(ours, theirs, "the attention maps")
    return (ours - theirs).square().sum(1).mean()


def _energy(a: Tensor) -> Tensor:
    energy = a.float().square().sum(class_dim(a)).flatten(1)
    return energy / (energy.norm(dim=1, keepdim=True) + _EPS)


def features(student: Tensor, teacher: Tensor) -> Tensor:
    """mean (student - teacher)^2 / var(teacher): 1 for a student that gives the teacher's mean everywhere."""
    _require_same(student, teacher, "the features")
    wanted = teacher.float()
    return (student.float() - wanted).square().mean() / (wanted.var(correction=0) + _EPS)


def tree_distance(student: Any, teacher: Any) -> Tensor:
    """The mean of `features` over all floating tensors of two outputs of one structure: detectors, segmenters, encoders.

    Raises: UsageError where the structures or shapes differ, naming the place.
    """
    ours, theirs = _leaves(student), _leaves(teacher)
    if ours.keys() != theirs.keys():
        other = sorted(ours.keys() ^ theirs.keys())
        raise UsageError(
            f"student and teacher give outputs of different structure: {', '.join(other[:3])} in one of them alone\n"
            "  compare features instead (match=...), or give another teacher"
        )
    if not ours:
        raise UsageError("the output holds no floating tensor to compare with the teacher's")
    distances = []
    for name, value in ours.items():
        _require_same(value, theirs[name], f"the outputs {name}")
        distances.append(features(value, theirs[name]))
    return torch.stack(distances).mean()


def _leaves(output: Any) -> dict[str, Tensor]:
    found, _ = pytree.tree_flatten_with_path(opened(output))
    return {
        pytree.keystr(path) or "output": value
        for path, value in found
        if isinstance(value, Tensor) and value.is_floating_point()
    }


def _require_same(student: Tensor, teacher: Tensor, what: str) -> None:
    if student.shape != teacher.shape:
        raise UsageError(
            f"{what} of student and teacher have the shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
        )


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
    def forward(self, images: Any) -> Any:
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
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
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
