"""A few hundred steps of Adam, on one layer or on all parts together, towards what the float model gives.

    loss = |relu(y) - relu(t)|^2 + 0.1 |y - t|^2        where the float model has a ReLU there, over the variance of t

The idea of adapting a quantized layer to the float layer's output on unlabelled images is that of Nagel et al., AdaRound,
2020, https://arxiv.org/abs/2004.10568; here the latent weights themselves move, with the binarizers' own gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.calibration.progress import Progress
from binarize.calibration.sites import Site
from binarize.errors import CheckError
from binarize.inputs.arguments import Images, call
from binarize.inputs.batches import count, images_at
from binarize.layers.layer import BinaryLayer

__all__ = ["Steps", "reconstruct", "reconstruct_jointly", "site_output", "trained_parameters"]


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


def reconstruct(
    site: Site,
    wanted: Tensor,
    other: Tensor | None,
    relu: bool,
    steps: Steps,
    generator: torch.Generator,
    tick: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Train the layer's own parameters and its norm's, the norm on its running statistics: (loss before, after).

    `wanted` is the float model's sum, `other` what the binary model adds to the layer's output.
    """
    layer, x = site.layer, site.x
    assert isinstance(layer, BinaryLayer) and x is not None
    groups = _groups(site, steps)
    mine = trained_parameters(site)
    flags = {p: p.requires_grad for p in (*layer.parameters(), *_of(site.norm))}
    for p in flags:
        p.requires_grad_(any(p is own for own in mine))
    scale = 1 / wanted.var().clamp_min(torch.finfo(wanted.dtype).tiny)

    def loss_of(chosen: Tensor | slice) -> Tensor:
        assert x is not None
        y = site_output(site, x[chosen])
        y = y if other is None else y + other[chosen]
        t = wanted[chosen]
        plain = F.mse_loss(y, t)
        loss = F.mse_loss(y.relu(), t.relu()) + _BEFORE * plain if relu else plain
        return loss * scale

    optimizer = torch.optim.Adam(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    first = slice(0, 4 * steps.batch_size)
    try:
        with torch.no_grad():
            before = float(loss_of(first))
        with torch.enable_grad():
            for step in range(steps.count):
                for group, rate in zip(optimizer.param_groups, rates):
                    group["lr"] = rate * (1 - step / steps.count)
                chosen = torch.randint(len(x), (min(steps.batch_size, len(x)),), generator=generator)
                optimizer.zero_grad()
                loss_of(chosen.to(x.device)).backward()
                optimizer.step()
                tick()
        with torch.no_grad():
            after = float(loss_of(first))
    finally:
        for p, flag in flags.items():
            p.grad = None
            p.requires_grad_(flag)
    return before, after


def trained_parameters(site: Site) -> list[nn.Parameter]:
    """What `reconstruct` changes, in a fixed order."""
    return [*_latent(site), *_others(site)]


def site_output(site: Site, x: Tensor) -> Tensor:
    """The site's value for another input: the output of its norm, or of the layer without one."""
    layer, norm = cast(nn.Module, site.layer), site.norm
    if norm is None:
        return cast(Tensor, layer(x))
    if layer._modules.get("norm") is not norm:
        return cast(Tensor, norm(layer(x)))
    seen: list[Tensor] = []
    handle = norm.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        layer(x)
    finally:
        handle.remove()
    return seen[0]


def _of(norm: nn.Module | None) -> list[nn.Parameter]:
    return [] if norm is None else list(norm.parameters(recurse=False))


def _latent(site: Site) -> list[nn.Parameter]:
    return [cast(nn.Parameter, cast(nn.Module, site.layer).weight)]


def _others(site: Site) -> list[nn.Parameter]:
    layer = cast(Any, site.layer)
    parts = (layer.threshold, layer.input_binarizer, layer.weight_binarizer, layer.scale)
    others = [p for part in parts if part is not None for p in part.parameters()]
    return others + _of(site.norm) + ([layer.bias] if layer.bias is not None else [])


def _groups(site: Site, steps: Steps) -> list[dict[str, Any]]:
    weights = _latent(site)
    magnitude = float(weights[0].detach().abs().mean())
    return [
        {"params": weights, "lr": steps.weight_lr * max(magnitude, 1e-8)},
        {"params": _others(site), "lr": steps.lr},
    ]


def reconstruct_jointly(
    model: nn.Module,
    float_model: nn.Module,
    images: Images,
    distance: Callable[[Any, Any], Tensor],
    steps: Steps,
    generator: torch.Generator,
    tick: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> tuple[float, float]:
    """Train the model, in evaluation mode, with the running statistics as they are, or go on where `progress` stands.

    Returns (mean distance of the first tenth of the steps, of the last).
    """
    groups = _groups_of_model(model, steps)
    optimizer = torch.optim.Adam(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    flags = {p: p.requires_grad for p in model.parameters()}
    total = count(images)
    losses: list[float] = []
    progress = progress or Progress()

    def state() -> dict[str, Any]:
        return {
            "model": {
                name: value.detach().cpu().clone()
                for name, value in model.state_dict().items()
                if isinstance(value, Tensor)
            },
            "optimizer": copy.deepcopy(optimizer.state_dict()),
            "generator": generator.get_state(),
            "losses": list(losses),
        }

    kept = progress.joint()
    if kept is not None:
        try:
            model.load_state_dict(kept["model"], strict=False)
            optimizer.load_state_dict(kept["optimizer"])
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckError(
                f"the kept progress of the calibration does not fit the model: {error}\n"
                "  remove it, and the calibration begins anew"
            ) from error
        generator.set_state(kept["generator"])
        losses += kept["losses"]
        for _ in losses:
            tick()
    try:
        for p in flags:
            p.requires_grad_(p.is_floating_point())
        for step in range(len(losses), steps.count):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * (1 - step / steps.count)
            chosen = torch.randint(total, (min(steps.batch_size, total),), generator=generator)
            batch = images_at(images, chosen)
            with torch.no_grad():
                wanted = call(float_model, batch)
            with torch.enable_grad():
                optimizer.zero_grad()
                loss = distance(call(model, batch), wanted)
                loss.backward()
            optimizer.step()
            losses.append(loss.item())
            progress.keep_joint(state)
            tick()
    finally:
        for p, flag in flags.items():
            p.grad = None
            p.requires_grad_(flag)
    few = max(1, len(losses) // 10)
    return sum(losses[:few]) / few, sum(losses[-few:]) / few


def _groups_of_model(model: nn.Module, steps: Steps) -> list[dict[str, Any]]:
    latent = [module.weight for module in model.modules() if isinstance(module, BinaryLayer)]
    ours = set(latent)
    groups: list[dict[str, Any]] = []
    for weight in dict.fromkeys(latent):
        assert isinstance(weight, nn.Parameter)
        magnitude = max(float(weight.detach().abs().mean()), 1e-8)
        groups.append({"params": [weight], "lr": steps.weight_lr * magnitude})
    others = [p for p in model.parameters() if p not in ours and p.is_floating_point()]
    return [*groups, {"params": others, "lr": steps.lr}]
