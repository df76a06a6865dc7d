"""What a model gets right on labelled images, counted batch after batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from binarize.errors import UsageError
from binarize.modules.outputs import class_dim, logits_of
from binarize.schemes.recipe import Recipe
from binarize.training.evaluation.scores import ClassScore, Scores
from binarize.training.loop.objective import IGNORED, check_labels, label_loss

__all__ = ["Tally"]

# More classes than this have no confusion matrix in the result: it would be most of it.
_MOST_CLASSES = 200
_TOP = 5
_CONFUSED = 20


class Tally:
    """Counts for one model."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.seconds = 0.0
        self._metrics: dict[str, Any] | None = None
        self._dense = False

    def run(self, model: nn.Module, images: object, labels: object) -> Tensor | None:
        """The model's class scores, counted where there are labels; None where its output holds none."""
        started = time.perf_counter()
        output = model(images)
        self.seconds += time.perf_counter() - started
        try:
            logits = logits_of(output).float()
        except UsageError:
            return None
        if isinstance(labels, Tensor) and not labels.is_floating_point():
            check_labels(labels, logits, self.names)
            self._count(logits, labels)
        return logits

    def _count(self, logits: Tensor, labels: Tensor) -> None:
        classes = logits.shape[class_dim(logits)]
        self._dense = labels.dim() > 1
        if self._metrics is None:
            self._metrics = _metrics(classes, self._dense, logits.device)
        size = len(labels)
        self._metrics["loss"].update(label_loss(logits, labels, Recipe()), weight=size)
        scores = logits.movedim(class_dim(logits), 1)
        self._metrics["confusion"].update(scores.argmax(1), labels)
        if "top5" in self._metrics:
            self._metrics["top5"].update(scores, labels)

    def scores(self) -> Scores | None:
        """What was counted; None where nothing was."""
        if self._metrics is None:
            return None
        confusion = self._metrics["confusion"].compute().cpu()
        right, of_class, said = confusion.diag(), confusion.sum(1), confusion.sum(0)
        union = of_class + said - right
        names = self.names or tuple(str(i) for i in range(len(confusion)))
        names = (*names, *(str(i) for i in range(len(names), len(confusion))))
        rows = []
        for i in range(len(confusion)):
            iou = float(right[i] / union[i]) if self._dense and union[i] else None
            rows.append(ClassScore(names[i], int(of_class[i]), int(right[i]), iou))
        ious = [row.iou for row in rows if row.iou is not None]
        return Scores(
            loss=float(self._metrics["loss"].compute()),
            top1=float(right.sum() / confusion.sum().clamp_min(1)),
            top5=float(self._metrics["top5"].compute()) if "top5" in self._metrics else None,
            classes=tuple(rows),
            confusion=tuple(tuple(row) for row in confusion.tolist())
            if len(confusion) <= _MOST_CLASSES
            else (),
            confused=_confused(confusion, names),
            mean_iou=sum(ious) / len(ious) if ious else None,
            seconds=self.seconds,
        )


def _metrics(classes: int, dense: bool, device: torch.device) -> dict[str, Any]:
    try:
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
    except ModuleNotFoundError as error:
        raise UsageError("evaluating needs torchmetrics: pip install torchmetrics") from error
    ignored = IGNORED if dense else None
    found: dict[str, Any] = {
        "loss": MeanMetric(),
        "confusion": MulticlassConfusionMatrix(classes, ignore_index=ignored, validate_args=False),
    }
    if classes > _TOP:
        found["top5"] = MulticlassAccuracy(
            classes, top_k=_TOP, average="micro", ignore_index=ignored, validate_args=False
        )
    return {name: metric.to(device) for name, metric in found.items()}


def _confused(confusion: Tensor, names: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
    wrong = confusion - confusion.diag().diag()
    counts, where = wrong.flatten().topk(min(_CONFUSED, wrong.numel()))
    pairs = ((divmod(int(at), len(confusion)), int(n)) for n, at in zip(counts, where) if n > 0)
    return tuple((names[true], names[said], n) for (true, said), n in pairs)
