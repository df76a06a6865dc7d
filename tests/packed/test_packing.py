"""Packed and loaded again: bit-equal for every scheme, of the promised size, or refused with a reason."""

from __future__ import annotations

import copy
import hashlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from forks import forked
from test_laws import assert_equal, run
from torch import nn

import binarize
from binarize.conversion.conversion import conversion_of
from binarize.errors import CheckError, SourceError, UsageError
from binarize.layers.layer import BinaryLayer
from binarize.packed.drift import measure_drift
from binarize.packed.file.format import PackedModel, read_file, write_file
from binarize.packed.file.packed_form import Packing
from binarize.packed.freeze import frozen_record, pack_layers
from binarize.packed.frozen.layer import FrozenLayer
from binarize.packed.layers import PackedLayer
from binarize.planning.cost import totals

Converted = Callable[..., nn.Module]
# Share of inputs on which a frozen model names the trained one's class (law 10).
AGREEMENT = 0.995


def packed_in_memory(model: nn.Module) -> nn.Module:
    return pack_layers(binarize.freeze(model))


def saved(model: nn.Module, folder: Path) -> Path:
    return binarize.save(model, folder / "net")


# --- there and back


@pytest.mark.parametrize(
    "name", ["Mlp", "Decoder", "TwoNames", "NormActivation", "Keywords", "Structured", "Video"]
)
def test_packed_and_loaded_is_bit_equal(name: str, converted: Converted, tmp_path: Path) -> None:
    model = converted(name)
    packing = binarize.pack(saved(model, tmp_path), model=nets.ALL[name]())
    loaded = binarize.load_packed(packing.path, model=nets.ALL[name]())
    assert_equal(run(packed_in_memory(model)), run(loaded))
    binary = [path for path, module in model.named_modules() if isinstance(module, BinaryLayer)]
    assert packing.layers == len(binary)
    assert all(type(loaded.get_submodule(path)) is PackedLayer for path in binary)


@pytest.mark.parametrize("scheme", nets.PACKABLE)
@pytest.mark.sampled(8)
def test_every_scheme_is_packed(scheme: str, converted: Converted, tmp_path: Path) -> None:
    model = converted("BasicBlocks", scheme)
    packing = binarize.pack(saved(model, tmp_path), model=nets.BasicBlocks())
    loaded = binarize.load_packed(tmp_path / "net", model=nets.BasicBlocks())
    assert_equal(run(binarize.freeze(model)), run(loaded))
    names = {path.name for path in (tmp_path / "net").iterdir()}
    assert {"packed.safetensors", "model.safetensors"} <= names
    assert not any(name.startswith(".") for name in names)
    assert packing.frozen.input_shapes == ((8, 3, 16, 16),)
    assert frozen_record(loaded) == packing.frozen


@pytest.mark.parametrize("rest", ["fp16", "int8"])
def test_a_rounded_rest_is_what_the_file_says_and_close_by(
    rest: Any, converted: Converted, tmp_path: Path
) -> None:
    model = converted("BasicBlocks", "bireal")
    folder = saved(model, tmp_path)
    binarize.pack(folder, model=nets.BasicBlocks())
    exact = binarize.load_packed(folder, model=nets.BasicBlocks())
    packing = binarize.pack(folder, rest=rest, model=nets.BasicBlocks(), force=True)
    rounded = binarize.load_packed(folder, model=nets.BasicBlocks())
    error = (rounded.stem.weight - exact.stem.weight).abs().max() / exact.stem.weight.abs().max()
    assert 0 < error < {"fp16": 2**-10, "int8": 1 / 200}[rest]
    assert torch.equal(rounded.blocks[0].conv1.scale, exact.blocks[0].conv1.scale)
    assert packing.sizes.file < 0.95 * os.path.getsize(folder / "model.safetensors")
    again = binarize.load_packed(folder, model=nets.BasicBlocks())
    assert_equal(run(rounded), run(again))


@pytest.mark.parametrize("rest", ["fp32", "fp16", "int8"])
def test_the_drift_told_is_that_of_the_file(rest: Any, converted: Converted, tmp_path: Path) -> None:
    model = converted("BasicBlocks", "reactnet")
    packing = binarize.pack(saved(model, tmp_path), rest=rest, model=nets.BasicBlocks())
    example = conversion_of(model).source.inputs(model, batch=packing.drift.inputs)
    loaded = binarize.load_packed(tmp_path / "net", model=nets.BasicBlocks())
    assert packing.drift == measure_drift(model, loaded, *example)
    assert (packing.drift.turned > 0) == (rest == "int8") or rest == "fp16"


