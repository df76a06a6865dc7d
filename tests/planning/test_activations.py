"""What becomes of the activation in front of a sign."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from plans import plan_of
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.analysis.analyse import analyse
from binarize.analysis.flow import Flow
from binarize.capture import capture
from binarize.planning.activations import channel_dim
from binarize.planning.make import make_plan
from binarize.rules.load import load_rule_set


def words(model: nets.Net, scheme: str = "adabin", **options: Any) -> dict[str, tuple[str, str]]:
    """Layer -> (what became of its activation, whether it has a threshold)."""
    plan = plan_of(model, load_rule_set(scheme, **options))
    return {d.layer.name: (d.activation, d.threshold.partition(",")[0]) for d in plan.binarized}


@pytest.mark.parametrize(
    "net, expected",
    [
        (
            nets.ConvRelu,
            {
                "features.2": ("ReLU -> adabin.Maxout", "none"),
                "features.5": ("ReLU -> adabin.Maxout", "none"),
            },
        ),
        (
            nets.FunctionalRelu,
            {"conv1": ("F.relu -> adabin.Maxout", "none"), "conv2": ("F.relu -> adabin.Maxout", "none")},
        ),
        (
            nets.SharedRelu,
            {"conv1": ("ReLU -> adabin.Maxout", "none"), "conv2": ("ReLU -> adabin.Maxout", "none")},
        ),
        # The sign works on what the norm in front has centred; the nonlinearity follows the new norm.
        (nets.Dense, {"convs.1": ("dropped F.relu, adabin.Maxout behind the new norm", "none")}),
        (nets.PreActivation, {"blocks.1.conv1": ("dropped F.relu", "none")}),
        # The depthwise convolution needs the nonnegative values.
        (nets.FeedsFloat, {"conv1": ("kept ReLU", "per channel")}),
        (nets.Silu, {"layers.2": ("kept SiLU", "per channel"), "layers.5": ("kept GELU", "per channel")}),
        # The gate reads them as well.
        (
            nets.SqueezeExcite,
            {"conv1": ("F.relu -> adabin.Maxout", "none"), "conv2": ("none", "per channel")},
        ),
        # The float projection of a shortcut does not keep a ReLU alive.
        (nets.BasicBlocks, {"blocks.1.conv1": ("ReLU -> adabin.Maxout", "none")}),
        (
            nets.Tokens,
            {
                "mlp1.0": ("none", "none"),
                "mlp1.2": ("kept GELU", "per channel"),
                "mlp2.2": ("ReLU -> adabin.Maxout", "none"),
            },
        ),
        (nets.NormActivation, {"conv2": ("ReLU -> adabin.Maxout", "none")}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_activation_is_replaced_dropped_or_kept_behind_a_threshold(
    net: type[nets.Net], expected: dict[str, Any]
) -> None:
    found = words(net())
    assert {name: found[name] for name in expected} == expected


def test_a_scheme_without_nonlinearity_drops_the_activation() -> None:
    assert words(nets.ConvRelu(), "bireal")["features.2"] == ("dropped ReLU", "none")


def test_binary_weights_alone_leave_the_activation_as_it_is() -> None:
    rules = [{"match": {"kind": "conv"}, "use": "weights-only:adabin"}]
    assert words(nets.ConvBnRelu(), None, rules=rules)["layers.3"] == ("kept ReLU", "none")  # type: ignore[arg-type]


def test_a_rule_can_keep_the_activation() -> None:
    found = words(nets.ConvBnRelu(), overrides=["body.activation=keep"])
    assert found["layers.3"] == ("kept ReLU", "per channel")


def test_an_activation_that_no_sign_reads_stays() -> None:
    plan = plan_of(nets.ConvBnRelu())
    replaced = {edit.container for edit in plan.edits if edit.op == "replace"}
    assert replaced == {"layers.2", "layers.5"}


def axis(run: Any, **children: nn.Module) -> int:
    """The channel axis of what `run` makes of (2, 3, 16, 16) pictures."""

    class Given(nets.Net):
        def __init__(self) -> None:
            super().__init__()
            for name, child in children.items():
                self.add_module(name, child)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(run(self, x))

    model = Given()
    flow: Flow = analyse(capture(model, model.arguments())).flow
    (relu,) = [i for i, kind in enumerate(flow.kinds) if kind == "activation"]
    return channel_dim(flow, relu)


@pytest.mark.parametrize(
    "run, dim",
    [
        (lambda self, x: self.conv(x), 1),
        (lambda self, x: self.conv(x).flatten(1), 1),
        (lambda self, x: self.conv(x).flatten(2), 1),
        (lambda self, x: self.conv(x).flatten(2).transpose(1, 2), -1),
        (lambda self, x: self.conv(x).permute(0, 2, 3, 1), -1),
        (lambda self, x: self.fc(x.permute(0, 2, 3, 1)), -1),
        (lambda self, x: self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 1),
        (lambda self, x: self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).flatten(1), 1),
        # As many channels as columns: the exchanges tell which is which.
        (lambda self, x: self.square(x), 1),
        (lambda self, x: self.square(x).transpose(1, 3), -1),
        (lambda self, x: self.square(x).transpose(1, 3).transpose(1, 3), 1),
        # Joined channels are those of no layer.
        (lambda self, x: torch.cat([self.conv(x), self.conv(x)], 1), 1),
        (lambda self, x: torch.cat([self.conv(x), self.conv(x)], 1).permute(0, 2, 3, 1), -1),
    ],
)
def test_the_channels_are_found_behind_exchanged_axes(run: Any, dim: int) -> None:
    children = {"conv": nets.conv(3, 24), "fc": nn.Linear(3, 24), "square": nets.conv(3, 16)}
    assert axis(run, **children) == dim


@pytest.mark.parametrize(
    "net, options, expected",
    [
        # Without norms: the first layer's filters, then the norms that the binary layers get.
        (
            nets.ConvRelu,
            {},
            {
                "features.2": "mean of relu behind features.0",
                "features.5": "mean of relu behind features.2.norm",
                "classifier.0": "mean of relu behind features.5.norm",
            },
        ),
        (nets.ConvBnRelu, {}, {"layers.3": "mean of relu behind layers.1"}),
        (
            nets.ConvBnRelu,
            {"shortcuts": "missing"},
            {"layers.6": "mean of relu behind layers.4 and what is added to it"},
        ),
        (
            nets.BasicBlocks,
            {},
            {
                "blocks.0.conv1": "mean of relu behind bn",
                "blocks.1.conv1": "mean of relu behind blocks.0.bn2 and what is added to it",
            },
        ),
    ],
)
def test_a_nonlinearity_that_starts_as_a_relu_needs_a_threshold_behind_it(
    net: type[nets.Net], options: dict[str, Any], expected: dict[str, str]
) -> None:
    plan = plan_of(net(), load_rule_set("reactnet", **options))
    assert {name: plan[name].threshold for name in expected} == {
        name: f"per channel, {words}" for name, words in expected.items()
    }


def test_a_nonlinearity_with_negative_values_needs_none() -> None:
    plan = plan_of(nets.ConvBnRelu(), load_rule_set("reactnet_paper"))
    assert plan["layers.3"].threshold == "none"


def test_what_nothing_tells_of_starts_at_zero_and_says_so() -> None:
    class Unknown(nets.ConvBnRelu):
        def forward(self, x: Tensor) -> Tensor:
            first, last = self.layers[:3], self.layers[3:]
            return self.head(last(F.relu(torch.cumsum(first(x), 1))))

    plan = plan_of(Unknown(), load_rule_set("reactnet"))
    assert plan["layers.3"].threshold == "per channel, 0 until calibrated"


def test_where_channels_are_cut_apart_nothing_is_promised() -> None:
    class Halved(nets.ConvBnRelu):
        def __init__(self) -> None:
            super().__init__()
            self.layers[3] = nets.conv(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            first, _ = self.layers[:3](x).chunk(2, 1)
            return self.head(self.layers[3:](first))

    plan = plan_of(Halved(), load_rule_set("reactnet"))
    assert plan["layers.3"].threshold == "per channel, 0 until calibrated"


def test_a_long_chain_of_adds_is_followed_without_recursion() -> None:
    class Deep(nets.ConvBnRelu):
        def forward(self, x: Tensor) -> Tensor:
            y = start = self.layers[:3](x)
            for _ in range(400):
                y = F.relu(y + start)
            return self.head(self.layers[3:](y))

    assert plan_of(Deep(), load_rule_set("reactnet"))["layers.3"].threshold.startswith("per channel, ")


def test_a_plan_is_made_under_the_meta_device_too() -> None:
    model = nets.ConvBnRelu()
    graph = capture(model, model.arguments())
    with torch.device("meta"):
        plan = make_plan(analyse(graph), load_rule_set("reactnet"))
    assert plan["layers.3"].threshold.startswith("per channel, mean of relu")


def test_a_deep_chain_of_shortcuts_knows_where_each_threshold_starts() -> None:
    class Deep(nets.ConvBnRelu):
        def __init__(self) -> None:
            super().__init__()
            units = [nn.Sequential(nets.conv(), nn.BatchNorm2d(16), nn.ReLU()) for _ in range(40)]
            self.layers.extend(units)

    plan = plan_of(Deep(), load_rule_set("reactnet", shortcuts="missing"))
    assert len(plan.binarized) > 40
    assert not [d.layer.name for d in plan.binarized if d.threshold.endswith("0 until calibrated")]
