"""Shortcuts around a layer: how its real-valued input reaches an output of another shape.

stride         average pooling by the stride (ceil_mode, padding not counted)
channels x k   the input repeated k times:  cat([x] * k)
channels / k   the mean of k groups, channel c of the output from c, c + C, c + 2C, ...
anything else  no shortcut, and the reason why

A rule may ask for `projection: conv1x1`: then a float 1x1 convolution and a norm carry every change of
channels; and for `shortcut_scale: channel`: then a learned factor per channel, which starts at 1, comes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from binarize.binarizers.xnorpp import ChannelScale
from binarize.errors import UsageError

__all__ = ["MeanChannels", "RepeatChannels", "ShortcutSpec", "plan_shortcut"]


@dataclass(frozen=True)
class ShortcutSpec:
    """What a shortcut does, as data; `build` makes the module."""

    # Stride of the average pooling per spatial axis; empty where nothing is pooled.
    pool: tuple[int, ...] = ()
    # How often the channels are repeated, and in how many groups they are averaged.
    repeat: int = 1
    mean: int = 1
    # A float 1x1 convolution with BatchNorm carries the channels over instead.
    conv: bool = False
    # A learned factor per channel comes last.
    scale: bool = False

    @property
    def kind(self) -> str:
        """The steps in words: "identity", "avgpool2", "avgpool2+repeat2", "mean2", "identity+scale"."""
        steps = []
        if self.pool:
            same = len(set(self.pool)) == 1
            steps.append("avgpool" + "x".join(map(str, self.pool[:1] if same else self.pool)))
        if self.repeat > 1:
            steps.append(f"repeat{self.repeat}")
        if self.mean > 1:
            steps.append(f"mean{self.mean}")
        if self.conv:
            steps.append("conv1x1")
        return "+".join(steps or ["identity"]) + ("+scale" if self.scale else "")

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` takes back."""
        return {
            "pool": list(self.pool),
            "repeat": self.repeat,
            "mean": self.mean,
            "conv": self.conv,
            "scale": self.scale,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ShortcutSpec:
        """The spec that `to_json` wrote."""
        # Plans of earlier versions know of no scale.
        return cls(tuple(data["pool"]), data["repeat"], data["mean"], data["conv"], data.get("scale", False))

    def params(self, in_channels: int, out_channels: int) -> int:
        """Float parameters that the built module holds: those of the 1x1 convolution and its norm, and the factors."""
        return out_channels * ((in_channels + 2 if self.conv else 0) + self.scale)

    def build(self, in_channels: int, out_channels: int, ndim: int) -> nn.Module:
        """The module. `ndim` counts spatial axes: 2 for images, 0 for (..., C)."""
        if not self.conv and in_channels * self.repeat != out_channels * self.mean:
            raise UsageError(f"shortcut {self.kind}: cannot lead {in_channels} channels to {out_channels}")
        channel_dim = 1 if ndim else -1
        steps: list[nn.Module] = []
        if self.pool:
            pooling = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[ndim - 1]
            size: Any = self.pool
            steps.append(pooling(size, size, ceil_mode=True, count_include_pad=False))
        if self.repeat > 1:
            steps.append(RepeatChannels(self.repeat, channel_dim))
        if self.mean > 1:
            steps.append(MeanChannels(self.mean, channel_dim))
        if self.conv:
            steps.extend(_projection(in_channels, out_channels, ndim))
        if self.scale:
            steps.append(ChannelScale(out_channels, channel_dim))
        if not steps:
            return nn.Identity()
        return steps[0] if len(steps) == 1 else nn.Sequential(*steps)


def _projection(in_channels: int, out_channels: int, ndim: int) -> list[nn.Module]:
    if ndim == 0:
        return [nn.Linear(in_channels, out_channels, bias=False), nn.LayerNorm(out_channels)]
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[ndim - 1]
    return [conv(in_channels, out_channels, 1, bias=False), norm(out_channels)]


def plan_shortcut(
    in_shape: Sequence[int],
    out_shape: Sequence[int],
    stride: Sequence[int] = (),
    channel_dim: int = 1,
    projection: Literal["none", "conv1x1"] = "none",
    scale: Literal["none", "channel"] = "none",
) -> ShortcutSpec | str:
    """The shortcut that leads from one shape to the other, or in words why there is none.

    Shapes hold the batch. A size may change by the stride alone: out = ceil(in / stride).

    Example:
        >>> plan_shortcut((1, 64, 56, 56), (1, 128, 28, 28), (2, 2)).kind
        'avgpool2+repeat2'
    """
    if len(in_shape) != len(out_shape) or len(in_shape) < 2:
        return f"input {_shape(in_shape)} and output {_shape(out_shape)} have different axes"
    channel = channel_dim % len(in_shape)
    axes = [i for i in range(1, len(in_shape)) if i != channel]
    steps = list(stride) if len(stride) == len(axes) else [1] * len(axes)
    pool = []
    for axis, step in zip(axes, steps):
        size, wanted = in_shape[axis], out_shape[axis]
        if wanted not in (size, -(-size // step)):
            return f"the size changes from {size} to {wanted}, which stride {step} does not explain"
        pool.append(1 if wanted == size else step)
    pooled = tuple(pool) if any(step > 1 for step in pool) else ()
    before, after, scaled = in_shape[channel], out_shape[channel], scale == "channel"
    if before == after:
        return ShortcutSpec(pooled, scale=scaled)
    if projection == "conv1x1":
        return ShortcutSpec(pooled, conv=True, scale=scaled)
    if after % before == 0:
        return ShortcutSpec(pooled, repeat=after // before, scale=scaled)
    if before % after == 0:
        return ShortcutSpec(pooled, mean=before // after, scale=scaled)
    return f"{before} channels cannot be repeated or averaged to {after}"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


class RepeatChannels(nn.Module):
    """x repeated along the channels: (N, C, ...) -> (N, times * C, ...)."""

    def __init__(self, times: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.times, self.channel_dim = times, channel_dim

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.times, dim=self.channel_dim)

    def extra_repr(self) -> str:
        return f"times={self.times}, channel_dim={self.channel_dim}"


class MeanChannels(nn.Module):
    """Mean of groups of channels: (N, groups * C, ...) -> (N, C, ...), channel c from c, c + C, c + 2C, ..."""

    def __init__(self, groups: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.groups, self.channel_dim = groups, channel_dim

    def forward(self, x: Tensor) -> Tensor:
        dim = self.channel_dim % x.dim()
        return x.unflatten(dim, (self.groups, -1)).mean(dim)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, channel_dim={self.channel_dim}"