@pytest.mark.parametrize("change", ["half", "double", "channels_last"])
def test_types_and_order_in_memory_come_back(change: str, converted: Converted, tmp_path: Path) -> None:
    model = converted("BasicBlocks", "bireal")
    dtype = {"half": torch.float16, "double": torch.float64}.get(change)
    if dtype is not None:
        model.to(dtype)
    else:
        model.to(memory_format=torch.channels_last)
    folder = saved(model, tmp_path)
    binarize.pack(folder, model=nets.BasicBlocks())
    loaded, expected = binarize.load_packed(folder, model=nets.BasicBlocks()), packed_in_memory(model)
    assert loaded.stem.weight.dtype == model.stem.weight.dtype
    assert loaded.stem.weight.stride() == model.stem.weight.stride()
    x = nets.pictures(4).to(dtype or torch.float32)
    with torch.no_grad():
        assert torch.equal(loaded(x), expected(x))
        assert loaded(x).dtype == x.dtype


def test_what_is_loaded_only_infers(converted: Converted, tmp_path: Path) -> None:
    model = converted("BasicBlocks").train()
    binarize.pack(saved(model, tmp_path), model=nets.BasicBlocks())
    loaded = binarize.load_packed(tmp_path / "net", model=nets.BasicBlocks())
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert conversion_of(loaded) is None and not hasattr(loaded, "report")
    assert conversion_of(model) is not None and hasattr(model, "report")
    with pytest.raises(UsageError, match=r"not made by binarize\.convert"):
        binarize.save(loaded, tmp_path / "again")


def test_a_named_builder_needs_nothing_but_the_folder(tmp_path: Path) -> None:
    model = binarize.convert("timm:test_resnet", "bnn", num_classes=5, input_shape=(1, 3, 32, 32))
    binarize.pack(saved(model, tmp_path))
    loaded = binarize.load_packed(tmp_path / "net")
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(x), packed_in_memory(model)(x))


def test_ones_own_class_needs_the_float_model(converted: Converted, tmp_path: Path) -> None:
    model = converted("BasicBlocks")
    folder = saved(model, tmp_path)
    with pytest.raises(SourceError, match="the float model's class is your own"):
        binarize.pack(folder)
    factory = f"{nets.__file__}:BasicBlocks"
    binarize.pack(folder, source=factory)
    assert_equal(run(binarize.load_packed(folder, source=factory)), run(packed_in_memory(model)))


ALONE = """
import hashlib, sys
import torch, binarize
model = binarize.load_packed(sys.argv[1])
generator = torch.Generator().manual_seed(3)
with torch.no_grad():
    output = model(torch.randn(2, 3, 16, 16, generator=generator))
print(hashlib.sha256(output.numpy().tobytes()).hexdigest())
print(sorted({name.split(".")[0] for name in sys.modules} & {"nets", "torchvision", "timm", "pytorch_lightning"}))
print([name for name in sys.modules if name.startswith(("binarize.training", "binarize.convert"))])
"""


def test_the_file_alone_is_the_model_of_ones_own_class(converted: Converted, tmp_path: Path) -> None:
    model = converted("BasicBlocks", "reactnet")
    packing = binarize.pack(saved(model, tmp_path), model=nets.BasicBlocks())
    assert packing.needs is None
    (tmp_path / "empty").mkdir()
    moved = shutil.copy(packing.path, tmp_path / "empty" / "mine.safetensors")
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = hashlib.sha256(packed_in_memory(model)(x).numpy().tobytes()).hexdigest()
    root = str(Path(binarize.__file__).parents[1])
    said = subprocess.run(
        [sys.executable, "-c", ALONE, str(moved)], capture_output=True, text=True, cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )  # fmt: skip
    assert said.stdout.splitlines() == [expected, "[]", "[]"], said.stdout + said.stderr
    # With the class, an object of the class.
    mine = binarize.load_packed(packing.path, model=nets.BasicBlocks())
    assert isinstance(mine, nets.BasicBlocks)


def test_where_the_graph_is_not_whole_the_folder_is_needed(converted: Converted, tmp_path: Path) -> None:
    model = converted("DataDependent")
    packing = binarize.pack(saved(model, tmp_path), model=nets.DataDependent())
    assert packing.needs is not None and "cannot be traced as a whole" in packing.needs
    assert_equal(
        run(packed_in_memory(model)), run(binarize.load_packed(packing.path, model=nets.DataDependent()))
    )
    (tmp_path / "alone").mkdir()
    moved = shutil.copy(packing.path, tmp_path / "alone")
    with pytest.raises(SourceError, match=r"holds no binarize\.json"):
        binarize.load_packed(moved, model=nets.DataDependent())


