"""Schemes on a small transformer: ten steps on images that a line separates, saved, loaded and frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional as F

import binarize

SCHEMES = (
    "adabin_paper", "bireal_paper", "bnn_paper", "bnnplus_paper", "bwn", "fda", "ienet_paper", "irnet_paper",
    "reactnet_paper", "xnor_paper",
)  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.sampled(3)
def test_ten_steps_lower_the_loss_and_what_was_learned_is_kept(scheme: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    labels = torch.arange(16) % 2
    ramp = torch.linspace(-1, 1, 32).view(1, 1, 1, 32)
    images = torch.randn(16, 3, 32, 32) * 0.3 + (labels * 2 - 1).view(-1, 1, 1, 1) * ramp
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=2, depth=2).eval()
    model = binarize.convert(net, scheme, example_input=images, calibrate=False).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(10):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    binarize.save(model.eval(), tmp_path / "net")
    with torch.no_grad():
        expected = model(images)
        assert torch.equal(binarize.load(tmp_path / "net", model=net).eval()(images), expected)
        close = (binarize.freeze(model, images)(images) - expected).abs() <= 1e-4
        # Sums that are rounded otherwise may turn a sign that lies on its threshold, in an image or two.
        assert close.all(1).sum() >= 14
