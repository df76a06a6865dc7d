"""Conversion and one training step where there is an accelerator; skipped where there is none."""

from __future__ import annotations

import nets
import pytest
import torch

import binarize

DEVICES = [
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
    pytest.param(
        "mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scheme", ["adabin", "bireal", "reactnet"])
def test_a_model_converts_and_trains_where_it_lies(device: str, scheme: str) -> None:
    model = nets.seeded(nets.ALL["BasicBlocks"]).to(device)
    images = nets.example(model, 8).to(device)
    bnn = binarize.convert(model, scheme, shortcuts="every", example_input=images).train()
    bnn(images).square().mean().backward()
    assert {p.device.type for p in bnn.parameters()} == {device}
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in bnn.parameters())
