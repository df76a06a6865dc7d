"""What nonlinearities say of themselves is what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from binarize.binarizers.adabin import Maxout
from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear, piecewise_of, start_as_relu
from binarize.binarizers.reactnet import RPReLU

X = torch.tensor([[-2.0, -0.5, 3.0], [0.0, 1.0, -7.0]])


def numbered(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


PARTS = {
    "Maxout": lambda: Maxout(3),
    "Maxout, channels last": lambda: Maxout(3, channel_dim=-1),
    "RPReLU": lambda: RPReLU(3),
    "PReLU": lambda: nn.PReLU(3),
    "PReLU of one slope": nn.PReLU,
    "ReLU": nn.ReLU,
    "ReLU in place": lambda: nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6,
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "Hardtanh": lambda: nn.Hardtanh(-0.75, 2),
    "PiecewiseLinear": lambda: PiecewiseLinear(3, low=-1.0),
}


@pytest.mark.parametrize("name", PARTS)
def test_the_lines_of_a_part_are_its_forward(name):
    module = numbered(PARTS[name]())
    form = piecewise_of(module)
    assert isinstance(form, PiecewiseLinear)
    assert torch.equal(form(X), module(X.clone()))
    whole = form.whole()
    assert torch.equal(whole(X), form(X))
    if not form.limited:
        pre, positive, negative, post = form.table(3)
        z = X + pre
        assert torch.equal(torch.where(z > 0, positive * z, negative * z) + post, form(X))


@pytest.mark.parametrize("name", ["Maxout", "RPReLU", "PReLU", "PReLU of one slope"])
def test_a_part_starts_as_relu(name):
    module = numbered(PARTS[name]())
    assert start_as_relu(module)
    assert torch.equal(module(X), X.relu())
    form = piecewise_of(module)
    assert isinstance(form, PiecewiseLinear) and form.is_relu


def test_what_says_nothing_is_unknown_and_stays_as_it_is():
    assert not start_as_relu(nn.Tanh())
    assert not start_as_relu(Nonlinearity())
    assert piecewise_of(nn.Tanh()) == (
        "Tanh does not say its straight lines; write its method piecewise() (docs/architecture.md)"
    )


class Steeper(Maxout):
    """Inherits what its parent says, and computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Summed(RPReLU):
    """Rounds otherwise than its parent says."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) + 1) - 1


class Pixelwise(Nonlinearity):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of()


class Flat(Maxout):
    """Takes (N, C) alone."""

    def forward(self, x: Tensor) -> Tensor:
        n, channels = x.shape
        return super().forward(x.view(n, channels))


class Ragged(RPReLU):
    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(negative=self.slope[:2], post=self.zeta)


class Broken(RPReLU):
    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(negative=self.slop)  # type: ignore[attr-defined]


class ShortTables(RPReLU):
    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(negative=self.slope[:2])


class Odd(Nonlinearity):
    def piecewise(self) -> PiecewiseLinear | None:
        return 3  # type: ignore[return-value]


@pytest.mark.parametrize(
    "module, words",
    [
        (Steeper(3), "Steeper.piecewise() is not its forward: for "),
        (numbered(Summed(3)), "Summed.piecewise() is not its forward: for "),
        (Pixelwise(), "Pixelwise.piecewise() is not its forward"),
        (Ragged(3), "Ragged.piecewise() fails: UsageError: PiecewiseLinear.of: tables of [2, 3] channels"),
        (Broken(3), "Broken.piecewise() fails: AttributeError: "),
        (ShortTables(3), "ShortTables cannot be asked for single numbers: "),
        (Odd(), "Odd.piecewise() gives a int; expected a PiecewiseLinear"),
        (nn.Sequential(Maxout(3)), "Sequential does not say its straight lines"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_part_that_computes_something_else_than_it_says_is_named(module, words):
    found = piecewise_of(module)
    assert isinstance(found, str) and found.startswith(words)


def test_a_part_is_asked_as_it_takes_its_numbers_and_keeps_its_mode():
    module = Flat(3).train()
    assert isinstance(piecewise_of(module), PiecewiseLinear)
    assert module.training


def test_tables_of_any_shape_and_numbers_that_are_none_are_taken():
    form = PiecewiseLinear.of(post=torch.ones(3, 1, 1), low=torch.tensor(-1.0))
    assert (form.channels, form.low) == (3, -1.0)
    module = numbered(Maxout(3))
    module.neg.data[1] = torch.nan
    assert isinstance(piecewise_of(module), PiecewiseLinear)


def test_hooks_that_change_numbers_are_seen():
    module = Maxout(3)
    handle = module.register_forward_hook(lambda module, args, out: out + 1)
    assert isinstance(piecewise_of(module), str)
    handle.remove()
    assert isinstance(piecewise_of(module), PiecewiseLinear)


def test_tables_of_other_channels_are_none():
    assert PiecewiseLinear(3).table(4) is None
    assert PiecewiseLinear.of(negative=torch.tensor([0.5])).table(2).tolist() == [
        [0, 0],
        [1, 1],
        [0.5, 0.5],
        [0, 0],
    ]
