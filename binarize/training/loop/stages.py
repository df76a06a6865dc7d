"""Stages: training with only a part of the model binary, more of it in each.

What a stage leaves float has a stand-in while it lasts: a weight is itself, and a sign becomes the clamp between its two
values, with the same threshold and levels, so that what one stage learns about them is of use in the next.

Sources: Liu et al., ReActNet, ECCV 2020, https://arxiv.org/abs/2003.03488, and Martinez et al., Real-to-Binary, ICLR 2020,
https://arxiv.org/abs/2003.11535 (inputs first, then weights); Liu et al., Bi-Real Net, 2018, https://arxiv.org/abs/1808.00278
(clamps before signs).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from binarize.binarizers.adabin import AdaptiveInput
from binarize.binarizers.dorefa import ZeroOne
from binarize.binarizers.ienet import MultiSign
from binarize.binarizers.reactnet import RSign
from binarize.binarizers.sign import Pure
from binarize.binarizers.statistics import per_channel
from binarize.conversion.conversion import conversion_of
from binarize.errors import RuleError, did_you_mean
from binarize.layers.layer import BinaryLayer
from binarize.schemes.recipe import Recipe
from binarize.training.loop.freezing.masks import Freezer
from binarize.training.loop.freezing.shares import FREEZING_KEYS, Freezing, freezing_of

__all__ = ["Relaxed", "Stage", "frozen_by", "partly_binary", "stages_of", "two_stages"]

_SIDES = ("input", "weight")


@dataclass(frozen=True)
class Stage:
    """A part of a training with its own recipe, optimizer and schedules."""

    # From 1.
    number: int
    of: int
    # Without stages of its own.
    recipe: Recipe
    # What is binary: "input", "weight", both or nothing.
    binary: frozenset[str] = frozenset(_SIDES)
    # Only this share of the binary layers, the first in execution order; the others are float meanwhile.
    layers: float = 1.0
    # How it becomes binary while it lasts; None: it does not change.
    freezing: Freezing | None = None

    @property
    def whole(self) -> bool:
        """Whether everything that is to be binary is."""
        return self.binary == frozenset(_SIDES) and self.layers == 1.0

    @property
    def title(self) -> str:
        """What is binary, in words: "inputs binary, first 50 % of the layers"."""
        if self.freezing is not None:
            return f"{self.freezing.freeze} freezing, {self.freezing.order}"
        sides = " and ".join(f"{side}s" for side in _SIDES if side in self.binary)
        share = "" if self.layers == 1.0 else f", first {100 * self.layers:g} % of the layers"
        return f"{sides} binary{share}" if sides else "nothing binary yet"


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a recipe, one where it names none.

    Raises: RuleError where one cannot be meant, or the last leaves something float.
    """
    if not recipe.stages:
        return (Stage(1, 1, recipe),)
    plain = replace(recipe, stages=())
    stages = tuple(
        _stage(plain, data, number, len(recipe.stages)) for number, data in enumerate(recipe.stages, 1)
    )
    if not stages[-1].whole:
        raise RuleError(
            f"recipe: the last of {len(stages)} stages has {stages[-1].title}; "
            "it needs binary: [input, weight] in all layers"
        )
    return stages


def _stage(recipe: Recipe, data: Mapping[str, Any], number: int, count: int) -> Stage:
    changes = dict(data)
    sides = changes.pop("binary", _SIDES)
    sides = (sides,) if isinstance(sides, str) else tuple(sides)
    for side in sides:
        if side not in _SIDES:
            raise RuleError(
                f"recipe: stages[{number - 1}]: binary is {side!r}; expected input, weight or both"
                f"{did_you_mean(str(side), _SIDES)}"
            )
    share = changes.pop("layers", 1.0)
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise RuleError(
            f"recipe: stages[{number - 1}]: layers is {share!r}; expected a share above 0, up to 1"
        )
    where = f"recipe: stages[{number - 1}]"
    freezing = freezing_of({key: changes.pop(key) for key in FREEZING_KEYS if key in changes}, where)
    own = recipe.changed(changes)
    if freezing is not None and freezing.freeze != "full":
        if own.ema:
            raise RuleError(
                f"{where}: a moving average of weights (ema) mixes those before and after freezing"
            )
        # Earlier epochs are less binary.
        own = own.changed({"keep_epoch": "last"})
    return Stage(number, count, own, frozenset(sides), float(share), freezing)


