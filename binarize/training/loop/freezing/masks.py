"""Masks of a model's binary layers while a stage freezes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from binarize.bernoulli.layers import BernoulliLayer
from binarize.binarizers.sign import WeightBinarizer
from binarize.layers.layer import BinaryLayer
from binarize.training.loop.freezing.shares import Freezing

__all__ = ["Freezer"]


class _MaskedWeight(WeightBinarizer):
    """The weight itself, and its two values where it is frozen."""

    per_filter = False
    frozen: Tensor

    def __init__(self, binarizer: Any, weight: Tensor, gradient: str) -> None:
        super().__init__()
        self.binarizer, self.gradient, self.axis = binarizer, gradient, getattr(binarizer, "axis", 0)
        self.register_buffer("frozen", torch.zeros_like(weight, dtype=torch.bool))

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        hard = self.binarizer(w)
        return torch.where(self.frozen, hard if self.gradient == "ste" else hard.detach(), w), None


class _MaskedInput(nn.Module):
    """The clamp of an input, and its two values in channels that are frozen."""

    frozen: Tensor

    def __init__(
        self, binarizer: nn.Module, soft: nn.Module, channels: int, dim: int, like: Tensor, freezing: Freezing
    ):
        super().__init__()
        self.binarizer, self.soft, self.channel_dim, self.freezing = binarizer, soft, dim, freezing
        self.register_buffer("frozen", torch.zeros(channels, dtype=torch.bool, device=like.device))

    def forward(self, x: Tensor) -> Tensor:
        soft = self.soft(x)
        hard = self.binarizer(x)
        if self.freezing.activations == "hard":
            return soft + (hard - soft).detach()
        shape = [1] * x.dim()
        shape[self.channel_dim] = -1
        if self.freezing.frozen_gradient == "none":
            hard = hard.detach()
        return torch.where(self.frozen.view(shape), hard, soft)


class Freezer:
    """The masks of a model's binary layers, in execution order, while a stage lasts."""

    def __init__(self, layers: Sequence[BinaryLayer], freezing: Freezing, seed: int, epochs: int) -> None:
        self.layers, self.freezing, self.seed, self.epochs = list(layers), freezing, seed, epochs
        # Steps that are taken.
        self.step = 0
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []

    def put_in(self, relaxed: Any) -> None:
        """Give each layer that is no random one masks; `relaxed` makes the clamp of an input binarizer."""
        if self.freezing.freeze == "full":
            return
        for layer in self.layers:
            if isinstance(layer, BernoulliLayer):
                layer.probabilities.frozen_gradient = self.freezing.frozen_gradient
                layer.hard_activations = self.freezing.activations == "hard"
                continue
            weight = layer.real_weight().detach()
            layer.weight_binarizer = _MaskedWeight(
                layer.weight_binarizer, weight, self.freezing.frozen_gradient
            )
            if layer.input_binarizer is not None:
                channels = type(layer).channels_of(layer)[0]
                dim = -1 if layer.kind == "linear" else 1
                soft = relaxed(layer.input_binarizer)
                layer.input_binarizer = _MaskedInput(
                    layer.input_binarizer, soft, channels, dim, weight, self.freezing
                )

    def take_out(self) -> None:
        """Leave random layers as they are without a stage."""
        for layer in self.layers:
            if isinstance(layer, BernoulliLayer):
                layer.probabilities.frozen_gradient, layer.hard_activations = "none", False

    @torch.no_grad()
    def begin_epoch(self, epoch: int) -> None:
        """Freeze what is due by this epoch, from 0. Twice does nothing more."""
        steps = self.freezing.steps(len(self.layers))
        due = min(steps, math.ceil((epoch + 1) * steps / self.epochs - 1e-9))
        while self.step < due:
            self.step += 1
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.step) % (1 << 63))
            shares = self.freezing.shares(self.step, len(self.layers))
            for layer, share in zip(self.layers, shares):
                self._freeze(layer, share, generator)

    def resume(self, step: int) -> None:
        """Go on behind that step: masks are those of the checkpoint, and what follows from them is set again."""
        self.step = step
        shares = self.freezing.shares(step, len(self.layers)) if self.freezing.freeze != "full" else []
        for layer, share in zip(self.layers, shares):
            if isinstance(layer, BernoulliLayer):
                layer.hard_activations = self.freezing.activations == "hard" or share >= 1

    def _freeze(self, layer: BinaryLayer, share: float, generator: torch.Generator) -> None:
        binarizer: Any = layer.weight_binarizer
        weight = layer.real_weight().detach()
        self._grow(binarizer.frozen, weight.abs(), share, generator)
        if isinstance(layer, BernoulliLayer):
            layer.hard_activations = self.freezing.activations == "hard" or share >= 1
        elif isinstance(layer.input_binarizer, _MaskedInput):
            mask = layer.input_binarizer.frozen
            # No channel is more confident than another.
            self._grow(mask, torch.zeros(mask.shape), share, generator)

    def _grow(self, mask: Tensor, size: Tensor, share: float, generator: torch.Generator) -> None:
        flat = mask.view(-1)
        drawn = torch.rand(flat.shape, generator=generator).to(flat.device)
        random = self.freezing.select == "random" or not bool(size.any())
        order = drawn if random else size.reshape(-1)
        wanted, thawed = round(share * flat.numel()), torch.zeros_like(flat)
        if self.freezing.refresh and share < 1 and bool(flat.any()):
            count = round(self.freezing.refresh * int(flat.sum()))
            thawed[torch.where(flat, drawn, -1.0).topk(count).indices] = True
            flat &= ~thawed
        more = min(wanted - int(flat.sum()), int((~flat & ~thawed).sum()))
        if more > 0:
            flat[torch.where(flat | thawed, -1.0, order.double()).topk(more).indices] = True

    def share(self) -> float:
        """The share of all weights that is frozen."""
        masks = [
            mask
            for layer in self.layers
            if (mask := getattr(layer.weight_binarizer, "frozen", None)) is not None
        ]
        total = sum(layer.real_weight().numel() for layer in self.layers)
        return sum(int(mask.sum()) for mask in masks) / max(total, 1)

    def hold(self, optimizer: Optimizer) -> None:
        """Let no step of the optimizer move what is frozen, by momentum or decay; unless it is still trained."""
        if self.freezing.freeze == "full" or self.freezing.frozen_gradient == "ste":
            return
        optimizer.register_step_pre_hook(lambda *_: self._before_step())
        optimizer.register_step_post_hook(lambda *_: self._after_step())

    @torch.no_grad()
    def _before_step(self) -> None:
        self._held = [
            (layer.weight, mask, layer.weight.detach().clone())
            for layer in self.layers
            if (mask := getattr(layer.weight_binarizer, "frozen", None)) is not None and bool(mask.any())
        ]

    @torch.no_grad()
    def _after_step(self) -> None:
        for weight, mask, before in self._held:
            weight.copy_(torch.where(mask, before, weight))
        self._held = []
