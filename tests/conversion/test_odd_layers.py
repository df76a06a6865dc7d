"""Layers that are no plain modules: each is converted, or kept with a true reason; none vanishes from the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model_laws
import nets
import pytest
import torch
from nets import Body, conv
from test_laws import run
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import binarize
from binarize.layers.layer import BinaryLayer

FUNCTIONAL = "a functional call uses its weight, which no swap of modules reaches"
FORWARD = "has a forward of its own"


class FunctionalModules(Body):
    """Functions on the weights of modules: alone, changed, and beside a call of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.doubled, self.both, self.other = (conv() for _ in range(4))
        self.linear = nn.Linear(16, 16)

    def run(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.relu(x), self.plain.weight, padding=1)
        x = F.conv2d(F.relu(x), self.doubled.weight * 2, padding=1)
        x = self.both(F.relu(x)) + F.conv2d(x, self.both.weight, padding=1)
        x = self.other(F.relu(x))
        return x + F.linear(x.mean((2, 3)), self.linear.weight, self.linear.bias)[..., None, None]


class Products(Body):
    """Products with parameters that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv()
        names = ("matmul", "right", "einsum", "addmm", "bmm", "made_of", "and_of")
        for name in names:
            setattr(self, name, nn.Parameter(torch.randn(16, 16) / 4))
        self.summand = nn.Parameter(torch.zeros(16))
        self.register_buffer("fixed", torch.eye(16))

    def run(self, x: Tensor) -> Tensor:
        image = self.conv1(F.relu(x))
        x = image.mean((2, 3)) @ self.matmul
        x = (self.right @ x[..., None])[..., 0]
        x = torch.einsum("ni,io->no", x, self.einsum)
        x = torch.addmm(self.summand, x, self.addmm) @ self.fixed
        x = torch.bmm(x[None], self.bmm[None])[0]
        return image + F.linear(x, self.made_of @ self.and_of)[..., None, None]


class OwnForward(Body):
    """Classes of the user's own: a subclass, a module that calls a function, one that holds a layer."""

    class Partial(nn.Conv2d):
        """Divides by the share of the window that lies inside of the image."""

        def forward(self, x: Tensor) -> Tensor:
            inside = F.conv2d(torch.ones_like(x[:1, :1]), x.new_ones(1, 1, 3, 3) / 9, padding=1)
            return super().forward(x) / inside

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.size = conv(), nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * self.size

    class Mixture(nn.Module):
        """Filters mixed anew for each sample (Yang et al., 2019, https://arxiv.org/abs/1904.04971)."""

        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.Parameter(torch.randn(2, 16 * 16 * 9) / 12)

        def forward(self, x: Tensor) -> Tensor:
            share = torch.softmax(x.mean((2, 3))[:, :2], 1)
            filters = (share @ self.experts).reshape(-1, 16, 3, 3)
            return F.conv2d(x.flatten(0, 1)[None], filters, padding=1, groups=len(x)).view_as(x)

    class Bias(nn.Module):
        """Holds a matrix and multiplies nothing by it."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(16, 16))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table

    def __init__(self) -> None:
        super().__init__()
        self.partial, self.scaled = self.Partial(16, 16, 3, padding=1), self.Scaled()
        self.mixture, self.bias = self.Mixture(), self.Bias()

    def run(self, x: Tensor) -> Tensor:
        return self.bias(self.mixture(self.scaled(F.relu(self.partial(F.relu(x))))))


class Deformable(Body):
    """Torchvision's convolution that looks where another one tells."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.ops import DeformConv2d

        self.offset, self.deformable, self.conv1 = conv(16, 18), DeformConv2d(16, 16, 3, padding=1), conv()

    def run(self, x: Tensor) -> Tensor:
        return self.conv1(F.relu(self.deformable(x, self.offset(F.relu(x)))))