def frozen_by(recipe: Recipe, kind: str) -> Recipe:
    """The recipe with one stage that freezes in this way, by its defaults."""
    return replace(recipe, stages=({"freeze": kind},))


def two_stages(recipe: Recipe) -> Recipe:
    """The recipe with its epochs halved between binary inputs with float weights, and everything binary."""
    first = max(1, recipe.epochs // 2)
    rest = max(1, recipe.epochs - first)
    stages = ({"binary": ["input"], "epochs": first}, {"binary": list(_SIDES), "epochs": rest})
    return replace(recipe, stages=stages)


class Relaxed(Pure):
    """The clamp that stands in for an input binarizer: a line between its two values, flat beyond.

    Shapes: as the binarizer's. It holds the binarizer, whose threshold and levels it uses and trains. A binarizer's own
    `relaxed(x)` comes first, and with it what it multiplies the output by.
    """

    def __init__(self, binarizer: nn.Module) -> None:
        super().__init__()
        self.binarizer = binarizer
        if hasattr(binarizer, "relaxed") and hasattr(binarizer, "scale_map"):
            self.scale_map = binarizer.scale_map

    def forward(self, x: Tensor) -> Tensor:
        b: Any = self.binarizer
        if hasattr(b, "relaxed"):
            return cast(Tensor, b.relaxed(x))
        if isinstance(b, AdaptiveInput):
            alpha, beta = b.scale().to(x.dtype), b.beta.to(x.dtype)
            return ((x - beta) / alpha).clamp(-1, 1) * alpha + beta
        if isinstance(b, ZeroOne):
            return x.clamp(0, 1)
        if isinstance(b, RSign):
            return (x - per_channel(b.tau, x, b.channel_dim)).clamp(-1, 1)
        if isinstance(b, MultiSign):
            steps = [
                s.to(x.dtype) * (x + per_channel(t, x, b.channel_dim)).clamp(-1, 1)
                for s, t in zip(b.factors(), b.b)
            ]
            return torch.stack(steps).sum(0)
        return x.clamp(-1, 1)


@contextmanager
def partly_binary(model: nn.Module, stage: Stage, seed: int = 0) -> Iterator[Freezer | None]:
    """Inside, only what the stage says is binary; afterwards the model is whole again, its modules the same objects.

    Yields what freezes, where the stage does.
    """
    layers = _layers(model)
    first = math.ceil(stage.layers * len(layers))
    originals = [(layer, layer.weight_binarizer, layer.input_binarizer) for layer in layers]
    freezer: Freezer | None = None
    try:
        for position, layer in enumerate(layers):
            sides = stage.binary if position < first else frozenset()
            if "weight" not in sides:
                layer.weight_binarizer = nn.Identity()
            if "input" not in sides and layer.input_binarizer is not None:
                layer.input_binarizer = Relaxed(layer.input_binarizer)
        if stage.freezing is not None:
            freezer = Freezer(layers, stage.freezing, seed * 64 + stage.number, stage.recipe.epochs)
            freezer.put_in(Relaxed)
        yield freezer
    finally:
        if freezer is not None:
            freezer.take_out()
        for layer, weight_binarizer, input_binarizer in originals:
            layer.weight_binarizer, layer.input_binarizer = weight_binarizer, input_binarizer


def _layers(model: nn.Module) -> list[BinaryLayer]:
    """The binary layers in execution order, where the model knows it."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, BinaryLayer)}
    conversion = conversion_of(model)
    order = [decision.layer.name for decision in conversion.plan.binarized] if conversion is not None else []
    names = [name for name in order if name in found]
    return [found[name] for name in (*names, *(name for name in found if name not in names))]