@pytest.mark.parametrize("alone", [True, False])
def test_a_packed_model_is_fused_for_one_size_and_any_batch(
    alone: bool, converted: Converted, tmp_path: Path
) -> None:
    model = converted("BasicBlocks")
    packing = binarize.pack(saved(model, tmp_path), model=nets.BasicBlocks())
    packed = binarize.load_packed(packing.path, model=None if alone else nets.BasicBlocks())
    (x,) = nets.BasicBlocks().arguments(3)
    fused = binarize.fuse(packed, x)
    kinds = {type(module).__name__ for module in fused.modules()}
    assert "FusedConv" in kinds and "PackedLayer" not in kinds
    for images in (x, torch.cat([x, x + 0.01])):
        torch.testing.assert_close(fused(images), packed(images), rtol=1e-4, atol=1e-4)


def test_only_packed_models_are_fused(converted: Converted) -> None:
    with pytest.raises(UsageError, match=r"no packed layer; give what `binarize\.load_packed` returns"):
        binarize.fuse(converted("BasicBlocks"), torch.zeros(1, 3, 16, 16))


class Remembers(nets.Body):
    """Its Python code changes with the number of calls: no trace of it is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.sign = nets.conv(), 1.0

    def run(self, x: torch.Tensor) -> torch.Tensor:
        batch = torch.jit.is_scripting() or isinstance(x, torch.Tensor)
        return self.conv1(torch.relu(x)) * (2.0 if batch else 3.0)


def test_a_trace_that_is_not_the_model_is_not_stored(tmp_path: Path) -> None:
    model = nets.seeded(Remembers)
    binary = binarize.convert(model, "bnn", example_input=nets.example(model))
    packing = binarize.pack(saved(binary, tmp_path), model=model)
    assert packing.needs == "its trace computes something else than the model"
    assert_equal(run(packed_in_memory(binary)), run(binarize.load_packed(tmp_path / "net", model=model)))


def test_a_layer_that_cannot_be_packed_keeps_its_latent_weight(tmp_path: Path) -> None:
    mapped = {"input": "xnor.MappedSign"}
    model = nets.seeded(nets.ConvBnRelu)
    rules = [{"id": "map", "match": {"name": "layers.3"}, "use": "bnn", "with": mapped}]
    binary = binarize.convert(model, "bnn", rules=rules, example_input=nets.example(model))
    packing = binarize.pack(saved(binary, tmp_path), model=model)
    assert packing.frozen.kept == {"layers.3": "MappedSign multiplies by a map of its input"}
    loaded = binarize.load_packed(tmp_path / "net", model=model)
    assert isinstance(loaded.layers[3], BinaryLayer) and isinstance(loaded.layers[6], PackedLayer)
    assert_equal(run(loaded), run(packed_in_memory(binary)))


# --- sizes


def resnet18(
    scheme: str, classes: int, folder: Path, **options: Any
) -> tuple[nn.Module, Callable[..., Packing]]:
    """A ResNet-18 converted and saved, and what packs it."""
    from torchvision.models import resnet18 as build

    torch.manual_seed(0)
    model = build(num_classes=classes)
    binary = binarize.convert(model, scheme, input_shape=(1, 3, 32, 32), **options)
    saved(binary, folder)
    return binary, lambda **more: binarize.pack(folder / "net", model=model, force=True, **more)


@pytest.mark.parametrize(
    ("scheme", "mebibytes"), [("bnn", 1.45), pytest.param("adabin", 1.5, marks=pytest.mark.slow)]
)
def test_resnet18_of_15_classes(scheme: str, mebibytes: float, tmp_path: Path) -> None:
    binary, pack = resnet18(scheme, 15, tmp_path, binarize=["**.downsample.0"])
    sizes = pack().sizes
    assert sizes.file <= mebibytes * 2**20
    assert 0 < sizes.over_theory <= 0.01
    plan = conversion_of(binary).plan  # type: ignore[union-attr]
    counted = totals(plan.decisions, plan.other_params, plan.other_buffers, plan.schemes)
    assert (sizes.float_bytes, sizes.int8_bytes) == (counted.float_bytes, counted.int8_bytes)
    # What the plan counts, and the stem's running statistics; AdaBin's beta_a and alpha_a go into other numbers.
    assert sizes.theory <= counted.packed_bytes + 4 * 2 * 64
    if scheme == "bnn":
        assert sizes.theory <= 1.0005 * counted.packed_bytes


@pytest.mark.slow
def test_resnet18_of_1000_classes_with_float_downsampling(tmp_path: Path) -> None:
    _, pack = resnet18("bnn", 1000, tmp_path)
    for rest, megabytes in (("fp32", 4.3), ("fp16", 2.9), ("int8", 2.2)):
        sizes = pack(rest=rest).sizes
        assert sizes.file <= megabytes * 1e6
        assert 0 < sizes.over_theory <= 0.01


# --- drift


@pytest.mark.parametrize("name", ["ConvRelu", "BasicBlocks", "PreActivation", "Mlp"])
@pytest.mark.parametrize("scheme", ["adabin", "bireal", "ienet"])
@pytest.mark.sampled
def test_frozen_models_name_the_trained_ones_classes(scheme: str, name: str, converted: Converted) -> None:
    model = converted(name, scheme)
    x = torch.randn(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    drift = measure_drift(model, binarize.freeze(model), (x,))
    assert drift.inputs == 400 and drift.signs > 10_000
    assert drift.same_top1 is not None and drift.same_top1 >= AGREEMENT
    assert drift.turned <= 1e-4 * drift.signs


def test_turned_signs_are_counted(converted: Converted) -> None:
    model = converted("ConvBnRelu", "bnn")
    frozen = binarize.freeze(model)
    x = nets.pictures(4)
    assert measure_drift(model, frozen, (x,)).turned == 0
    frozen.layers[3].shift += 100.0  # all values behind it are positive now
    read: list[torch.Tensor] = []
    handle = model.layers[6].register_forward_pre_hook(lambda _, args: read.append(args[0]))
    drift = measure_drift(model, frozen, (x,))
    handle.remove()
    assert drift.signs == 2 * read[0].numel()
    assert drift.turned == int((read[0] < 0).sum()) > 0


# --- all or nothing


def test_a_packed_file_is_replaced_only_by_force(converted: Converted, tmp_path: Path) -> None:
    model, folder = nets.Mlp(), saved(converted("Mlp", "bnn"), tmp_path)
    first = binarize.pack(folder, model=model).path.read_bytes()
    with pytest.raises(UsageError, match=r"packed\.safetensors exists already; force=True"):
        binarize.pack(folder, model=model, rest="int8")
    assert (folder / "packed.safetensors").read_bytes() == first
    binarize.pack(folder, model=model, rest="int8", force=True)
    assert (folder / "packed.safetensors").read_bytes() != first


def test_a_full_disk_leaves_nothing_behind(converted: Converted, tmp_path: Path) -> None:
    folder = saved(converted("Mlp", "bnn"), tmp_path)
    before = sorted(os.listdir(folder))

    def fill_the_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with pytest.raises(OSError):
            binarize.pack(folder, model=nets.Mlp())

    assert os.waitpid(forked(fill_the_disk), 0)[1] == 0
    assert sorted(os.listdir(folder)) == before


def test_a_file_that_reads_back_otherwise_is_not_left(
    converted: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = nets.Mlp(), saved(converted("Mlp", "bnn"), tmp_path)

    def with_a_fault(path: Path, contents: PackedModel, rest: Any) -> None:
        other = copy.deepcopy(contents)
        next(iter(other.layers.values())).shift += 1
        write_file(path, other, rest)

    monkeypatch.setattr("binarize.packed.file.packed_form.write_file", with_a_fault)
    with pytest.raises(CheckError, match="computes something else when it is read back"):
        binarize.pack(folder, model=model)
    assert not any("packed" in name for name in os.listdir(folder))


# --- what is not the model's


def refuse(folder: Path, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        binarize.load_packed(folder, model=nets.BasicBlocks())


def test_where_there_is_no_packed_file_it_says_so(converted: Converted, tmp_path: Path) -> None:
    refuse(tmp_path / "missing", "no such file; expected one that binarize pack wrote")
    refuse(saved(converted("BasicBlocks"), tmp_path), "no such file; expected one that binarize pack wrote")


def test_a_file_without_its_folder_or_of_another_model_is_refused(
    converted: Converted, tmp_path: Path
) -> None:
    folder = saved(converted("BasicBlocks"), tmp_path)
    packed = binarize.pack(folder, model=nets.BasicBlocks()).path
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "packed.safetensors"
    alone.write_bytes(packed.read_bytes())
    refuse(alone, r"holds no binarize\.json")
    binarize.save(converted("BasicBlocks", "bnn"), folder, force=True)
    assert not packed.exists()
    packed.write_bytes(alone.read_bytes())
    refuse(packed, "belongs to another model")


def damage(path: Path, change: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]) -> None:
    """Write the file again with other content and a right sha256; `change` edits (layers, rest, about)."""
    contents = read_file(path)
    layers, rest, about = dict(contents.layers), dict(contents.rest), copy.deepcopy(dict(contents.about))
    change(layers, rest, about)
    write_file(path, PackedModel(layers, rest, about))


def rename(layers: dict[str, Any], old: str, new: str) -> None:
    layers[new] = layers.pop(old)


def narrower(layers: dict[str, Any]) -> None:
    layer = layers["blocks.0.conv1"]
    window = replace(layer.window, stride=(2, 2))
    layers["blocks.0.conv1"] = PackedLayer.from_bits(replace(layer.form, window=window), layer.bits)


DAMAGE: dict[str, Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], Any]] = {
    "a layer elsewhere": lambda layers, rest, about: rename(layers, "blocks.0.conv1", "blocks.9.conv1"),
    "a layer in a norm's place": lambda layers, rest, about: rename(layers, "blocks.0.conv1", "blocks.0.bn1"),
    "a layer at the root": lambda layers, rest, about: rename(layers, "blocks.0.conv1", ""),
    "another stride": lambda layers, rest, about: narrower(layers),
    "a layer missing": lambda layers, rest, about: layers.pop("blocks.0.conv1"),
    "a rest tensor missing": lambda layers, rest, about: rest.pop("stem.weight"),
    "a rest tensor more": lambda layers, rest, about: rest.update(evil=torch.zeros(1)),
    "a rest tensor of another shape": lambda layers, rest, about: rest.update(
        {"stem.weight": torch.zeros(1)}
    ),
    "whole numbers": lambda layers, rest, about: rest.update(
        {"stem.bias": torch.zeros(16, dtype=torch.int64)}
    ),
    "a folded layer": lambda layers, rest, about: about["folded"].update(x="stem"),
    "a folded root": lambda layers, rest, about: about["folded"].update(x=""),
    "a folded nothing": lambda layers, rest, about: about["folded"].update(x="no.such"),
    "a folded number": lambda layers, rest, about: about["folded"].update(x=1),
    "nothing folded": lambda layers, rest, about: about.pop("folded"),
    "kept is a list": lambda layers, rest, about: about.update(kept=[]),
    "front is a text": lambda layers, rest, about: about.update(front="x"),
    "strides are numbers": lambda layers, rest, about: about.update(strides={"stem.weight": 7}),
    "strides of 2^40": lambda layers, rest, about: about.update(strides={"stem.weight": [1 << 40, 1, 1, 1]}),
    "strides of 2^80": lambda layers, rest, about: about.update(strides={"stem.weight": [1 << 80, 1, 1, 1]}),
    "strides of 0": lambda layers, rest, about: about.update(strides={"stem.weight": [0, 0, 0, 0]}),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = nets.seeded(nets.BasicBlocks)
    binary = binarize.convert(model, "bnn", example_input=nets.example(model))
    folder = saved(binary, tmp_path_factory.mktemp("good"))
    binarize.pack(folder, model=model)
    return folder


@pytest.mark.parametrize("name", list(DAMAGE))
def test_contents_of_another_model_are_refused(name: str, good: Path) -> None:
    path = good / "packed.safetensors"
    content = path.read_bytes()
    try:
        damage(path, DAMAGE[name])
        refuse(good, r"packed\.safetensors: ")
    finally:
        path.write_bytes(content)


def test_the_contents_written_again_are_read(good: Path) -> None:
    damage(good / "packed.safetensors", lambda *_: None)
    loaded = binarize.load_packed(good, model=nets.BasicBlocks())
    assert any(isinstance(module, FrozenLayer) for module in loaded.modules())


def test_a_model_in_memory_is_packed_into_a_file(tmp_path: Path) -> None:
    model, x = nets.seeded(nets.BasicBlocks), nets.pictures(4)
    binary = binarize.convert(model, "bireal", example_input=x).eval()
    first = binarize.pack(binary, tmp_path / "net.safetensors")
    assert first.path == tmp_path / "net.safetensors" and first.needs is None
    with pytest.raises(UsageError, match="exists already"):
        binarize.pack(binary, tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(binarize.load_packed(first.path)(x), packed_in_memory(binary)(x))
    del model
    again = binarize.pack(binary, str(tmp_path))
    assert again.path.name == "packed.safetensors"
    assert again.path.read_bytes() == first.path.read_bytes()
    with pytest.raises(UsageError, match="needs a path"):
        binarize.pack(binary)
