"""The recipe of a training as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from binarize.errors import RuleError, did_you_mean

__all__ = ["CHOICES", "Recipe"]


LrSchedule = Literal["cosine", "linear", "step", "exponential", "constant"]
LabelLoss = Literal["cross_entropy", "square_hinge"]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Without a scheme to say otherwise: Adam, a cosine, no teacher."""

    # Any name that timm.optim knows.
    optimizer: str = "adam"
    lr: float = 3e-3
    momentum: float = 0.9
    # None: what the optimizer has.
    betas: tuple[float, ...] | None = None
    # Of the binary weights alone: "same" as all others, "bop" or "bayesbinn"; its rate, and the threshold of bop.
    binary_optimizer: Literal["same", "bop", "bayesbinn"] = "same"
    binary_lr: float | None = None
    flip_threshold: float = 1e-8
    weight_decay: float = 0.0
    # "weights": float weights of layers, and binary ones where the binarizer standardizes them; "all": every parameter;
    # "latent": the weights of binary layers alone.
    weight_decay_on: Literal["all", "weights", "latent"] = "weights"
    # Rate of a latent weight: that of all others, or times sqrt((inputs + outputs) / 1.5), BinaryConnect's.
    latent_rates: Literal["plain", "glorot"] = "plain"
    # What latent weights start from: the float weights that were converted, or numbers drawn between -1 and 1.
    latent_start: Literal["converted", "uniform"] = "converted"
    schedule: LrSchedule = "cosine"
    # Epochs at which a step schedule falls; none: after half and after three quarters.
    milestones: tuple[int, ...] = ()
    # Factor of each milestone (0.1 unless given), or of each epoch of an exponential fall (1/1000 over all).
    gamma: float | None = None
    # Share of the training in which the rate rises.
    warmup: float = 0.0
    epochs: int = 30
    # Of all processes together.
    batch_size: int = 128
    loss: LabelLoss = "cross_entropy"
    label_smoothing: float = 0.0
    # "source": the float model that was converted; "none"; or what names a model.
    teacher: str = "none"
    # Share of the loss that the teacher has; the labels have the rest.
    teacher_weight: float = 0.5
    temperature: float = 1.0
    # What is compared with the teacher on the way: "none", "attention", "features"; and its factor in the loss.
    match: Literal["none", "attention", "features"] = "none"
    match_weight: float = 1.0
    # A term on latent weights: "none", "manhattan", "euclidean", "bipolar", "uncertainty"; and its factor in the loss.
    regularizer: Literal["none", "manhattan", "euclidean", "bipolar", "oscillation", "uncertainty"] = "none"
    regularizer_weight: float = 0.0
    # Whether the factor is that from the first step, or grows to it from 0.
    regularizer_growth: Literal["none", "linear"] = "none"
    # What is done to training images, as "shift+flip"; "usual": by their size and colours.
    augment: str = "usual"
    # Strength of timm's mixup and cutmix, 0: none.
    mixup: float = 0.0
    cutmix: float = 0.0
    # Gradients are scaled down to this norm; 0: as they are.
    clip_gradients: float = 0.0
    # Batches a step of the optimizer.
    accumulate: int = 1
    # Decay of the moving average of the weights that validation looks at and the model ends with; 0: none.
    ema: float = 0.0
    # With the weights of which epoch it ends: the best by validation (the last where nothing validates), or the last.
    keep_epoch: Literal["best", "last"] = "best"
    # Training images from which the statistics of BatchNorm are taken anew at the end; 0: they stay as they are.
    norm_images: int = 0
    # The data set a published recipe was used on; says nothing to us.
    data: str = ""
    # Changes to the recipe, one stage after another, with "binary": what is binary in it.
    stages: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for key, known in CHOICES.items():
            value = getattr(self, key)
            if value not in known:
                raise RuleError(
                    f"recipe: {key} is {value!r}; expected {' or '.join(known)}{did_you_mean(str(value), known)}"
                )
        for key, low, high in _RANGES:
            value = getattr(self, key)
            if not (isinstance(value, (int, float)) and low <= value <= high and math.isfinite(value)):
                raise RuleError(f"recipe: {key} is {value!r}; expected a number from {low:g} to {high:g}")

        rate = self.binary_lr
        if rate is not None and not (isinstance(rate, (int, float)) and 0 <= rate <= 1e4):
            raise RuleError(f"recipe: binary_lr is {rate!r}; expected a number from 0 to 10000, or none")

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """This recipe with some keys changed; None leaves a key as it is. Raises RuleError for unknown keys."""
        known = [f.name for f in fields(self)]
        for key in changes:
            if key not in known:
                raise RuleError(f"recipe: unknown key {key!r}{did_you_mean(key, known)}")
        given = {key: _plain(key, value) for key, value in changes.items() if value is not None}
        return replace(self, **given)

    def to_json(self) -> dict[str, Any]:
        """Every key as a JSON value."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}


# The words that some keys have to choose from.
CHOICES: Mapping[str, tuple[str, ...]] = {
    key: get_args(hint) for key, hint in get_type_hints(Recipe).items() if get_origin(hint) is Literal
}
# (key, least, most): beyond these nothing sensible can be meant.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("lr", 0, 1e4),
    ("momentum", 0, 1),
    ("weight_decay", 0, 10),
    ("flip_threshold", 0, 1e4),
    ("warmup", 0, 1),
    ("epochs", 1, 1_000_000),
    ("batch_size", 1, 1_000_000),
    ("label_smoothing", 0, 1),
    ("teacher_weight", 0, 1),
    ("temperature", 1e-3, 1e3),
    ("match_weight", 0, 1e6),
    ("regularizer_weight", 0, 1e6),
    ("mixup", 0, 10),
    ("cutmix", 0, 10),
    ("clip_gradients", 0, 1e6),
    ("accumulate", 1, 1_000_000),
    ("ema", 0, 1 - 1e-9),
    ("norm_images", 0, 1e12),
)


def _plain(key: str, value: Any) -> Any:
    if key in ("betas", "milestones"):
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return tuple(dict(stage) for stage in value) if key == "stages" else value
