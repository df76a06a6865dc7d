"""One call from a float model to a binary one, and the plan one can still change before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from odd_nets import Opened
from test_laws import run
from torch import Tensor, nn

import binarize
from binarize.analysis.layer import Layer
from binarize.conversion.checked.liveness import measure_liveness
from binarize.errors import CheckError, StrictError, UsageError
from binarize.layers.layer import BinaryLayer, is_binary
from binarize.planning.record.capture import Calibrated, CalibrationState
from binarize.rules.rule_set import Rule


def binary_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if is_binary(module)]


def pictures_net() -> Any:
    return nets.seeded(nets.ConvRelu)


def test_convert_is_plan_and_apply() -> None:
    model, x = pictures_net(), nets.pictures(8)
    at_once = binarize.convert(model, "adabin", add_shortcuts=True, example_input=x)
    planned = binarize.plan(model, "adabin", add_shortcuts=True, example_input=x)
    assert not binary_names(model)
    applied = planned.apply()
    assert [d.layer.name for d in planned.decisions if d.binary] == binary_names(applied)
    for expected, found in zip(run(at_once), run(applied)):
        assert torch.equal(expected, found)
    assert at_once.report.to_json() == applied.report.to_json()


def test_the_plan_can_be_changed_layer_by_layer() -> None:
    planned = binarize.plan(pictures_net(), "adabin", example_input=nets.pictures(8))
    planned["features.5"].keep("sensitive")
    planned["classifier.6"].binarize("bnn", why="for a test")
    planned.add_rule(Rule({"name": "classifier.0"}, "keep", id="mine"))
    decided = {d.layer.name: (d.action, d.why) for d in planned.decisions}
    assert decided["features.5"] == ("keep", "sensitive")
    assert decided["classifier.6"] == ("binarize", "for a test")
    assert decided["classifier.0"][0] == "keep"
    assert (planned["classifier.6"].scheme, planned["features.2"].scheme) == ("bnn", "adabin")
    assert binary_names(planned.apply()) == ["features.2", "classifier.3", "classifier.6"]
    with pytest.raises(UsageError, match=r'did you mean "features\.5"\?'):
        planned["feature.5"].keep("x")


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"keep": ["features"]}, ["classifier.0", "classifier.3"]),
        ({"keep_first": 0}, ["features.0", "features.2", "features.5", "classifier.0", "classifier.3"]),
        ({"keep_first": 2, "keep_last": 3}, ["features.5"]),
        (
            {"binarize": ["classifier.6"], "keep": ["features", "classifier.0"]},
            ["classifier.3", "classifier.6"],
        ),
        (
            {"rules": {"rules": [{"match": {"kind": "conv"}, "use": "bnn"}]}},
            ["features.0", "features.2", "features.5"],
        ),
        ({"rules": [{"match": {"name": "features.2"}, "use": "adabin"}]}, ["features.2"]),
        ({"rules": lambda layer: "bnn" if layer.name == "features.5" else None}, ["features.5"]),
        ({"scheme": "bnn", "overrides": ["last.use=bnn", "body.use=keep"]}, ["classifier.6"]),
    ],
)
def test_options_decide_which_layers_become_binary(options: dict[str, Any], expected: list[str]) -> None:
    model = binarize.convert(pictures_net(), **options, example_input=nets.pictures(4))
    assert binary_names(model) == expected


def test_a_function_sees_the_facts_of_every_layer() -> None:
    seen: list[Layer] = []
    with pytest.raises(binarize.errors.NothingToBinarizeError):
        binarize.convert(
            pictures_net(), rules=lambda layer: seen.append(layer), example_input=nets.pictures(4)
        )
    assert [layer.name for layer in seen] == [
        "features.0", "features.2", "features.5", "classifier.0", "classifier.3", "classifier.6",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shortcuts": "always"}, "shortcuts='always': expected never, missing, every"),
        (
            {"shortcuts": "every", "add_shortcuts": True},
            """add_shortcuts=True means shortcuts="missing", but shortcuts="every" is given too""",
        ),
        ({"example_input": "cat.png"}, "example_input is a str; expected a tensor, a tuple or a dict"),
        ({"example_input": 5}, "example_input is a int"),
        ({"scheme": "adabin", "calibrate": []}, "there is no calibration data"),
        ({"scheme": "adabin", "calibrate": torch.zeros(0, 3, 16, 16)}, "there is no calibration data"),
    ],
)
def test_arguments_that_cannot_be_meant_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        binarize.convert(pictures_net(), **{"example_input": nets.pictures(2), **options})
    assert message in str(caught.value)


def test_a_model_without_weights_is_planned_but_not_converted() -> None:
    with torch.device("meta"):
        model = nets.ConvRelu()
    planned = binarize.plan(model, "adabin", example_input=nets.pictures(2))
    assert len(planned.plan.binarized) == 4
    with pytest.raises(UsageError, match="has no weights"):
        planned.apply()


def test_a_non_finite_output_fails_the_self_check() -> None:
    class Overflowing(nets.ConvRelu):
        """Finite on what the float layers give, infinite on what the binary ones do."""

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out / (1.0 if type(self.features[2]) is nn.Conv2d else 0.0)

    with pytest.raises(CheckError, match="self-check failed: output finite"):
        binarize.convert(nets.seeded(Overflowing), "adabin", example_input=nets.pictures(2))


def test_another_output_structure_fails_the_self_check() -> None:
    class Changing(nets.ConvRelu):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out if type(self.features[2]) is nn.Conv2d else out[:1]

    with pytest.raises(
        CheckError, match=r"output shapes equal the float model's: \[\(2, 10\)\] became \[\(1, 10\)\]"
    ):
        binarize.convert(nets.seeded(Changing), "adabin", example_input=nets.pictures(2))


def test_strict_turns_warnings_into_errors() -> None:
    x = nets.pictures(4)
    with pytest.raises(StrictError, match=r'rule "keep-1".* matched no layer: name "nothing"'):
        binarize.convert(pictures_net(), "adabin", keep=["nothing"], example_input=x, strict=True)
    assert binarize.convert(nets.seeded(nets.BasicBlocks), "adabin", example_input=x, strict=True)


def test_in_place_conversion_changes_the_object_itself() -> None:
    model = pictures_net()
    expected = run(binarize.convert(model, "adabin", example_input=nets.pictures(4)))
    assert binarize.convert(model, "adabin", example_input=nets.pictures(4), inplace=True) is model
    assert torch.equal(run(model)[0], expected[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["BasicBlocks", "ConvRelu", "Tokens", "Silu"])
def test_the_dtype_carries_over_to_every_new_part(name: str, dtype: torch.dtype) -> None:
    model = nets.seeded(nets.ALL[name]).to(dtype)
    (x,) = nets.example(model, 4)
    converted = binarize.convert(model, "adabin", shortcuts="every", example_input=x.to(dtype))
    assert {p.dtype for p in converted.parameters()} == {dtype}
    out = converted(x.to(dtype))
    assert out.dtype == dtype and torch.isfinite(out).all()
    out.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in converted.parameters())


def test_frozen_parameters_stay_frozen_and_new_ones_learn() -> None:
    model = nets.seeded(nets.ConvRelu).requires_grad_(False)
    model.features[2].requires_grad_(True)
    converted = binarize.convert(model, "adabin", example_input=nets.pictures(4))
    learning = {name for name, p in converted.named_parameters() if p.requires_grad}
    assert "features.2.weight" in learning and "features.2.norm.bias" in learning
    # A bias that moved into a norm is as frozen as it was.
    assert not {"features.5.weight", "features.5.norm.bias"} & learning
    assert {"features.5.norm.weight", "features.5.input_binarizer.alpha"} <= learning


def test_modes_carry_over_module_by_module() -> None:
    model = nets.seeded(nets.BasicBlocks).train()
    model.blocks[0].eval()
    converted = binarize.convert(model, "adabin", shortcuts="every", example_input=nets.pictures(4))
    assert converted.training and converted.blocks[1].conv1.norm is None
    for path, module in converted.named_modules():
        assert module.training == (not path.startswith("blocks.0")), path


def test_conversion_in_inference_mode_gives_a_model_that_trains() -> None:
    model = pictures_net()
    with torch.inference_mode():
        converted = binarize.convert(model, "adabin", example_input=nets.pictures(4))
    converted(nets.pictures(2)).sum().backward()
    assert converted.features[2].weight.grad is not None


def test_users_hooks_never_fire_while_converting_and_fire_afterwards() -> None:
    model = nets.seeded(nets.BasicBlocks)
    fired: list[str] = []
    for path, module in model.named_modules():
        module.register_forward_hook(lambda *_, path=path: fired.append(path))
        module.register_forward_pre_hook(lambda *_, path=path: fired.append(path))
        if not isinstance(module, nn.ReLU):  # torch forbids it where an activation works in place
            module.register_full_backward_hook(lambda *_, path=path: fired.append(path))
    converted = binarize.convert(model, "adabin", shortcuts="every", example_input=nets.pictures(4))
    assert fired == []
    converted(nets.pictures(2)).sum().backward()
    # The shared ReLU gave way to one nonlinearity a call; each other module still runs and is still watched.
    assert {path for path, _ in model.named_modules()} - set(fired) == {"blocks.0.relu"}


def test_hooks_that_cannot_fire_any_more_are_a_warning() -> None:
    model = nets.seeded(Opened)
    model.block.first.register_forward_hook(lambda *_: None)
    converted = binarize.convert(model, "adabin", shortcuts="every", example_input=nets.pictures(4))
    assert (
        "block.first: its hooks fire no more, since its forward is part of that of block"
        in converted.report.warnings
    )


def test_wrappers_are_taken_off() -> None:
    model = nn.DataParallel(pictures_net())
    assert isinstance(binarize.convert(model, "adabin", example_input=nets.pictures(4)), nets.ConvRelu)


def test_an_optional_argument_fixed_by_the_example_is_an_error_when_it_comes_after_all() -> None:
    model = nets.seeded(nets.Keywords)
    converted = binarize.convert(model, "adabin", example_input=nets.example(model))
    assert torch.isfinite(converted(**model.keywords(2))["scores"]).all()
    with pytest.raises(UsageError, match="argument 'mask' was None in the example"):
        converted(**model.keywords(2), mask=torch.ones(1))


def test_random_numbers_go_on_as_if_nothing_had_run() -> None:
    """Also where the model itself draws some in evaluation mode, and has to be run on real data to be recorded."""

    class Drawing(nets.DataDependent):
        def run(self, x: Tensor) -> Tensor:
            return super().run(F_dropout(x)) + 0 * torch.rand_like(x)

    def F_dropout(x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, True)

    model = nets.seeded(Drawing)
    state = torch.get_rng_state()
    for scheme in ("adabin", "ienet", "binaryconnect_stochastic"):
        binarize.convert(model, scheme, example_input=nets.pictures(4))
        assert torch.equal(torch.get_rng_state(), state), scheme


def test_the_same_seed_gives_the_same_model() -> None:
    first, second = (
        binarize.convert(pictures_net(), "ienet", example_input=nets.pictures(4), seed=3) for _ in "ab"
    )
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))


def test_a_made_up_example_calibrates_nothing_and_the_report_says_so() -> None:
    model = pictures_net()
    converted = binarize.convert(model, "adabin", input_shape=(2, 3, 16, 16))
    assert converted._binarize.plan.capture.calibration == Calibrated(CalibrationState.NO_IMAGES)
    noise = binarize.convert(model, "adabin", example_input=torch.randn(4, 3, 16, 16))
    state = noise._binarize.plan.capture.calibration
    assert state.state is CalibrationState.NOISE and state.noise.startswith("white noise")
    off = binarize.convert(model, "adabin", example_input=nets.pictures(4), calibrate=False)
    assert off._binarize.plan.capture.calibration == Calibrated(CalibrationState.NOT_ASKED)
    images = binarize.convert(model, "adabin", example_input=nets.pictures(4))
    assert images._binarize.plan.capture.calibration == Calibrated(CalibrationState.DONE, 4)
    assert all(isinstance(m, BinaryLayer) for m in (noise.features[2], off.features[2]))


@pytest.mark.parametrize(
    "example, calibrated, measured_on",
    [
        (nets.pictures(8), None, "calibration images"),
        (nets.pictures(8), False, "example images"),
        (torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), None, "noise"),
        (None, None, "made-up noise"),
    ],
)
def test_shares_of_plus_one_are_always_measured_and_say_on_what(
    example: Any, calibrated: Any, measured_on: str
) -> None:
    model = pictures_net()
    converted: Any = binarize.convert(
        model, "bireal", example_input=example, input_shape=(2, 3, 16, 16), calibrate=calibrated
    )
    report = converted.report
    assert report.measured_on == measured_on
    for row in report.rows:
        assert (row.live is not None) == row.binary
    # Noise tells nothing of real images: no layer is called dead for it, and the report says so.
    assert any("measured on" in hint for hint in report.hints) == ("noise" in measured_on)
    assert "noise" not in measured_on or not any(row.warnings for row in report.rows)


def test_a_report_shows_itself_in_every_form(tmp_path: Path) -> None:
    report = binarize.plan(pictures_net(), "adabin", example_input=nets.pictures(2)).report
    assert report.to_html(tmp_path / "r.html") == (tmp_path / "r.html").read_text() == report._repr_html_()
    assert report.to_markdown(tmp_path / "r.md") == (tmp_path / "r.md").read_text()
    for text in (report.to_html(), report.to_markdown(), str(report)):
        assert "features.2" in text


@pytest.mark.parametrize(
    "scheme", ["adabin", "bireal", "bnn", "dorefa", "ienet", "reactnet", "xnor", "xnorpp"]
)
def test_a_converted_model_can_be_traced_symbolically(scheme: str) -> None:
    """As torchvision's feature extraction does; each binary layer is one node."""
    model, x = nets.seeded(nets.BasicBlocks), nets.pictures(4)
    converted = binarize.convert(model, scheme, shortcuts="every", example_input=x).eval()
    traced = torch.fx.symbolic_trace(converted)
    called = {str(node.target) for node in traced.graph.nodes if node.op == "call_module"}
    assert set(binary_names(converted)) <= called
    with torch.no_grad():
        assert torch.equal(traced(x), converted(x))


