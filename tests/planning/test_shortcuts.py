"""Where shortcuts go, of what kind, and why not."""

from __future__ import annotations

import nets
import pytest
from plans import plan_of
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.rules.load import load_rule_set


def shortcuts(model: nets.Net, mode: str, scheme: str = "adabin") -> dict[str, str]:
    """Layer -> kind of its shortcut, or the reason why it has none in brackets."""
    plan = plan_of(model, load_rule_set(scheme, shortcuts=mode))
    return {
        d.layer.name: d.shortcut if d.shortcut != "none" else f"({d.shortcut_why})" for d in plan.binarized
    }


@pytest.mark.parametrize("name", list(nets.ALL))
@pytest.mark.sampled(12)
def test_never_means_none(name: str) -> None:
    assert set(shortcuts(nets.ALL[name](), "never").values()) == {"(not asked for)"}


@pytest.mark.parametrize(
    "net, expected",
    [
        (
            nets.ConvRelu,
            {
                "features.2": "repeat2",
                "features.5": "identity",
                "classifier.0": "mean4",
                "classifier.3": "identity",
            },
        ),
        (
            nets.BasicBlocks,
            dict.fromkeys(
                ("blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2"),
                "(the block's shortcut goes around 2 layers)",
            ),
        ),
        (nets.Dense, dict.fromkeys(("convs.0", "convs.1"), "(a concatenation carries its input on)")),
        (nets.Signal, {"layers.2": "avgpool2", "layers.5": "repeat2"}),
        (nets.Video, {"layers.3": "avgpool2", "layers.6": "repeat2"}),
        (nets.ConvPoolBn, {"layers.1": "(its norm stands behind a pooling)", "layers.5": "identity"}),
        (
            nets.CalledTwice,
            {"conv": "(it is called 2 times and its norm stands outside)", "other": "identity"},
        ),
        (nets.TwoNames, {"conv1": "identity"}),
        (
            nets.Geometry,
            {
                "layers.1": "identity",
                "layers.7": "(the size changes from 16 to 7, which stride 2 does not explain)",
                "layers.9": "(16 channels cannot be repeated or averaged to 24)",
            },
        ),
        (nets.FunctionalNorm, {"conv1": "identity", "conv2": "identity"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_missing_adds_what_the_graph_has_not(net: type[nets.Net], expected: dict[str, str]) -> None:
    found = shortcuts(net(), "missing")
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    "net, expected",
    [
        (
            nets.BasicBlocks,
            {
                "blocks.0.conv1": "identity",
                "blocks.0.conv2": "identity",
                "blocks.1.conv1": "block",
                "blocks.1.conv2": "identity",
            },
        ),
        (
            nets.Bottlenecks,
            {
                "blocks.0.conv1": "(the block's shortcut goes around 3 layers)",
                "blocks.0.conv2": "identity",
                "blocks.0.conv3": "(the block's shortcut goes around 3 layers)",
            },
        ),
        (nets.Dense, {"convs.0": "identity", "convs.1": "mean2"}),
        (
            nets.Decoder,
            {"down": "avgpool2+repeat2", "up": "(a transposed convolution has no parameter-free shortcut)"},
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_gives_each_layer_its_own(net: type[nets.Net], expected: dict[str, str]) -> None:
    found = shortcuts(net(), "every")
    assert {name: found[name] for name in expected} == expected


def test_binary_weights_alone_need_none() -> None:
    rules = load_rule_set(
        rules=[{"match": {"kind": "conv"}, "use": "weights-only:adabin"}], shortcuts="every"
    )
    assert {d.shortcut_why for d in plan_of(nets.BasicBlocks(), rules).binarized} == {
        "its input stays real-valued"
    }


def test_a_projection_by_rule_carries_any_change_of_channels() -> None:
    rules = load_rule_set("adabin", shortcuts="missing", overrides=["body.with={projection: conv1x1}"])
    plan = plan_of(nets.Geometry(), rules)
    assert (plan["layers.9"].shortcut, plan["layers.5"].shortcut) == ("conv1x1", "identity")


def test_a_block_with_a_float_layer_is_not_rewired() -> None:
    rules = load_rule_set("adabin", shortcuts="every", keep=["blocks.0.conv2"])
    plan = plan_of(nets.BasicBlocks(), rules)
    # Alone in its block, the other layer gets a shortcut of its own; the outer add stays.
    assert plan["blocks.0.conv1"].shortcut == "identity"
    assert not [
        e for e in plan.edits if e.container == "blocks.0" and e.op in ("add_value", "replace_operand")
    ]


def test_a_norm_on_reshaped_values_takes_no_shortcut() -> None:
    class Flattened(nets.Net):
        """Tokens, normalized as one long batch."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc, self.bn = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16), nn.BatchNorm1d(16)
            self.head = nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(F.relu(self.stem(x)).flatten(2).transpose(1, 2))
            return self.head(self.bn(x.flatten(0, 1)).reshape_as(x).mean(1))

    plan = plan_of(Flattened(), load_rule_set("adabin", shortcuts="every"))
    assert (plan["fc"].norm, plan["fc"].shortcut_why) == ("kept bn", "its norm works on another shape")


def test_two_layers_in_parallel_have_no_skip_and_get_their_own() -> None:
    class Parallel(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nets.conv(), nets.conv(), nets.conv()

        def run(self, x: Tensor) -> Tensor:
            return self.c(self.a(x) + self.b(x))

    assert shortcuts(Parallel(), "missing") == {"a": "identity", "b": "identity", "c": "identity"}


class _Padding(nets.Body):
    """A residual block that pads in front of each convolution, as generators of images do."""

    def __init__(self, outside: bool = True) -> None:
        super().__init__()
        self.pad, self.outside = nn.ReflectionPad2d(1), outside
        self.conv1, self.conv2 = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)

    def run(self, x: Tensor) -> Tensor:
        y = self.conv1(self.pad(x)).relu()
        y = self.pad(y) if self.outside else F.pad(y, (1, 1, 1, 1), mode="replicate")
        return x + self.conv2(y)


class _TwoSizes(nets.Body):
    """One convolution on a padded image and then on one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(16, 16, 3)

    def run(self, x: Tensor) -> Tensor:
        return self.conv1(self.conv1(F.pad(x, (1, 1, 1, 1))).relu())


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("mode", ["missing", "every"])
def test_a_value_is_added_as_it_was_before_it_was_padded(mode: str, outside: bool) -> None:
    model = _Padding(outside).eval()
    if mode == "every":
        assert shortcuts(model, mode) == {"conv1": "identity", "conv2": "identity"}
    x = nets.pictures(2)
    assert (
        binarize.convert(model, "bireal", shortcuts=mode, example_input=x).eval()(x).shape == model(x).shape
    )


def test_every_call_of_a_layer_has_to_fit_its_shortcut() -> None:
    model = _TwoSizes().eval()
    assert shortcuts(model, "every") == {
        "conv1": "(the size changes from 18 to 16, which stride 1 does not explain)"
    }
