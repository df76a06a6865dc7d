"""A model for inference has no gradient, and whoever asks for one is told so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import binarize
from binarize.errors import UsageError
from binarize.packed.freeze import pack_layers

X = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


class Shortcuts(nn.Module):
    """Two binary layers that a gradient could go around."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv1(x)
        return x + self.conv2(x)


def frozen() -> nn.Module:
    torch.manual_seed(0)
    model = Shortcuts().eval()
    return binarize.freeze(binarize.convert(model, "bireal", keep_first=0, keep_last=0, example_input=X), X)


def fused() -> nn.Module:
    return binarize.fuse(pack_layers(frozen()), X)


@pytest.mark.parametrize(
    "make", [frozen, lambda: pack_layers(frozen()), fused], ids=["frozen", "packed", "fused"]
)
def test_a_model_for_inference_refuses_to_be_differentiated(make: Callable[[], nn.Module]) -> None:
    model = make()
    plain = model(X)
    x = X.clone().requires_grad_()
    y = model(x)
    assert torch.equal(y, plain) and not plain.requires_grad
    with pytest.raises(UsageError, match="has no gradient: it is made for inference"):
        y.sum().backward()
    with pytest.raises(UsageError, match="has no gradient: it is made for inference"):
        torch.func.grad(lambda one: model(one).sum())(X.clone())
    with torch.no_grad():
        assert torch.equal(model(x), plain)
