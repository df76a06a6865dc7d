"""What a layer with a forward of its own computes, found out by running it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.plain_forward import Plain, plain_forward


def layer(forward: Any, kind: type[nn.Module] = nn.Conv2d, **more: Any) -> nn.Module:
    """A layer of a class with that forward."""
    made = type("Own", (kind,), {"forward": forward})
    return made(4, 6, **({"kernel_size": 3} | more if kind is not nn.Linear else more))


def conv(self: Any, x: Tensor, padding: Any = 0) -> Tensor:
    return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


def by_size(self: Any, x: Tensor) -> Tensor:
    sides: list[int] = []
    for size, step, kernel, dilation in reversed(
        [*zip(x.shape[2:], self.stride, self.kernel_size, self.dilation)]
    ):
        total = max((-(-size // step) - 1) * step + (kernel - 1) * dilation + 1 - size, 0)
        sides += [total // 2, total - total // 2]
    return conv(self, F.pad(x, sides))


@pytest.mark.parametrize(
    "made, found",
    [
        (layer(lambda self, x: conv(self, x)), Plain((0, 0, 0, 0))),
        (layer(lambda self, x: conv(self, x), padding=1), Plain((0, 0, 0, 0))),
        (layer(lambda self, x: conv(self, F.pad(x, (1, 1, 1, 1)))), Plain((1, 1, 1, 1))),
        (layer(lambda self, x: conv(self, F.pad(x, (0, 1, 2, 0))), stride=2), Plain((0, 1, 2, 0))),
        (layer(lambda self, x: conv(self, F.pad(x, (1, 1, 1, 1), mode="reflect"))), Plain((1, 1, 1, 1), "reflect")),
        (layer(lambda self, x: conv(self, F.pad(x, (1, 0, 1, 0), mode="replicate"))), Plain((1, 0, 1, 0), "replicate")),
        (layer(lambda self, x: nn.Conv2d.forward(self, x.to(self.weight.dtype)), padding=1), Plain((1, 1, 1, 1))),
        (layer(lambda self, x: conv(self, x.float(), self.padding), padding=1, groups=2), Plain((1, 1, 1, 1))),
        (layer(by_size, stride=2), Plain(None)),
        (layer(by_size, stride=3, kernel_size=(5, 2), dilation=2), Plain(None)),
        (layer(by_size, dilation=2), Plain((2, 2, 2, 2))),
        (layer(lambda self, x: F.linear(x.float(), self.weight, self.bias), nn.Linear), Plain()),
        (
            layer(lambda self, x: nn.Conv1d.forward(self, F.pad(x, (4, 0))), nn.Conv1d, dilation=2),
            Plain((4, 0)),
        ),
        # What is padded on both sides and cut off behind is padded in front alone.
        (layer(lambda self, x: nn.Conv1d.forward(self, x)[..., :-2], nn.Conv1d, padding=2), Plain((2, 0))),
    ],
)  # fmt: skip
def test_a_forward_that_only_pads_or_casts_is_known(made: nn.Module, found: Plain) -> None:
    before, state = torch.random.get_rng_state(), {name: t.clone() for name, t in made.state_dict().items()}
    assert plain_forward(made) == found
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(t, state[name]) for name, t in made.state_dict().items())


@pytest.mark.parametrize(
    "made",
    [
        layer(lambda self, x: conv(self, x) * 2),
        layer(lambda self, x: conv(self, x.relu())),
        layer(lambda self, x: F.conv2d(x, self.weight.abs(), self.bias)),
        layer(lambda self, x: conv(self, F.pad(x, (1, 1, 1, 1), value=1.0))),
        layer(lambda self, x: conv(self, x).half()),
        layer(lambda self, x: conv(self, F.dropout(x, training=self.training))),
        layer(lambda self, x: (conv(self, x), 1)),
        layer(lambda self, x: conv(self, x[..., 1:])),
        layer(lambda self, x, mask: conv(self, x * mask)),
        layer(lambda self, x: F.linear(F.normalize(x, dim=-1), self.weight), nn.Linear),
    ],
)
def test_a_forward_that_does_more_is_none(made: nn.Module) -> None:
    assert plain_forward(made) is None


def test_weights_without_data_are_not_needed() -> None:
    made = layer(lambda self, x: conv(self, F.pad(x, (1, 1, 1, 1)))).to("meta")
    assert plain_forward(made) == Plain((1, 1, 1, 1))
