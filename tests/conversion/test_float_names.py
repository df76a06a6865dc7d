"""Where conversion puts the float model's tensors."""

from __future__ import annotations

import nets
import torch
from torch import Tensor, nn

import binarize
from binarize.conversion.float_names import fill_float_model, float_names, load_float_state_dict


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


def test_a_float_model_without_numbers_gets_those_of_its_conversion() -> None:
    model = nets.seeded(SharedBias)
    bnn = binarize.convert(model, "bnn", example_input=nets.example(model))
    empty = nets.seeded(SharedBias, 1)
    with torch.no_grad():
        for tensor in empty.state_dict().values():
            tensor.fill_(torch.nan if tensor.is_floating_point() else 7)
    fill_float_model(empty, bnn)
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in empty.state_dict().items())
