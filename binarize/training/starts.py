"""What a training starts from: latent weights as its recipe wants them, and thresholds for a model that saw no image."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, IterableDataset

from binarize.calibration.thresholds import set_starts
from binarize.computed_weights import latent_parameters
from binarize.conversion.checked.liveness import measure_liveness
from binarize.conversion.conversion import conversion_of
from binarize.errors import UsageError
from binarize.inputs.arguments import Images
from binarize.inputs.noise import looks_like_noise
from binarize.layers.layer import BinaryLayer
from binarize.report.live import complaints
from binarize.training.calibrate import record_calibration
from binarize.training.data.image_data import limited
from binarize.training.data.opened import image_batches, on_device
from binarize.training.data.seeds import seeded
from binarize.training.records.run import Run

__all__ = ["draw_latent_weights", "start_thresholds"]

# Training images that the thresholds are set from.
IMAGES = 512
# Of them at a time.
_BATCH = 256


def start_thresholds(run: Run) -> str | None:
    """Set thresholds, input levels and BatchNorm statistics from training images; what was done in words, or None.

    Done where the model was converted without images and a layer reads something close to a constant of these: such a
    layer learns nothing. A model that was calibrated, told not to be, or has learned elsewhere is left as it is.
    """
    conversion = conversion_of(run.model)
    if conversion is None or conversion.report.training is not None:
        return None
    if not conversion.plan.capture.calibration.may_start:
        return None
    # A loader draws a seed for its workers even where it has none.
    with seeded(run.seed):
        batches = _images(run)
    if not batches or looks_like_noise(batches) is not None:
        return None
    dead = [name for name, live in measure_liveness(run.model, batches).items() if complaints(live)]
    if not dead:
        return None
    found = set_starts(run.model, batches)
    record_calibration(run.model, found, batches)
    more = f" and {len(dead) - 1} more" if len(dead) > 1 else ""
    return (
        f"thresholds and BatchNorm statistics are set from {found.images} training images: the model was converted without "
        f"any, and {dead[0]}{more} read little but one sign"
    )


@torch.no_grad()
def draw_latent_weights(run: Run) -> None:
    """Draw the latent weights between -1 and 1, where the recipe starts from such; the same ones for the same seed.

    A model that was trained before keeps what it has learned.
    """
    conversion = conversion_of(run.model)
    if run.recipe.latent_start == "converted" or conversion is None or conversion.report.training is not None:
        return
    with seeded(run.seed):
        for layer in run.model.modules():
            for weight in latent_parameters(layer) if isinstance(layer, BinaryLayer) else ():
                weight.uniform_(-1, 1)


def _images(run: Run) -> list[Images]:
    """Some training images as the model takes them; none where the data is a stream, which may run only once."""
    if isinstance(run.data.dataset, (DataLoader, IterableDataset)):
        return []
    # In folders the first ones are all of one class.
    some = limited(run.data, IMAGES, run.seed)
    try:
        batches, _ = image_batches(some, run.preprocessing, _BATCH)
    except UsageError:
        return []
    return [on_device(run.model, images) for images in batches]
