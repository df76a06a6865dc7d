"""Sites: what of the float model a binary layer is fitted to."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

import binarize
from binarize.calibration.follow import record_targets


class Residual(nn.Module):
    """Two operands of one sum, in either order, each a convolution with a norm."""

    def __init__(self, branch_first: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 8, 1, bias=False)
        self.down_norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)
        self.branch_first = branch_first

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.norm(self.conv(x)), self.down_norm(self.down(x))

    def forward(self, x: Tensor) -> Tensor:
        branch, down = self.parts(x)
        total = branch + down if self.branch_first else down + branch
        out: Tensor = self.head(total.relu().mean((2, 3)))
        return out


@pytest.mark.parametrize("branch_first", [True, False])
def test_a_sum_is_the_target_of_both_its_operands(branch_first: bool) -> None:
    model = nets.seeded(lambda: Residual(branch_first)).eval()
    x = nets.pictures(4)
    with torch.no_grad():
        targets, _ = record_targets(model, lambda: model(x))
        branch, down = model.parts(x)
    for name, own in (("conv", branch), ("down", down)):
        torch.testing.assert_close(targets[name].out, own)
        total = targets[name].total
        assert total is not None
        torch.testing.assert_close(total, branch + down)


@pytest.mark.parametrize("branch_first", [True, False])
@pytest.mark.parametrize("scheme", ["bireal", "binaryconnect"])
def test_a_branch_is_fitted_beside_a_float_projection(scheme: str, branch_first: bool) -> None:
    """The float operand is exact, so that no channel of the sum is farther from the float one than its mean would be."""
    model = nets.seeded(lambda: Residual(branch_first)).eval()
    x = nets.pictures(32)
    bnn = binarize.convert(model, scheme, keep=["down"], example_input=x)
    binarize.calibrate(bnn, x, model)
    bnn.eval()
    with torch.no_grad():
        wanted, down = model.parts(x)
        binary = sum(sited(bnn, x)) - down
    error = (binary - wanted).square().mean((0, 2, 3))
    assert (error <= wanted.var((0, 2, 3), correction=0) * 1.001).all()
    torch.testing.assert_close(binary.mean((0, 2, 3)), wanted.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)


def sited(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The outputs of both norms of a converted model."""
    found: list[Tensor] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, args, out: found.append(out))
        for name in ("norm", "down_norm")
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return found
