from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import binarize
from binarize.bernoulli.hardening import recentre, soft_layers
from binarize.binarizers.bernoulli import Averages, InputSign, MaxPool, Means, OutputSign
from binarize.errors import NothingToBinarizeError, UsageError
from binarize.packed.layers import PackedLayer
from binarize.training.data import Batch


class Net(nn.Module):
    """A module whose forward is given."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **children: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(),
        nn.Linear(256, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def images(count: int = 16) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def converted(net: nn.Module) -> nn.Module:
    return binarize.convert(net, "naive-bernoulli", example_input=images(), calibrate=False)


def reasons(net: nn.Module) -> dict[str, str]:
    plan = binarize.plan(net, "naive-bernoulli", example_input=images()).plan
    return {d.layer.name: d.why for d in plan.decisions if not d.binary}


def test_a_chain_becomes_layers_of_random_signs() -> None:
    net = chain()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    model = converted(net)
    kinds = [type(child).__name__ for child in model.children()]
    assert kinds == [
        "BernoulliConv2d", "Identity", "Identity", "MaxPool", "BernoulliConv2d", "Identity", "Flatten", "Identity",
        "BernoulliLinear", "Identity", "Identity", "ExpectationLinear",
    ]  # fmt: skip
    assert [type(layer.input_binarizer) for layer in soft_layers(model)] == [InputSign, Means, Means, Means]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    words = [
        decision.norm
        for decision in binarize.plan(net, "naive-bernoulli", example_input=images()).plan.decisions
    ]
    assert words == ["its own centring for 1", "none", "its own centring for 9", "none"]


def test_means_lie_between_the_two_signs_and_reach_every_weight() -> None:
    model = converted(chain())
    torch.manual_seed(0)
    loss = nn.functional.cross_entropy(model(torch.randn(32, 1, 8, 8)), torch.arange(32) % 10)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name
    hidden = model[:9](torch.randn(4, 1, 8, 8))
    assert bool((hidden.abs() <= 1).all()) and hidden.unique().numel() > 100


@pytest.mark.parametrize("hard", [False, True])
def test_it_is_saved_and_loaded_to_the_bit(hard: bool, tmp_path: Path) -> None:
    model = converted(chain()).eval()
    with torch.no_grad():
        for layer in soft_layers(model):
            layer.centre.add_(0.7)
    if hard:
        binarize.harden(model)
    binarize.save(model, tmp_path / "net")
    again = binarize.load(tmp_path / "net").eval()
    assert len(soft_layers(again)) == (0 if hard else 4)
    assert torch.equal(again(images()), model(images()))


def test_a_hardened_chain_packs_into_integers(tmp_path: Path) -> None:
    model = converted(chain()).eval()
    with pytest.raises(UsageError, match="the signs of 0, 4, 8 and more are still random"):
        binarize.freeze(model)
    binarize.harden(model)
    packing = binarize.pack(binarize.save(model, tmp_path / "net"))
    loaded = binarize.load_packed(packing.path)
    assert sum(isinstance(module, PackedLayer) for module in loaded.modules()) == packing.layers == 4
    assert not any(isinstance(module, MaxPool) for module in loaded.modules())
    x = torch.randn(8, 1, 8, 8)
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=1e-5)


def test_a_hardened_model_is_not_trained() -> None:
    model = binarize.harden(converted(chain()))
    with pytest.raises(UsageError, match="hardened for good"):
        binarize.finetune(model, "digits", epochs=1, teacher="none")


def test_thresholds_move_with_the_mean_of_hard_sums() -> None:
    model = converted(chain()).eval()
    offsets = {layer: layer.offset() for layer in soft_layers(model)}
    binarize.harden(model)
    layer, x = model[4], torch.randn(32, 1, 8, 8)
    sums: list[Tensor] = []
    with torch.no_grad():
        layer.bias.sub_(40)
        layer.register_forward_hook(lambda _, __, y: sums.append(y))
        recentre(model, layer, offsets[layer], [Batch(x)])
        model(x)
    # As far as the parity of sums allows.
    assert bool((sums[-1].mean((0, 2, 3)).abs() <= 1).all())


def test_a_layer_that_is_added_stays_float_with_the_reason() -> None:
    net = Net(
        lambda m, x: m.fc((m.a(x).relu() + m.b(m.c(x).relu())).relu().flatten(1)),
        a=nn.Conv2d(1, 32, 3, padding=1), b=nn.Conv2d(32, 32, 3, padding=1), c=nn.Conv2d(1, 32, 3, padding=1),
        fc=nn.Linear(32 * 64, 10),
    )  # fmt: skip
    added = "its output is added to another one: a sum of signs is no sign"
    assert reasons(net) == {"a": added, "b": added}
    model = converted(net)
    assert isinstance(model.fc.input_binarizer, InputSign)
    assert isinstance(model.c.activation, OutputSign)


def test_an_average_is_an_expectation_for_the_last_layer_alone() -> None:
    def net(*last: nn.Module) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *last
        )

    model = converted(net(nn.Linear(32, 10)))
    assert isinstance(model[0].activation, OutputSign)
    assert isinstance(model[5].input_binarizer, Averages)
    found = reasons(net(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)))
    assert found == {"5": "it reads averages of the signs of 0, which are no signs"}


@pytest.mark.parametrize(
    ("between", "reason"),
    [(nn.SiLU(), "SiLU"), (nn.LayerNorm([32, 6, 6]), "LayerNorm"), (nn.Upsample(scale_factor=2), "Upsample"),
     (nn.MaxPool2d(2, ceil_mode=True), "MaxPool2d")],
)  # fmt: skip
def test_what_makes_no_sign_of_signs_is_named(between: nn.Module, reason: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 32, 3), between, nn.Flatten(), nn.LazyLinear(10))
    net(images())
    found = reasons(net)
    assert list(found) == ["0"] and found["0"].startswith(reason)


def test_layers_of_other_dimensions_stay_float() -> None:
    net = nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 64, 5), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 60, 10))
    assert reasons(net) == {"1": "sums of random signs are known of Conv2d and Linear, not of Conv1d"}


def test_a_model_of_which_nothing_can_be_expressed_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.SiLU())
    with pytest.raises(NothingToBinarizeError, match="SiLU reads its output"):
        reasons(net)