@pytest.mark.parametrize(
    ("layers", "shortcuts", "hinted"), [(11, None, True), (5, None, False), (11, "missing", False)]
)
def test_deep_plain_networks_are_told_of_shortcuts(layers: int, shortcuts: str | None, hinted: bool) -> None:
    chain = [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)) for _ in range(layers)]
    plan = binarize.plan(
        nn.Sequential(*chain), "bireal", example_input=torch.zeros(1, 16, 8, 8), shortcuts=shortcuts
    )
    told = [hint for hint in plan.report.hints if "--add-shortcuts" in hint]
    assert bool(told) == hinted
    if told:
        assert told[0].startswith(f"{layers - 2} binary convolutions")


@pytest.mark.parametrize(
    "net, scheme",
    [
        *(
            (net, scheme)
            for net in (nets.ConvBnRelu, nets.BasicBlocks, nets.Bottlenecks)
            for scheme in binarize.builtin_rule_sets()
            # Weights alone; and a new norm behind a ReLU, which needs images or a step of training.
            if not scheme.startswith(("binaryconnect", "bayesbinn")) and scheme not in ("bwn", "xnor_paper")
        ),
        (nets.ConvRelu, "reactnet"),
    ],
)
@pytest.mark.sampled
def test_without_a_single_image_no_binary_layer_reads_a_constant(net: type[nets.Net], scheme: str) -> None:
    converted = binarize.convert(nets.seeded(net), scheme, input_shape=(1, 3, 16, 16))
    shares = measure_liveness(converted, [((nets.pictures(12),), {})])
    assert shares
    assert {name: share for name, share in shares.items() if not 0.02 < share.share_plus < 0.98} == {}
