"""Where conversion puts the float model's tensors."""

from __future__ import annotations

import nets
import torch
from torch import Tensor, nn

import binarize
from binarize.float_weights import float_names, load_float_state_dict


class SharedBias(nets.Body):
    """A convolution with a bias and no norm, registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv2 = self.conv1

    def run(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


def test_a_moved_bias_is_found_under_every_name_of_its_layer() -> None:
    model = nets.seeded(SharedBias)
    bnn = binarize.convert(model, "bnn", example_input=nets.example(model))
    assert float_names(bnn) == {f"{name}.bias": f"{name}.norm.bias" for name in ("conv1", "conv2")}
    other = nets.seeded(SharedBias, 1)
    load_float_state_dict(bnn, other.state_dict())
    assert torch.equal(bnn.get_parameter("conv1.norm.bias"), other.get_parameter("conv2.bias"))
