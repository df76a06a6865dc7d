"""What the data flow of a recording tells: which layers come first and last, blocks, gates, projections, signs."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.analysis.analyse import analyse
from binarize.analysis.flow import Flow
from binarize.capture import capture


def flow_of(model: nets.Net, mode: str = "evaluation") -> Flow:
    graph = capture(model, model.arguments(), model.keywords())
    recording = getattr(graph, mode)
    assert recording is not None
    return Flow(recording)


def names(flow: Flow, sites: Any) -> list[str]:
    """Module paths of the given nodes, in order."""
    return [str(flow.nodes[i].target) for i in sorted(sites)]


def body(run: Any, **children: nn.Module) -> nets.Net:
    """stem, `run(self, x)`, head."""

    class Given(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            for name, child in children.items():
                self.add_module(name, child)

        def run(self, x: Tensor) -> Tensor:
            return run(self, x)

    return Given()


class BackToFront(nets.Net):
    """Registered in the opposite order of use."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.first = nn.Linear(16, 10), nets.conv(), nets.conv(3, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)).mean((2, 3)))


class TwoStems(nets.Body):
    def __init__(self) -> None:
        super().__init__()
        self.side, self.join = nets.conv(3, 16), nets.conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(F.relu(self.stem(x) + self.side(x))))


class Pyramid(nets.Body):
    """Gives its features beside the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nets.conv(), nets.conv()

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        x = F.relu(self.conv1(self.stem(x)))
        y = self.conv2(x)
        return [x, F.relu(y), self.head(y)]


@pytest.mark.parametrize(
    "model, first, last",
    [
        (nets.ConvRelu(), ["features.0"], ["classifier.6"]),
        (BackToFront(), ["first"], ["last"]),
        (TwoStems(), ["stem", "side"], ["head.fc"]),
        (nets.TwoHeads(), ["stem"], ["head.fc", "boxes"]),
        # Where that is all that there is between stem and head, features are no ends.
        (Pyramid(), ["stem"], ["head.fc"]),
        (nets.Keywords(), ["stem", "stem"], ["head.fc"]),
        # A shortcut from the input to the output goes around every layer and makes none of them first.
        (nets.BasicBlocks(), ["stem"], ["head.fc"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_first_and_last_follow_the_data(model: nets.Net, first: list[str], last: list[str]) -> None:
    flow = flow_of(model)
    assert names(flow, flow.first_sites) == first
    assert names(flow, flow.last_sites) == last


def test_a_head_of_training_alone_is_last_there() -> None:
    flow = flow_of(nets.AuxiliaryHead(), "training")
    assert names(flow, flow.last_sites) == ["aux.fc", "head.fc"]


def test_blocks_are_found_with_source_span_and_projection() -> None:
    flow = flow_of(nets.BasicBlocks())
    first, second = flow.blocks
    assert (names(flow, first.inner), first.span, first.projected, first.kind) == (
        ["blocks.0.conv1", "blocks.0.conv2"], 2, False, "add",
    )  # fmt: skip
    assert (names(flow, second.inner), second.span, second.projected) == (
        ["blocks.1.conv1", "blocks.1.conv2"],
        2,
        True,
    )
    assert flow.op(first.source) == "ReLU" and flow.op(first.merge) == "add_"
    assert names(flow, flow.projections) == ["blocks.1.downsample.0"]


def test_a_bottleneck_spans_three_and_a_dense_layer_is_concatenated() -> None:
    flow = flow_of(nets.Bottlenecks())
    assert [block.span for block in flow.blocks] == [3, 3]
    dense = flow_of(nets.Dense())
    assert {block.kind for block in dense.blocks} == {"concat"}
    assert names(dense, dense.block_of) == ["convs.0", "convs.1"]


def test_parallel_layers_are_no_shortcut_of_each_other() -> None:
    flow = flow_of(body(lambda self, x: self.a(x) + self.b(x), a=nets.conv(), b=nets.conv()))
    assert flow.blocks == [] and flow.projections == set()


def test_a_gate_is_what_computes_a_factor_of_smaller_shape() -> None:
    flow = flow_of(nets.SqueezeExcite())
    assert names(flow, flow.gates) == ["reduce", "expand"]


def test_a_product_of_equal_shapes_is_no_gate() -> None:
    flow = flow_of(body(lambda self, x: self.a(x) * torch.sigmoid(self.b(x)), a=nets.conv(), b=nets.conv()))
    assert flow.gates == set()


def sign_in_front(run: Any, **children: nn.Module) -> str:
    """What the head's linear layer can read."""
    flow = flow_of(body(lambda self, x: run(self, x), **children))
    return flow.signs()[flow.data_inputs[flow.sites[-1]][0]]


