"""Where images are given, what was measured on them decides which binary inputs need a threshold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.conversion.conversion import conversion_of

FRONTS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalize": lambda x: F.normalize(x, dim=1),
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "where": lambda x: torch.where(x > 1, x, torch.zeros_like(x)),
    "square": lambda x: x * x,
    "weighted sum": lambda x: 0.3 * x + 0.7 * x.flip(3),
}


class _Behind(nets.Body):
    """A ReLU, an operation on what it yields, and a convolution that is binarized."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operation, self.conv = operation, nets.conv(16, 16)

    def run(self, x: Tensor) -> Tensor:
        return self.conv(self.operation(x.relu()))


class _Rectified(nn.Conv2d):
    """A convolution that applies a ReLU itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def _is_alive(binary: nn.Module, x: Tensor) -> bool:
    seen: list[Tensor] = []
    layer = binary.get_submodule("conv")
    layer.register_forward_pre_hook(lambda module, args: seen.append(module.binarized_input(args[0])))
    with torch.no_grad():
        binary.eval()(x)
    return len(seen[0].unique()) == 2


@pytest.mark.parametrize("name", FRONTS)
def test_no_layer_reads_a_constant_where_images_are_given(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = _Behind(FRONTS[name]).eval(), nets.pictures(4)
    binary = binarize.convert(model, "bireal", example_input=x)
    assert not [warning for warning in binary.report.warnings if "change sign" in warning]
    assert _is_alive(binary, x)
    loaded = binarize.load(binarize.save(binary, tmp_path / "net"), model=model)
    assert torch.equal(loaded(x), binary(x))
    without = binarize.convert(model, "bireal", input_shape=(1, 3, 16, 16))
    conversion = conversion_of(without)
    assert conversion is not None
    # A sum of values that a ReLU yields lets the ReLU itself give way.
    assert conversion.plan["conv"].threshold != "none" or name == "weighted sum"


def test_a_relu_inside_a_layer_is_seen() -> None:
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nets.conv(3, 16), _Rectified(16, 16, 3, padding=1), nets.conv(), nets.conv()),
        nets.pictures(4),
    )
    for given in ({"example_input": x}, {"input_shape": (1, 3, 16, 16)}):
        conversion = conversion_of(binarize.convert(model, "bireal", **given))
        assert conversion is not None and conversion.plan["2"].threshold != "none"


def test_a_model_converted_in_place_gets_its_thresholds() -> None:
    torch.manual_seed(0)
    model, x = _Behind(FRONTS["where"]).eval(), nets.pictures(4)
    assert _is_alive(binarize.convert(model, "bireal", example_input=x, inplace=True), x)
