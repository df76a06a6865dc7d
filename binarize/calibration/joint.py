"""Steps of Adam on all parts of a network together, towards the float model's output, on unlabelled images.

Layer by layer each output is near the float layer's; what is left over adds up along the network. Here the whole network
is the one block that is reconstructed. The images are shown as they are: moved ones were measured to cost a point where
steps are few, since the layers were settled on these.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from binarize.calibration.progress import Progress
from binarize.calibration.reconstruct import Steps
from binarize.errors import CheckError
from binarize.inputs.arguments import Images, call
from binarize.inputs.batches import count, images_at
from binarize.layers.layer import BinaryLayer

__all__ = ["reconstruct_jointly"]


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
    groups = _groups(model, steps)
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


def _groups(model: nn.Module, steps: Steps) -> list[dict[str, Any]]:
    latent = [module.weight for module in model.modules() if isinstance(module, BinaryLayer)]
    ours = set(latent)
    groups: list[dict[str, Any]] = []
    for weight in dict.fromkeys(latent):
        assert isinstance(weight, nn.Parameter)
        magnitude = max(float(weight.detach().abs().mean()), 1e-8)
        groups.append({"params": [weight], "lr": steps.weight_lr * magnitude})
    others = [p for p in model.parameters() if p not in ours and p.is_floating_point()]
    return [*groups, {"params": others, "lr": steps.lr}]