class Recurrent(Body):
    """Recurrent layers and cells, a bilinear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lstm, self.gru = conv(), nn.LSTM(16, 16, batch_first=True), nn.GRU(16, 16)
        self.cell, self.rnn, self.bilinear = (
            nn.LSTMCell(16, 16),
            nn.RNNCell(16, 16),
            nn.Bilinear(16, 16, 16),
        )

    def run(self, x: Tensor) -> Tensor:
        image = self.conv1(F.relu(x))
        y, _ = self.lstm(image.mean(3).transpose(1, 2))
        y, _ = self.gru(y)
        h, _ = self.cell(y[:, 0])
        h = self.rnn(h)
        return image + self.bilinear(h, h)[..., None, None]


class Embedded(nets.Net):
    """Tokens by number; the head is the embedding once more, and one linear layer is two."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(50, 32), nn.Embedding(6, 32)
        self.first, self.second, self.third = (nn.Linear(32, 32) for _ in range(3))
        self.second.weight = self.first.weight
        self.register_buffer("order", torch.arange(6))

    def arguments(self, n: int = 4) -> tuple[Any, ...]:
        return (torch.arange(n * 6).view(n, 6) % 50,)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position(self.order)
        x = self.third(F.relu(self.second(F.relu(self.first(x)))))
        return F.linear(x, self.embedding.weight)


class Reparametrized(Body):
    def __init__(self) -> None:
        super().__init__()
        self.normed, self.spectral = (
            parametrizations.weight_norm(conv()),
            parametrizations.spectral_norm(conv()),
        )
        self.orthogonal, self.conv1 = parametrizations.orthogonal(nn.Linear(16, 16)), conv()
        self.hooked = nn.utils.spectral_norm(conv())

    def run(self, x: Tensor) -> Tensor:
        x = self.conv1(F.relu(self.hooked(self.spectral(self.normed(F.relu(x))))))
        return x + self.orthogonal(x.mean((2, 3)))[..., None, None]


class FixedInput(Body):
    """A trained layer on a constant, as the position networks of window attention, and one that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.position, self.idle = conv(), nn.Linear(16, 16), nn.Linear(16, 16)
        self.register_buffer("place", torch.ones(1, 16))

    def run(self, x: Tensor) -> Tensor:
        return self.conv1(F.relu(x)) + self.position(self.place)[..., None, None]


class Frozen(Body):
    """Layers that do not learn are layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv().requires_grad_(False), conv()

    def run(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(F.relu(x))))


