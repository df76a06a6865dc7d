"""Two architectures are the same only where they give the same numbers and keep the same statistics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from binarize.sources.index.twins import compute_the_same


class Net(nn.Module):
    def __init__(
        self, momentum: float = 0.1, eps: float = 1e-5, scale: float = 1.0, blur: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, eps=eps, momentum=momentum)
        self.gamma = nn.Parameter(torch.zeros(4))  # a branch that starts at zero
        self.scale, self.blur = scale, blur

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        x = nn.functional.avg_pool2d(x, 2) if self.blur else x[..., ::2, ::2]
        return (x + self.scale * self.gamma.view(-1, 1, 1) * x.relu()).mean((2, 3))


class Sub(Net):
    """Another class that sums in another order."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))[..., ::2, ::2]
        return x.mean((3, 2)) + (self.gamma.view(-1, 1, 1) * x.relu()).mean((2, 3))


@pytest.mark.parametrize(
    ("make", "same"),
    [
        (Net, True),
        (Sub, True),
        (lambda: Net(blur=True), False),
        (lambda: Net(eps=1e-3), False),
        (lambda: Net(momentum=0.2), False),
        (lambda: Net(scale=1.1), False),
    ],
)
def test_what_differs_is_seen(make: Callable[[], nn.Module], same: bool) -> None:
    assert compute_the_same(Net(), make(), (1, 3, 16, 16)) is same


def test_an_output_that_hardly_depends_on_the_image_proves_nothing() -> None:
    class Faint(Net):
        def __init__(self, window: int) -> None:
            super().__init__()
            self.window = window

        def forward(self, x: Tensor) -> Tensor:
            return 1 + 1e-6 * nn.functional.max_pool2d(self.conv(x), self.window).mean((2, 3))

    assert compute_the_same(Faint(2), Faint(2), (1, 3, 16, 16))
    assert not compute_the_same(Faint(2), Faint(4), (1, 3, 16, 16))
