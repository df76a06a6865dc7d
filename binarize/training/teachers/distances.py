"""Losses that compare the binary model with a teacher: its output, or its features on the way.

    divergence      T^2 KL(teacher || student) of class probabilities   Hinton et al., 2015, https://arxiv.org/abs/1503.02531
    attention       distance of normalized maps of sum_c a_c^2          Zagoruyko, Komodakis, 2017,
                                                                        https://arxiv.org/abs/1612.03928
    features        squared distance over the teacher's variance
    tree_distance   the same over every tensor of any output, without any label

Where features are compared, the names of modules are the same in both: a converted model keeps them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from binarize.errors import UsageError
from binarize.modules.outputs import class_dim, opened

__all__ = ["attention", "divergence", "features", "tree_distance"]


# Added to norms and variances.
_EPS = 1e-8


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
    """mean (student - teacher)^2 / var(teacher): 1 for a student that gives the teacher's mean everywhere.

    Shapes: any, the same for both -> ().
    """
    _require_same(student, teacher, "the features")
    wanted = teacher.float()
    return (student.float() - wanted).square().mean() / (wanted.var(correction=0) + _EPS)


def tree_distance(student: object, teacher: object) -> Tensor:
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


def _leaves(output: object) -> dict[str, Tensor]:
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
