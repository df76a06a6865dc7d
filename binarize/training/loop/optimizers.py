"""Optimizers of binary models: parameter groups, learning rates, and the clipping of latent weights after each step.

    group               what                                                     weight decay
    binary weights      latent weights of layers that binarize them now          only where they are standardized
    binary parameters   thresholds, levels, scales of binarizers                 none
    weights             weights of float layers                                  yes
    rest                biases, norms, slopes                                    none

A latent weight matters by its sign. Decay pulls it towards the sign's edge and so makes it flip, unless the binarizer divides
by the weights' own deviation: then decay only sets the effective learning rate, and the published recipes have it (IR-Net,
AdaBin, IE-Net), while the others have none (Bi-Real Net, ReActNet).

The optimizer and the rates are timm's; what is ours sits in the groups and in a hook of the optimizer, so that it works
in any training loop.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from binarize.binarizers.adabin import AdaptiveWeight
from binarize.binarizers.bayesbinn import MeanFieldSign
from binarize.binarizers.ienet import StandardSign
from binarize.binarizers.irnet import LibraWeight
from binarize.computed_weights import latent_parameters
from binarize.conversion.conversion import conversion_of
from binarize.errors import UsageError, did_you_mean
from binarize.layers.layer import BinaryLayer
from binarize.schemes.recipe import Recipe
from binarize.training.loop.binary_optimizers import BayesBiNN, Bop, Composite

__all__ = [
    "clip_latent_weights",
    "glorot_rate",
    "latent_ranges",
    "make_optimizer",
    "make_rates",
    "parameter_groups",
    "standardizes",
]

_STANDARDIZING = (AdaptiveWeight, LibraWeight, StandardSign)


def standardizes(binarizer: nn.Module) -> bool:
    """Whether a weight binarizer divides a filter by its own deviation. One's own says so by `standardizes = True`."""
    return bool(getattr(binarizer, "standardizes", isinstance(binarizer, _STANDARDIZING)))


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float = 0.0,
    weight_decay_on: str = "weights",
    latent_rates: str = "plain",
) -> list[dict[str, Any]]:
    """The trainable parameters as groups for any torch optimizer, empty groups left out.

    With `weight_decay_on="all"` every group decays, with "latent" the binary weights alone, whatever their binarizer does.
    With `latent_rates="glorot"` each has a factor `lr_scale` for its rate, which timm's schedulers read.
    """
    standardized: dict[Tensor, bool] = {}
    parameters: set[Tensor] = set()
    for layer in model.modules():
        if not isinstance(layer, BinaryLayer):
            continue
        if not isinstance(layer.weight_binarizer, nn.Identity):
            for weight in latent_parameters(layer):
                standardized[weight] = standardizes(layer.weight_binarizer)
        for part in (layer.threshold, layer.input_binarizer, layer.weight_binarizer, layer.scale):
            parameters.update(part.parameters() if part is not None else ())
    groups: dict[tuple[str, bool, float], list[Tensor]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if parameter in standardized:
            scale = glorot_rate(parameter) if latent_rates == "glorot" else 1.0
            key = ("binary weights", standardized[parameter] or weight_decay_on == "latent", scale)
        elif parameter in parameters:
            key = ("binary parameters", False, 1.0)
        else:
            layers = parameter.dim() > 1 and weight_decay_on != "latent"
            key = ("weights" if parameter.dim() > 1 else "rest", layers, 1.0)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "name": name,
            "params": found,
            "weight_decay": weight_decay if decays or weight_decay_on == "all" else 0.0,
            **({"lr_scale": scale} if scale != 1 else {}),
        }
        for (name, decays, scale), found in groups.items()
    ]


def glorot_rate(weight: Tensor) -> float:
    """The inverse of Glorot's coefficient for the layer of a weight: sqrt((inputs + outputs) / 1.5).

    Inputs and outputs count the positions of a kernel. Source: Courbariaux et al., BinaryConnect, NeurIPS 2015,
    https://arxiv.org/abs/1511.00363, section 2.5, and the authors' code.
    """
    outputs, inputs = weight.shape[:2]
    return math.sqrt((outputs + inputs) * math.prod(weight.shape[2:]) / 1.5)


