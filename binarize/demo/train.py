"""The demonstration: train a converted network on the bundled digits with a plain PyTorch loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from binarize.demo.digits import Digits

__all__ = ["EPOCHS", "accuracy", "train"]

EPOCHS, BATCH, RATE = 15, 64, 3e-3


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is the label's, in evaluation mode.

    Shapes: images (N, C, H, W), labels (N,).
    """
    import torch

    with torch.no_grad():
        return (model.eval()(images).argmax(1) == labels).float().mean().item()


def train(
    model: nn.Module, teacher: nn.Module, digits: Digits, *, epochs: int = EPOCHS
) -> Iterator[tuple[int, float]]:
    """Train in place; yields the epoch and the accuracy on the held-out digits after it.

    Adam from 3e-3 to 0 along a cosine, batches of 64. The loss is the mean of the cross entropy and of the
    divergence from the teacher's probabilities. Any other loop would do: it is an ordinary module.
    """
    import torch
    from torch.nn import functional as F

    images, labels = digits.train_images, digits.train_labels
    with torch.no_grad():
        wanted = F.log_softmax(teacher.eval()(images), 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(labels) // BATCH))
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in torch.randperm(len(labels)).split(BATCH):
            logits = model(images[batch])
            near = F.kl_div(F.log_softmax(logits, 1), wanted[batch], log_target=True, reduction="batchmean")
            loss = (F.cross_entropy(logits, labels[batch]) + near) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        yield epoch, accuracy(model, digits.held_out_images, digits.held_out_labels)
