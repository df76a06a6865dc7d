"""Whether two architectures with the same tensors compute the same: run side by side with the same weights.

resnet50, resnetblur50 and resnetaa50 hold the same tensors, since blurring has no weights, and compute different things;
torchvision's and timm's resnet50 compute the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.inputs.shapes import example_input

__all__ = ["compute_the_same", "randomize"]

# Both sum the same products, in another order at most. Another epsilon of a norm shows in the third digit here.
TOLERANCE = 1e-5
# Of what differs between two images: random weights may give an output that hardly depends on the image at all, and
# attention in windows of any size then looks the same.
SHARE = 1e-3
BATCH = 2


def compute_the_same(one: nn.Module, other: nn.Module, shape: tuple[int, ...], inputs: int = 1) -> bool:
    """Whether both give the same in evaluation mode, in training mode, and keep the same statistics.

    `one` is given random weights; `other` takes them over.
    """
    randomize(one)
    other.load_state_dict(one.state_dict())
    images = example_input((BATCH, *shape[1:]), one, inputs=inputs)
    for training in (False, True):
        answers = []
        for module in (one, other):
            torch.manual_seed(0)
            with torch.no_grad():
                answers.append(module.train(training)(*images))
        if not _close(*answers) or not _close_beside_images(*answers):
            return False
    return _close(one.state_dict(), other.state_dict())


def randomize(module: nn.Module, seed: int = 0) -> None:
    """Weights that hide nothing: no branch starts at zero, no variance at one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() < 2:
                parameter.uniform_(0.3, 0.9)
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.02, 0.5)
            elif name.endswith("running_mean"):
                buffer.normal_(std=0.1)


def _close(mine: object, other: object) -> bool:
    ours, theirs = pytree.tree_leaves(mine), pytree.tree_leaves(other)
    return len(ours) == len(theirs) and all(_near(a, b) for a, b in zip(ours, theirs))


def _close_beside_images(mine: object, other: object) -> bool:
    """Whether the answers differ by far less than those to two images do."""
    for ours, theirs in zip(pytree.tree_leaves(mine), pytree.tree_leaves(other)):
        if isinstance(ours, Tensor) and ours.is_floating_point() and len(ours) == BATCH:
            spread = (ours[0].double() - ours[1].double()).abs().max()
            if (ours.double() - theirs.double()).abs().max() > SHARE * spread:
                return False
    return True


def _near(a: object, b: object) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b)
    if a.shape != b.shape or not a.isfinite().all():
        return False
    return (
        bool((a.double() - b.double()).abs().max() <= TOLERANCE * a.double().abs().max())
        if a.numel()
        else True
    )
