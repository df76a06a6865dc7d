"""What only scales another tensor, mixes a layer's filters, or moves an input: gates, and the first layers behind them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.analysis.analyse import analyse
from binarize.analysis.layer import Layer
from binarize.capture import capture


def layers_of(model: nn.Module, *inputs: Tensor) -> dict[str, Layer]:
    return {layer.name: layer for layer in analyse(capture(model.eval(), inputs)).layers}


class _Gated(nn.Module):
    """A layer, and a gate in front of it that spreads a number a channel, and one a place, over the whole map."""

    def __init__(self, spread: Any) -> None:
        super().__init__()
        self.spread = spread
        self.stem, self.body, self.head = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8))
        self.channels, self.places = nn.Linear(8, 8), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.body(x * self.spread(self.channels(x.mean((2, 3))), self.places(x), x)))


@pytest.mark.parametrize(
    "spread",
    [
        lambda a, b, x: a[:, :, None, None].expand_as(x).sigmoid() * b.sigmoid(),
        lambda a, b, x: 1 + torch.sigmoid(a[:, :, None, None].expand_as(x) * b.expand_as(x)),
        lambda a, b, x: (a[:, :, None, None].repeat(1, 1, 6, 6) + b.expand(-1, 8, -1, -1)).sigmoid(),
        lambda a, b, x: F.softmax(a, 1).view(-1, 8, 1, 1).broadcast_to(x.shape) * torch.sigmoid(b),
    ],
)
def test_a_gate_is_told_before_its_numbers_are_spread(spread: Any) -> None:
    layers = layers_of(_Gated(spread), torch.randn(2, 3, 6, 6))
    assert [name for name, layer in layers.items() if layer.gate] == ["channels", "places"]


class _Mixture(nn.Module):
    """Filters that are mixed of a bank for each input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
        self.route, self.bank = nn.Linear(8, 5), nn.Parameter(torch.randn(5, 8, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        share = self.route(x.mean((2, 3))).mean(0).softmax(0)
        return self.head(F.conv2d(x, (share[:, None, None, None, None] * self.bank).sum(0)).mean((2, 3)))


def test_a_convolution_with_filters_mixed_for_each_input_has_a_row() -> None:
    layers = layers_of(_Mixture(), torch.randn(2, 3, 6, 6))
    assert list(layers) == ["stem", "route", "bank", "head"]
    row = layers["bank"]
    assert (row.kind, row.kernel, row.in_channels, row.out_channels) == ("conv", (3, 3), 8, 8)
    assert row.obstacle == "its weight is mixed from bank anew for each input"
    assert layers["route"].gate


class _Transformed(nn.Module):
    """Coordinates, turned by a matrix that a network of their own finds, in front of the network."""

    def __init__(self, turned: Any) -> None:
        super().__init__()
        self.turned = turned
        self.look, self.inner, self.turn = nn.Conv1d(3, 16, 1), nn.Linear(16, 16), nn.Linear(16, 9)
        self.first, self.body, self.head = nn.Conv1d(3, 16, 1), nn.Conv1d(16, 16, 1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.turn(self.inner(self.look(x).amax(2)).relu()).view(-1, 3, 3) + torch.eye(3)
        return self.head(self.body(self.first(self.turned(x, matrix)).relu()).amax(2))


@pytest.mark.parametrize(
    "turned",
    [
        lambda x, matrix: torch.bmm(x.transpose(2, 1), matrix).transpose(2, 1),
        lambda x, matrix: matrix @ x,
        lambda x, matrix: x * matrix.mean(2, keepdim=True),
        lambda x, matrix: matrix.matmul(x - x.mean(2, keepdim=True)),
    ],
)
def test_a_layer_that_reads_a_transformed_input_is_a_first_one(turned: Any) -> None:
    layers = layers_of(_Transformed(turned), torch.randn(2, 3, 12))
    first = [name for name, layer in layers.items() if layer.position == "first"]
    assert first == ["look", "first"]
    # What the input is moved by stays exact; what finds it need not.
    assert layers["turn"].gate and not layers["body"].gate


def test_a_layer_that_reads_features_beside_the_input_is_none() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(i, 3, 3, padding=1) for i in (3, 3, 6, 3))

        def forward(self, x: Tensor) -> Tensor:
            y = x + self.b(self.a(x))
            return self.d(self.c(torch.cat([x, y], 1)))

    layers = layers_of(Late(), torch.randn(1, 3, 6, 6))
    assert [name for name, layer in layers.items() if layer.position == "first"] == ["a"]


class _Pooling(nn.Module):
    """CLIP's attention pool: torch's function is given the weights of layers that are never called."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).permute(2, 0, 1)
        biases = torch.cat([self.q.bias, self.k.bias, self.v.bias])
        found, _ = F.multi_head_attention_forward(
            x[:1], x, x, 8, 2, None, biases, None, None, False, 0.0, self.out.weight, self.out.bias,
            use_separate_proj_weight=True, q_proj_weight=self.q.weight, k_proj_weight=self.k.weight,
            v_proj_weight=self.v.weight, need_weights=False,
        )  # fmt: skip
        return found[0]


def test_a_layer_whose_weight_a_function_is_given_is_reached() -> None:
    layers = layers_of(_Pooling(), torch.randn(1, 3, 6, 6))
    said = "the model reads its weight itself (multi_head_attention_forward)"
    assert [layer.obstacle for name, layer in layers.items() if name in "qkv"] == [said] * 3
