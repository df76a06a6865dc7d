"""The images of a trial: the same for every trial of a study that names the same data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from binarize.errors import UsageError
from binarize.studies.grid.trial import Resources, Trial
from binarize.training.data import (
    Batch,
    ImageData,
    Preprocessing,
    evaluation_loader,
    open_data,
    preprocessing_of,
)
from binarize.training.data.image_data import divided, limited
from binarize.training.data.opened import opening

__all__ = ["TrialImages", "open_images"]

# Training images on which a conversion sets its thresholds.
_EXAMPLES = 512


@dataclass(frozen=True)
class TrialImages:
    """The images of a trial: to train on, to choose by, to test on once, and how they are shown."""

    train: ImageData
    held: ImageData | None
    test: ImageData | None
    preprocessing: Preprocessing
    # The first of those to train on, as the network takes them.
    example: Tensor


def open_images(trial: Trial, module: nn.Module, resources: Resources) -> TrialImages:
    """The images that the trial's settings name, as its float network takes them. Raises: UsageError, SourceError."""
    preprocessing = preprocessing_of(
        module, size=trial.get("input_shape"), mean=trial.get("mean"), std=trial.get("std")
    )
    name = trial.place("data")
    options = opening(module, name, preprocessing, resources.root, resources.download)
    train = open_data(name, **options)
    if train is None:
        raise UsageError(f"data {name}: holds no training images")
    held = None
    if share := trial.get("validation", 0.1):
        # The same for every seed and every number of images, so that nobody trains on what another is chosen by.
        train, held = divided(train, share)
    train = limited(train, trial.get("images"))
    test = open_data(name, "validation", **options) if trial.get("test", True) else None
    batch = next(iter(evaluation_loader(train, preprocessing, batch_size=_EXAMPLES)))
    example = batch.images if isinstance(batch, Batch) else batch[0]
    if not isinstance(example, Tensor):
        raise UsageError(f"data {name}: none of its first {_EXAMPLES} images can be read")
    return TrialImages(train, held, test, preprocessing, example)