def make_optimizer(model: nn.Module, recipe: Recipe, images: int = 1) -> Optimizer:
    """timm's optimizer of the recipe on the model's groups; after each step it clips the latent weights that are clipped.

    With a `binary_optimizer` the binary weights have that one, and the two are one `Composite`. `images` is how many there
    are to train on, which BayesBiNN has to know.

    Raises: UsageError for a name that timm does not know, or where BayesBiNN meets weights that are not drawn.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    name = recipe.optimizer.lower()
    known = [str(name) for name in list_optimizers()]
    if name not in known:
        raise UsageError(
            f'no optimizer "{recipe.optimizer}"{did_you_mean(name, known)}; timm.optim.list_optimizers() has all'
        )
    groups = parameter_groups(
        model,
        weight_decay=recipe.weight_decay,
        weight_decay_on=recipe.weight_decay_on,
        latent_rates=recipe.latent_rates,
    )
    if not groups:
        raise UsageError("the model has no parameter to train: all of them are frozen (requires_grad=False)")
    binary = [group for group in groups if group["name"] == "binary weights"]
    if recipe.binary_optimizer != "same":
        groups = [group for group in groups if group not in binary]
    options: dict[str, Any] = {} if recipe.betas is None else {"betas": tuple(recipe.betas)}
    # timm's "sgd" is Nesterov's; the papers mean the plain one, which it calls "momentum".
    own = "momentum" if name == "sgd" else name
    optimizer: Optimizer = create_optimizer_v2(
        groups, opt=own, lr=recipe.lr, momentum=recipe.momentum, filter_bias_and_bn=False, **options
    )
    if recipe.binary_optimizer != "same" and binary:
        optimizer = Composite(optimizer, _of_binary_weights(model, binary, recipe, images))
    ranges = list(latent_ranges(model))
    if ranges:
        optimizer.register_step_post_hook(lambda *_: clip_latent_weights(ranges))
    return optimizer


def _of_binary_weights(
    model: nn.Module, groups: list[dict[str, Any]], recipe: Recipe, images: int
) -> Optimizer:
    """The recipe's `binary_optimizer` on these groups; its rate falls as that of the others does."""
    groups = [{"name": group["name"], "params": group["params"]} for group in groups]
    gamma = 1e-4 if recipe.binary_lr is None else recipe.binary_lr
    rates = {"lr": recipe.lr, "unit": recipe.lr or 1.0}
    if recipe.binary_optimizer == "bop":
        return Bop(groups, gamma, recipe.flip_threshold, **rates)
    layers = [layer for layer in model.modules() if isinstance(layer, BinaryLayer)]
    plain = [type(layer.weight_binarizer).__name__ for layer in layers]
    if other := sorted({name for name in plain if name not in ("Identity", MeanFieldSign.__name__)}):
        raise UsageError(
            f"binary_optimizer bayesbinn: the weights of this model have {', '.join(other)}; it needs the natural gradient "
            "of bayesbinn.MeanFieldSign\n  convert with the scheme bayesbinn"
        )
    return BayesBiNN(groups, gamma, images, momentum=0.0, **rates)


def latent_ranges(model: nn.Module) -> Iterator[tuple[Tensor, float, float]]:
    """(latent weight, low, high) of every layer whose scheme clips its weights and which binarizes them now.

    Shapes: latent weight (O, ...), low and high as they broadcast against it.
    """
    conversion = conversion_of(model)
    for decision in conversion.plan.binarized if conversion is not None else ():
        assert conversion is not None and decision.scheme is not None
        clip = conversion.plan.schemes[decision.scheme].clip
        layer = model.get_submodule(decision.layer.name)
        # A weight that is computed of others has no range of its own to be kept in.
        weight = layer._parameters.get("weight")
        if clip is not None and weight is not None and not isinstance(layer.weight_binarizer, nn.Identity):
            yield weight, *clip


@torch.no_grad()
def clip_latent_weights(ranges: list[tuple[Tensor, float, float]]) -> None:
    """Project latent weights to their ranges, in place: beyond the range no gradient of a clipped sign brings them back."""
    for weight, low, high in ranges:
        weight.clamp_(low, high)


def make_rates(optimizer: Optimizer, recipe: Recipe, steps: int, steps_per_epoch: int) -> Any:
    """timm's scheduler of the recipe, counted in steps: `rates.step_update(number of steps done)` after each step.

    The rate rises linearly during the warm-up; cosine and line then end at 0 after the last step.
    """
    from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler, StepLRScheduler

    rise = min(round(recipe.warmup * steps), steps - 1)
    common: dict[str, Any] = {
        "t_in_epochs": False,
        "warmup_t": rise,
        "warmup_lr_init": recipe.lr / (rise + 1),
        # The fall begins where the rise ends; milestones count from the beginning.
        "warmup_prefix": recipe.schedule in ("cosine", "linear"),
    }
    if recipe.schedule == "cosine":
        with _without_word_of(CosineLRScheduler):
            return CosineLRScheduler(optimizer, t_initial=steps - rise, **common)
    if recipe.schedule == "linear":
        with _without_word_of(PolyLRScheduler):
            return PolyLRScheduler(optimizer, t_initial=steps - rise, power=1.0, **common)
    if recipe.schedule == "step":
        epochs = steps // steps_per_epoch
        milestones = sorted(recipe.milestones or (epochs // 2, epochs * 3 // 4))
        # timm falls one step before the number it is given.
        at = [milestone * steps_per_epoch + 1 for milestone in milestones]
        return MultiStepLRScheduler(optimizer, at, decay_rate=_or(recipe.gamma, 0.1), **common)
    if recipe.schedule == "exponential":
        gamma = _or(recipe.gamma, 1e-3 ** (steps_per_epoch / steps))
        return StepLRScheduler(optimizer, decay_t=steps_per_epoch, decay_rate=gamma, **common)
    return StepLRScheduler(optimizer, decay_t=steps + 1, **common)


@contextmanager
def _without_word_of(scheduler: type) -> Iterator[None]:
    """timm warns that a fall over a single step changes nothing, which a training of one step is meant to do."""
    logger = logging.getLogger(scheduler.__module__)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _or(value: float | None, usual: float) -> float:
    return usual if value is None else value
