"""A few hundred steps of Adam, on one layer or on all parts together, towards what the float model gives.

    loss = |relu(y) - relu(t)|^2 + 0.1 |y - t|^2        where the float model has a ReLU there, over the variance of t

The idea of adapting a quantized layer to the float layer's output on unlabelled images is that of Nagel et al., AdaRound,
2020, https://arxiv.org/abs/2004.10568; here the latent weights themselves move, with the binarizers' own gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.calibration.closed_form import Fit
from binarize.calibration.progress import Watch
from binarize.calibration.sites import Goal, Site
from binarize.computed_weights import latent_parameters
from binarize.errors import CheckError
from binarize.inputs.arguments import Images
from binarize.inputs.batches import count, images_at
from binarize.layers.layer import BinaryLayer

__all__ = ["Fitting", "Steps", "reconstruct", "reconstruct_jointly", "trained_parameters"]


# Share of the error in front of the ReLU: what is cut off there still says in which direction it lies.
_BEFORE = 0.1


@dataclass(frozen=True)
class Steps:
    """How a layer is reconstructed."""

    count: int
    batch_size: int = 64
    # Of thresholds, levels, scale and shift; that of a latent weight is `weight_lr` times its mean magnitude.
    lr: float = 1e-3
    weight_lr: float = 1e-2


@dataclass(frozen=True)
class Fitting:
    """How a model is fitted to its float model."""

    fit: Fit = "least-squares"
    # Whether the signs of the filters are searched for.
    signs: bool = False
    # Of Adam on each layer.
    steps: Steps | None = None
    seed: int = 0


class _Descent:
    """Adam on latent weights and other parameters, its rates falling linearly to 0, on images drawn anew in each step."""

    def __init__(
        self,
        latent: Iterable[nn.Parameter],
        others: list[nn.Parameter],
        steps: Steps,
        generator: torch.Generator,
    ) -> None:
        groups: list[dict[str, Any]] = []
        for weight in latent:
            magnitude = max(float(weight.detach().abs().mean()), 1e-8)
            groups.append({"params": [weight], "lr": steps.weight_lr * magnitude})
        self.optimizer = torch.optim.Adam([*groups, {"params": others, "lr": steps.lr}])
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.steps, self.generator = steps, generator

    def step(self, number: int, images: int, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """The loss before step `number`; `loss_of` gives it for the indices of some of so many images."""
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * (1 - number / self.steps.count)
        size = min(self.steps.batch_size, images)
        chosen = torch.randint(images, (size,), generator=self.generator)
        with torch.enable_grad():
            self.optimizer.zero_grad()
            loss = loss_of(chosen)
            loss.backward()
        self.optimizer.step()
        return loss.detach()


@contextmanager
def _training(parameters: Iterable[nn.Parameter], trains: Callable[[nn.Parameter], bool]) -> Iterator[None]:
    """Inside, those of the parameters that train have gradients; afterwards none has one, and the flags are as before."""
    flags = {p: p.requires_grad for p in parameters}
    try:
        for p in flags:
            p.requires_grad_(trains(p))
        yield
    finally:
        for p, flag in flags.items():
            p.grad = None
            p.requires_grad_(flag)


def reconstruct(site: Site, goal: Goal, steps: Steps, generator: torch.Generator) -> tuple[float, float]:
    """Train the layer's own parameters and its norm's, the norm on its running statistics: (loss before, after)."""
    layer, x = site.layer, site.x
    assert isinstance(layer, BinaryLayer) and x is not None
    mine = trained_parameters(site)
    scale = 1 / goal.total.var().clamp_min(torch.finfo(goal.total.dtype).tiny)

    def loss_of(chosen: Tensor | slice) -> Tensor:
        _, y = site.value_for(x[chosen])
        y = y if goal.other is None else y + goal.other[chosen]
        t = goal.total[chosen]
        plain = F.mse_loss(y, t)
        loss = F.mse_loss(y.relu(), t.relu()) + _BEFORE * plain if goal.relu else plain
        return loss * scale

    descent = _Descent(latent_parameters(layer), _others(site), steps, generator)
    first = slice(0, 4 * steps.batch_size)
    with _training((*layer.parameters(), *_of(site.norm)), lambda p: any(p is own for own in mine)):
        with torch.no_grad():
            before = float(loss_of(first))
        for step in range(steps.count):
            descent.step(step, len(x), lambda chosen: loss_of(chosen.to(x.device)))
        with torch.no_grad():
            after = float(loss_of(first))
    return before, after


def trained_parameters(site: Site) -> list[nn.Parameter]:
    """What `reconstruct` changes, in a fixed order."""
    assert site.layer is not None
    return [*latent_parameters(site.layer), *_others(site)]


def _of(norm: nn.Module | None) -> list[nn.Parameter]:
    return [] if norm is None else list(norm.parameters(recurse=False))


def _others(site: Site) -> list[nn.Parameter]:
    layer = site.layer
    assert isinstance(layer, BinaryLayer)
    parts = (layer.threshold, layer.input_binarizer, layer.weight_binarizer, layer.scale)
    others = [p for part in parts if part is not None for p in part.parameters()]
    bias = layer._parameters.get("bias")
    return others + _of(site.norm) + ([bias] if bias is not None else [])


def reconstruct_jointly(
    model: nn.Module,
    images: Images,
    distance: Callable[[Images], Tensor],
    steps: Steps,
    generator: torch.Generator,
    watch: Watch,
) -> tuple[float, float]:
    """Train the model, in evaluation mode, with the running statistics as they are, or go on where it was interrupted.

    `distance` is that of the model from the float model on a batch.

    Returns (mean distance of the first tenth of the steps, of the last). Raises: CheckError, where what was kept of an
    interrupted calibration does not fit the model.
    """
    layers = [m for m in model.modules() if isinstance(m, BinaryLayer)]
    latent = {weight: None for layer in layers for weight in latent_parameters(layer)}
    others = [p for p in model.parameters() if p not in latent and p.is_floating_point()]
    descent = _Descent(latent, others, steps, generator)
    total, progress = count(images), watch.progress
    losses = _resumed(model, descent, progress.joint())
    for done in range(len(losses)):
        watch.tick("all layers", done + 1, steps.count)
    with _training(model.parameters(), lambda p: p.is_floating_point()):
        for step in range(len(losses), steps.count):
            loss = descent.step(step, total, lambda chosen: distance(images_at(images, chosen)))
            losses.append(loss.item())
            progress.keep_joint(lambda: _state(model, descent, losses))
            watch.tick("all layers", step + 1, steps.count)
    few = max(1, len(losses) // 10)
    return sum(losses[:few]) / few, sum(losses[-few:]) / few


def _state(model: nn.Module, descent: _Descent, losses: list[float]) -> dict[str, Any]:
    """All that `_resumed` goes on from."""
    return {
        "model": {
            name: value.detach().cpu().clone()
            for name, value in model.state_dict().items()
            if isinstance(value, Tensor)
        },
        "optimizer": copy.deepcopy(descent.optimizer.state_dict()),
        "generator": descent.generator.get_state(),
        "losses": list(losses),
    }


def _resumed(model: nn.Module, descent: _Descent, kept: dict[str, Any] | None) -> list[float]:
    """The losses of the steps that are behind, model and optimizer put where those left them.

    Raises: CheckError, where that does not fit the model.
    """
    if kept is None:
        return []
    try:
        model.load_state_dict(kept["model"], strict=False)
        descent.optimizer.load_state_dict(kept["optimizer"])
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckError(
            f"the kept progress of the calibration does not fit the model: {error}\n"
            "  remove it, and the calibration begins anew"
        ) from error
    descent.generator.set_state(kept["generator"])
    return list(kept["losses"])