@pytest.mark.parametrize(
    "run, sign",
    [
        (lambda self, x: x, "any"),
        (lambda self, x: F.relu(x), "nonneg"),
        (lambda self, x: F.relu(x) + torch.sigmoid(x), "nonneg"),
        (lambda self, x: F.relu(x) + x, "any"),
        (lambda self, x: F.max_pool2d(F.relu6(x), 2), "nonneg"),
        (lambda self, x: x.clamp(0, 6), "nonneg"),
        (lambda self, x: x.clamp(-1, 1), "any"),
        (lambda self, x: x.clamp_min(0), "nonneg"),
        (lambda self, x: F.relu(x) * torch.sigmoid(x), "nonneg"),
        (lambda self, x: F.silu(x), "lowneg"),
        (lambda self, x: F.gelu(x) * torch.sigmoid(x), "lowneg"),
        (lambda self, x: F.dropout(F.hardswish(x), 0.1, self.training), "lowneg"),
        (lambda self, x: torch.cat([F.relu(x)[:, :8], F.silu(x)[:, 8:]], 1), "lowneg"),
        (lambda self, x: torch.tanh(F.relu(x)), "any"),
    ],
)  # fmt: skip
def test_value_ranges_follow_the_operations(run: Any, sign: str) -> None:
    assert sign_in_front(run) == sign


def test_a_replaced_activation_yields_any_sign() -> None:
    flow = flow_of(nets.FunctionalRelu())
    relus = [i for i, kind in enumerate(flow.kinds) if kind == "activation"]
    signs = flow.signs(lambda i: i == relus[0])
    assert [signs[i] for i in relus] == ["any", "nonneg", "nonneg"]


@pytest.mark.parametrize(
    "run, kinds",
    [
        (lambda self, x: x * 2, ["scale"]),
        (lambda self, x: x * torch.sigmoid(x), ["activation", "gate"]),
        (lambda self, x: x + 1, ["scale"]),
        (lambda self, x: x + x.exp(), ["other", "add"]),
        (lambda self, x: x - x.exp(), ["other", "other"]),
        (lambda self, x: torch.cat([x, x], 1)[:, :16], ["concat", "identity"]),
        (lambda self, x: F.batch_norm(x, None, None, training=True), ["norm"]),
        # Made from a tensor's shape alone, these carry none of its values.
        (lambda self, x: x + torch.zeros_like(x), ["other", "scale"]),
        (lambda self, x: x.flatten(1).view_as(x), ["identity", "identity"]),
        (lambda self, x: F.adaptive_avg_pool2d(x, 4), ["pool"]),
    ],
)  # fmt: skip
def test_operations_are_told_apart_by_what_they_do_to_values(run: Any, kinds: list[str]) -> None:
    flow = flow_of(body(run))
    start, end = flow.sites
    between = [kind for kind in flow.kinds[start + 1 : end] if kind not in ("get_attr",)]
    # The head's own mean comes last.
    assert between == [*kinds, "pool"]


def test_shape_alone_is_no_flow_of_values() -> None:
    flow = flow_of(body(lambda self, x: self.a(x).flatten(2).view_as(x), a=nets.conv()))
    (a,) = [i for i in flow.sites if flow.nodes[i].target == "a"]
    # The stem is read by `a` and only measured by view_as.
    assert [flow.op(i) for i in flow.users[flow.sites[0]]] == ["Conv2d"]
    assert [flow.op(i) for i in flow.users[a]] == ["flatten"]


def test_functional_layers_are_known_by_their_parameter() -> None:
    flow = flow_of(nets.FunctionalConv())
    assert [flow.functional_weights(i) for i in flow.sites] == [[], ["filters"], [], []]
    assert [flow.label(i) for i in flow.sites] == ["Conv2d", "F.conv2d", "Conv2d", "Linear"]


def test_a_product_with_a_tensor_that_is_no_parameter_is_no_layer() -> None:
    flow = flow_of(
        body(
            lambda self, x: (x.flatten(2).transpose(1, 2) @ x.flatten(2)).unsqueeze(1).expand(-1, 16, -1, -1)
        )
    )
    assert len(flow.sites) == 2


def test_frozen_arithmetic_is_no_layer_in_a_model_that_trains() -> None:
    constant = nets.conv(16, 1, 1).requires_grad_(False)
    model = body(lambda self, x: x * self.constant(x), constant=constant)
    assert names(flow_of(model), flow_of(model).sites) == ["stem", "head.fc"]
    model.requires_grad_(False)
    assert names(flow_of(model), flow_of(model).sites) == ["stem", "constant", "head.fc"]


class _Maps(nn.Module):
    """A discriminator that yields what each of its layers makes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(4))
        self.head = nn.Conv2d(8, 1, 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for layer in self.layers:
            x = layer(x).relu()
            found.append(x)
        return [*found, self.head(x)]


def test_where_all_feature_maps_are_outputs_the_last_one_is_the_end() -> None:
    analysis = analyse(capture(_Maps(), (torch.randn(1, 3, 8, 8),), {}))
    ends = {layer.name: layer.position for layer in analysis.layers}
    assert ends == {**{f"layers.{i}": "none" for i in range(1, 4)}, "layers.0": "first", "head": "last"}


class _Around(nn.Module):
    """One concatenation around so many layers, as the outermost of a U-Net."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(16, 2, 1)
        self.inner = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([x, self.inner(x)], 1))


@pytest.mark.parametrize("layers, skip", [(2, "concat"), (9, "none")])
def test_a_concatenation_around_many_layers_is_no_skip(layers: int, skip: str) -> None:
    analysis = analyse(capture(_Around(layers), (torch.randn(1, 3, 8, 8),), {}))
    assert {layer.skip for layer in analysis.layers if layer.name.startswith("inner")} == {skip}
