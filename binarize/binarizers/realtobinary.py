"""Real-to-Binary: the output of a binary product, times a gate that is computed of the real-valued input.

Martinez, Yang, Bulat, Tzimiropoulos, Training Binary Neural Networks with Real-to-Binary Convolutions, ICLR 2020,
https://arxiv.org/abs/2003.11535

Its attention matching is `match: attention` of a recipe, its stages are those of `training_paper`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.binarizers.bnn import SteSign
from binarize.binarizers.sign import Estimator, Levels, Pure

__all__ = ["GatedSign"]


class GatedSign(Pure):
    """sign(x), and a gate s(W2 max(W1 mean(x) + b1, 0) + b2) in (0, 1) for each output channel of each instance.

    The mean is over positions; W1 makes channels / reduction numbers of it. The layer multiplies its output by the gate: it
    is a float path beside the bits: a layer with it is not packed.
    Shapes: (N, C, ...) -> same; channel_dim=-1 for (N, ..., C).
    Source: the paper's data-driven channel re-scaling; reduction 8 as there.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        channel_dim: int = 1,
        reduction: int = 8,
        estimator: Estimator | None = None,
    ) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.estimator = SteSign() if estimator is None else estimator
        inner, outer = max(channels // reduction, 1), out_channels or channels
        self.down, self.down_bias = (
            nn.Parameter(torch.empty(inner, channels)),
            nn.Parameter(torch.zeros(inner)),
        )
        self.up, self.up_bias = nn.Parameter(torch.empty(outer, inner)), nn.Parameter(torch.zeros(outer))
        for matrix in (self.down, self.up):
            nn.init.xavier_uniform_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.estimator(x)
        return out

    def relaxed(self, x: Tensor) -> Tensor:
        """The line that stands in for it while it is not binary yet; the gate stays."""
        return x.clamp(-1, 1)

    def input_levels(self) -> Levels | None:
        return self.estimator.input_levels()

    def scale_map(self, x: Tensor, layer: nn.Module) -> Tensor:
        """The gate for the layer's real-valued input: (N, C, ...) -> (N, O, 1, ...), or (N, ..., C) -> (N, ..., O)."""
        channels = self.channel_dim % x.dim()
        positions = [i for i in range(1, x.dim()) if i != channels]
        means = x.mean(positions, keepdim=True) if positions else x
        inner = F.linear(means.movedim(channels, -1), self.down, self.down_bias).relu()
        gate = torch.sigmoid(F.linear(inner, self.up, self.up_bias))
        return gate.movedim(-1, channels)

    def extra_repr(self) -> str:
        return f"{self.down.shape[1]}, {self.up.shape[0]}, channel_dim={self.channel_dim}"
