"""Each scheme the whole way: converted, trained, saved and loaded, frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nets
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.packed.freeze import frozen_record
from binarize.schemes.recipe import Recipe
from binarize.training.loop.optimizers import make_optimizer
from binarize.training.loop.schedules import Schedules

STEPS = 10
# Trained by stages of their own, or drawn anew in every step.
OWN_WAY = ("naive-bernoulli", "binaryconnect_stochastic", "bayesbinn")
SCHEMES = [name for name in binarize.builtin_rule_sets() if name not in OWN_WAY]
# Float networks of four classes, and the size of their images.
NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ConvBnRelu": (nets.ConvBnRelu, 16),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=4), 32),
    "vgg11": (lambda: torchvision.models.vgg11(num_classes=4), 32),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=4), 32),
    "vit": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=4),
        32,
    ),
}


def toy(size: int) -> tuple[Tensor, Tensor]:
    """Sixteen pictures, each with one bright quarter that tells its class."""
    labels = torch.arange(16) % 4
    images = 0.3 * torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0))
    half = size // 2
    for image, label in zip(images, labels.tolist()):
        top, left = label // 2 * half, label % 2 * half
        image[:, top : top + half, left : left + half] += 1.5
    return images, labels


def train(model: nn.Module, scheme: str, images: Tensor, labels: Tensor, lr: float) -> list[float]:
    """The loss of each step."""
    own = {"bop": Recipe(lr=lr, binary_optimizer="bop", binary_lr=1e-2)}
    optimizer, schedules = make_optimizer(model, own.get(scheme, Recipe(lr=lr))), Schedules(model)
    model.train()
    losses = []
    for step in range(STEPS):
        schedules.set(step / STEPS)
        schedules.look(new_epoch=step == 0)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def check(scheme: str, name: str, folder: Path) -> None:
    build, size = NETS[name]
    images, labels = toy(size)
    torch.manual_seed(0)
    model = binarize.convert(build(), scheme, example_input=images[:4])
    losses = train(model, scheme, images, labels, lr=1e-2 if name == "ConvBnRelu" else 2e-3)
    # Thirty-four binary layers without shortcuts of their own need more than ten steps.
    assert name == "mobilenet_v2" or min(losses[-3:]) < 0.9 * losses[0], losses
    model.eval()
    loaded = binarize.load(binarize.save(model, folder), model=build())
    for (key, a), b in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    with torch.no_grad():
        expected = model(images)
        assert torch.equal(loaded(images), expected)
        frozen = binarize.freeze(model, (images,))
        record = frozen_record(frozen)
        # A threshold that has begun to follow its instance is one number no longer.
        assert record is not None and (not record.kept or scheme not in nets.PACKABLE or scheme == "insta")
        error = (frozen(images) - expected).abs().max() / expected.abs().max()
        assert error < 1e-4


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.sampled(8)
def test_a_scheme_trains_comes_back_and_freezes(scheme: str, tmp_path: Path) -> None:
    check(scheme, "ConvBnRelu", tmp_path / "net")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETS)[1:])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_goes_the_whole_way_on_known_networks(scheme: str, name: str, tmp_path: Path) -> None:
    check(scheme, name, tmp_path / "net")