class Dimensions(nets.Net):
    """Convolutions and transposed ones of one and three axes, in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv1d(3, 16, 3), nn.Linear(16, 10)
        self.conv1, self.up1 = nn.Conv1d(16, 16, 3, groups=4), nn.ConvTranspose1d(16, 16, 3, 2, groups=2)
        self.conv3, self.up3 = nn.Conv3d(16, 16, 3, padding=1), nn.ConvTranspose3d(16, 16, 2, groups=2)
        self.norms = nn.ModuleList(nn.BatchNorm1d(16) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.conv1(F.relu(self.stem(x.mean(2))))))
        x = F.relu(self.norms[1](self.up1(x)))[..., :24].unflatten(2, (2, 3, 4))
        return self.head(self.up3(F.relu(self.conv3(x))).mean((2, 3, 4)))


# Row of the plan -> the end of the reason why the layer stays float, None where it becomes binary. The stem and the head,
# which the rules keep, are left out.
CASES: dict[type[nets.Net], dict[str, str | None]] = {
    FunctionalModules: {
        "plain": FUNCTIONAL,
        "doubled": FUNCTIONAL,
        "both": "the model reads its weight itself as well (F.conv2d)",
        "both.weight": FUNCTIONAL,
        "other": None,
        "linear": FUNCTIONAL,
    },
    Products: {
        "conv1": None,
        **{
            name: f"a product with a parameter ({name}), not a layer"
            for name in ("matmul", "right", "einsum", "addmm", "bmm")
        },
        "made_of": "its weight is computed from made_of and and_of",
    },
    OwnForward: {"partial": FORWARD, "scaled.inner": None, "mixture": FORWARD},
    Deformable: {"offset": None, "deformable": FORWARD, "conv1": None},
    Recurrent: {
        "conv1": None,
        "lstm": "there is no binary LSTM",
        "gru": "there is no binary GRU",
        "cell": "there is no binary LSTMCell",
        "rnn": "there is no binary RNNCell",
        "bilinear": "there is no binary Bilinear",
    },
    Embedded: {
        "embedding": "an embedding is looked up and multiplies nothing",
        "first": None,
        "second": None,
        "third": None,
        "embedding.weight": FUNCTIONAL,
    },
    Reparametrized: {
        **dict.fromkeys(("normed", "spectral", "hooked", "conv1", "orthogonal")),
    },
    FixedInput: {
        "conv1": None,
        "position": "its input does not depend on the model's",
        "idle": "not reached by the forward pass on the example",
    },
    Frozen: {"conv1": None, "conv2": None},
    Dimensions: dict.fromkeys(("conv1", "up1", "conv3", "up3")),
}
every_case = pytest.mark.parametrize("net", list(CASES), ids=lambda net: net.__name__)
# Every layer that can be binarized, the first and the last too, so that no rule hides a reason.
EVERYTHING = {"rules": [{"match": {"name": "**"}, "use": "bnn"}]}


def planned(model: nn.Module) -> Any:
    return binarize.plan(model, rules=EVERYTHING, example_input=nets.example(model))


@every_case
def test_each_layer_has_a_row_with_a_true_reason(net: type[nets.Net]) -> None:
    found = {d.layer.name: None if d.binary else d.why for d in planned(nets.seeded(net)).decisions}
    ends = {"stem", "head", "head.fc"}
    assert found.keys() - ends == CASES[net].keys()
    for name, why in CASES[net].items():
        assert (found[name] is None) == (why is None), name
        assert str(found[name]).endswith(str(why)), name


@every_case
def test_no_weight_of_a_product_is_without_a_row(net: type[nets.Net]) -> None:
    model = nets.seeded(net)
    assert isinstance(model, nets.Net)
    arguments = (model.arguments(), model.keywords())
    assert model_laws.reported(model, planned(model).plan, arguments, arguments) == "ok"


@every_case
def test_a_plan_that_keeps_all_changes_no_bit(net: type[nets.Net]) -> None:
    model = nets.seeded(net)
    assert isinstance(model, nets.Net)
    arguments = (model.arguments(), model.keywords())
    assert model_laws.keeps_all(model, planned(model).plan, arguments, arguments) == "ok"


@every_case
def test_what_is_converted_learns_and_survives_saving_and_packing(
    net: type[nets.Net], tmp_path: Path
) -> None:
    model = nets.seeded(net)
    converted = binarize.convert(
        model, "bnn", rules=EVERYTHING, example_input=nets.example(model), calibrate=False
    )
    binary = {name for name, module in converted.named_modules() if isinstance(module, BinaryLayer)}
    assert binary - {"stem", "head", "head.fc"} == {name for name, why in CASES[net].items() if why is None}
    assert isinstance(model, nets.Net)
    arguments = (model.arguments(), model.keywords())
    assert model_laws.gradients(model, converted, arguments) == "ok"
    folder = binarize.save(converted.eval(), tmp_path / "net")
    assert all(map(torch.equal, run(binarize.load(folder, model=model).eval()), run(converted)))
    binarize.pack(folder, model=model)
    packed, frozen = binarize.load_packed(folder, model=model), binarize.freeze(converted)
    assert isinstance(converted, nets.Net)
    x = converted.arguments()
    with torch.no_grad():
        assert torch.equal(packed(*x), frozen(*x))
        torch.testing.assert_close(frozen(*x), converted(*x), rtol=1e-4, atol=1e-4)
