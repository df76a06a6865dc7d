"""The laws that hold for every network and every conversion, on one tiny network a mechanism."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import binarize
from binarize.attention.explicit import explicit_attentions
from binarize.capture import TraceError, capture, open_container, trace_container
from binarize.errors import SourceError
from binarize.layers.layer import BinaryLayer
from binarize.passes.generated import give_forward

Converted = Callable[..., nn.Module]
every_net = pytest.mark.parametrize("name", list(nets.ALL))
# A mechanism of rewriting each, for laws that are slow to check.
FEW = [
    "ConvRelu",
    "PreActivation",
    "BasicBlocks",
    "Dense",
    "NormActivation",
    "Tokens",
    "Keywords",
    "CalledTwice",
]
few_nets = pytest.mark.parametrize("name", FEW)


def run(model: nn.Module, seed: int = 0, n: int = 4) -> list[Tensor]:
    """The tensors of the output on n pictures; a dataclass counts by its fields."""
    assert isinstance(model, nets.Net)
    torch.manual_seed(seed)
    with torch.no_grad():
        output = model(*model.arguments(n), **model.keywords(n))
    return tensors(output)


def tensors(output: Any) -> list[Tensor]:
    """All tensors of a structure, in order."""
    output = vars(output) if hasattr(output, "__dataclass_fields__") else output
    return [value for value in pytree.tree_leaves(output) if isinstance(value, Tensor)]


def assert_equal(expected: list[Tensor], found: list[Tensor]) -> None:
    """Bit-equal."""
    assert len(expected) == len(found)
    for a, b in zip(expected, found):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def open_every_container(model: nn.Module, example: Any) -> tuple[list[str], dict[str, str]]:
    """Give every container the forward of its own unedited trace; (what was opened, what could not be and why)."""
    args, kwargs = ((), example) if isinstance(example, dict) else (example, {})
    graph = capture(model, args, kwargs)
    opened, refused = [], {}
    for path in [path for path, _ in graph.evaluation.arguments]:
        try:
            found = open_container(graph, graph.evaluation, path)
        except TraceError as error:
            refused[path] = str(error)
            continue
        container = model.get_submodule(path)
        give_forward(container, trace_container(container, found.concrete, found.opened))
        opened.append(path)
    return opened, refused


# --- 1: nothing changes where nothing is decided


@every_net
def test_opening_every_container_changes_no_bit(name: str) -> None:
    model = nets.seeded(nets.ALL[name])
    explicit_attentions(model)  # the form in which attention is recorded
    edited = copy.deepcopy(model)
    opened, refused = open_every_container(edited, nets.example(model))
    encoder = ["encoder", *(f"encoder.layers.{i}{part}" for i in (0, 1) for part in ("", ".self_attn"))]
    hard = {
        "AuxiliaryHead": [""],
        "DataDependent": [""],
        "ShapeDependent": ["block"],
        "Encoder": encoder,
    }
    assert sorted(refused) == hard.get(name, [])
    assert opened
    assert_equal(run(model), run(edited))
    assert_equal(run(model.train()), run(edited.train()))


@every_net
def test_float_weights_in_every_binary_layer_give_the_float_network(name: str) -> None:
    """The weights pass unchanged where a binarizer would be: what else a conversion does must change nothing."""
    model = nets.seeded(nets.ALL[name])
    as_it_is = {
        "weight": "torch.nn.Identity",
        "input": None,
        "nonlinearity": None,
        "norm": "never",
        "clip": None,
    }
    everything = {"match": {"name": "**"}, "use": "bnn", "with": as_it_is}
    same = binarize.convert(
        model,
        "bnn",
        rules=[everything],
        shortcuts="never",
        example_input=nets.example(model),
        calibrate=False,
    )
    assert any(isinstance(module, BinaryLayer) for module in same.modules())
    for training in (False, True):
        for expected, found in zip(run(model.train(training)), run(same.train(training))):
            torch.testing.assert_close(expected, found, rtol=1e-5, atol=1e-5)


# --- 3 and 4: the network lives and learns


@every_net
@pytest.mark.parametrize("scheme", ["adabin", "reactnet"])
@pytest.mark.sampled
def test_signs_of_pictures_are_not_constant(name: str, scheme: str, converted: Converted) -> None:
    report = converted(name, scheme).report
    shares = {row.name: row.live for row in report.rows if row.action == "binarize"}
    for layer, live in shares.items():
        if layer == "aux_conv":  # runs in training mode only
            continue
        assert live is not None, layer
        assert 0.02 < live.share_plus < 0.98, layer
        # A vector of a batch of eight gives a channel eight signs only, which are often alike.
        if live.constant_channels > 0.15:
            assert name in ("ConvRelu", "Mlp") and report.warnings, layer


@every_net
@pytest.mark.parametrize("scheme", ["adabin", "reactnet"])
@pytest.mark.sampled
def test_first_gradients_are_finite_and_none_dies(name: str, scheme: str, converted: Converted) -> None:
    float_model, binary_model = nets.seeded(nets.ALL[name]).train(), converted(name, scheme).train()
    theirs, ours = gradients(float_model), gradients(binary_model)
    for parameter, gradient in ours.items():
        assert gradient is not None, parameter
        assert torch.isfinite(gradient).all(), parameter
        if theirs.get(parameter) is not None and theirs[parameter].abs().max() > 0:
            assert gradient.abs().max() > 0, parameter


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    assert isinstance(model, nets.Net)
    torch.manual_seed(0)
    sum(
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
        for out in tensors(model(*model.arguments(8), **model.keywords(8)))
    ).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


# --- the model given is never touched


@every_net
@pytest.mark.sampled(20)
def test_the_float_model_stays_as_it_was(name: str) -> None:
    model = nets.seeded(nets.ALL[name]).train()
    model.head = getattr(model, "head", nn.Identity()).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    attributes = {path: sorted(vars(module)) for path, module in model.named_modules()}
    state = torch.get_rng_state()
    converted = binarize.convert(model, "adabin", add_shortcuts=True, example_input=nets.example(model))
    assert torch.equal(state, torch.get_rng_state())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert [module.training for module in model.modules()] == modes
    assert {path: sorted(vars(module)) for path, module in model.named_modules()} == attributes
    assert all(p.grad is None for p in model.parameters())
    mine = {t.untyped_storage().data_ptr() for t in model.state_dict().values() if t.numel()}
    theirs = {t.untyped_storage().data_ptr() for t in converted.state_dict().values() if t.numel()}
    assert not mine & theirs
    assert not set(model.modules()) & set(converted.modules())
    assert type(converted).__mro__[1] is type(model) or type(converted) is type(model)
    kept = {path: module.training for path, module in model.named_modules()}
    assert all(converted.get_submodule(path).training == training for path, training in kept.items())


@every_net
def test_float_parameters_keep_name_and_value(name: str, converted: Converted) -> None:
    model = nets.seeded(nets.ALL[name])
    found = dict(converted(name).named_parameters())
    for key, value in model.named_parameters():
        layer, _, leaf = key.rpartition(".")
        # The bias of a layer with a new norm is that norm's.
        key = key if key in found or leaf != "bias" else f"{layer}.norm.bias"
        # An attention's first projection is a layer of its own.
        for leaf, place in (("weight", "weight"), ("bias", "norm.bias")):
            key = key if key in found else key.replace(f".in_proj_{leaf}", f".in_proj.{place}")
        assert torch.equal(found[key], value), key


# --- 6: everything one does with a module


@every_net
def test_deepcopy_pickle_and_state_dict_carry_it_over(name: str, converted: Converted) -> None:
    model = converted(name)
    expected = run(model)
    copies = [copy.deepcopy(model)]
    if name != "Parametrized":  # which torch itself does not pickle
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        copies.append(torch.load(file, weights_only=False))
    other = converted(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(model.state_dict())
    for same in (*copies, other):
        assert type(same) is type(model)
        assert_equal(expected, run(same))
    model.train()
    assert_equal(run(copy.deepcopy(model)), run(model))


@few_nets
@pytest.mark.sampled(4)
def test_export_computes_the_same(name: str, converted: Converted) -> None:
    model = converted(name)
    assert isinstance(model, nets.Net)
    exported = torch.export.export(model, model.arguments(), model.keywords())
    found = tensors(exported.module()(*model.arguments(), **model.keywords()))
    for expected, output in zip(run(model), found):
        torch.testing.assert_close(expected, output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["BasicBlocks", *(pytest.param(n, marks=pytest.mark.slow) for n in FEW if n != "BasicBlocks")]
)
@pytest.mark.filterwarnings("error::UserWarning:torch.nn")
def test_compile_gives_one_graph_with_the_same_gradients(name: str, converted: Converted) -> None:
    model, plain = converted(name).train(), converted(name).train()
    for module in [*model.modules(), *plain.modules()]:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    torch._dynamo.reset()
    expected = gradients(plain)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert isinstance(model, nets.Net)
    found = tensors(compiled(*model.arguments(8), **model.keywords(8)))
    sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in found).backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-3, atol=1e-3, msg=key)


@every_net
@pytest.mark.sampled(20)
def test_autocast_and_channels_last_run_and_train(name: str, converted: Converted) -> None:
    model = converted(name).train()
    if any(t.dim() == 4 for t in pytree.tree_leaves(nets.example(model))):
        model = model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(model)
    assert all(torch.isfinite(g).all() for g in found.values() if g is not None)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("name", ["BasicBlocks", "Tokens", "FeedsFloat"])
def test_data_parallel_training_uses_every_parameter(name: str, converted: Converted, tmp_path: Path) -> None:
    """DistributedDataParallel raises in the second step where a parameter of the first got no gradient."""
    distributed = torch.distributed
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(converted(name).train())
        for _ in range(3):
            model(nets.pictures(4)).square().sum().backward()
    finally:
        distributed.destroy_process_group()


# --- 8: once is enough


def test_converting_twice_is_refused(converted: Converted) -> None:
    with pytest.raises(SourceError, match="already binarized with scheme 'adabin'"):
        binarize.convert(converted("ConvRelu"), "adabin", input_shape=(1, 3, 16, 16))


def test_a_part_of_a_converted_model_is_refused_too(converted: Converted) -> None:
    with pytest.raises(SourceError, match="already binarized: 2 is"):
        binarize.convert(converted("ConvRelu").features, "adabin", input_shape=(1, 3, 16, 16))  # type: ignore[arg-type]
