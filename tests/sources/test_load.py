"""What `load` gives for each way of naming a model, and what it refuses."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import binarize
from binarize.errors import BinarizeError, SourceError, UntrustedSourceError, UsageError
from binarize.sources import build, load

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * 6 * 6, num_classes)

    def forward(self, x):
        return self.head(self.conv(x).flatten(1))
"""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def net(tmp_path: Path) -> str:
    """`FILE.py:Net`: a class of the user's own, for 8x8 images."""
    (tmp_path / "own_net.py").write_text(NET)
    return f"{tmp_path / 'own_net.py'}:Net"


def same_tensors(first: nn.Module, second: nn.Module) -> None:
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


def test_torchvision_builder_gives_module_and_known_input() -> None:
    source = load("torchvision:squeezenet1_1")
    assert (source.kind, source.input_shape, source.input_shape_from) == (
        "torchvision",
        (1, 3, 224, 224),
        "library",
    )
    assert source.class_path == "torchvision.models.squeezenet.SqueezeNet"
    assert (source.builder, source.weights, source.sha256) == ("torchvision:squeezenet1_1", None, None)
    assert [tuple(x.shape) for x in source.inputs()] == [(1, 3, 224, 224)]


def test_timm_builder_takes_the_shape_of_its_own_configuration() -> None:
    source = load("timm:test_resnet", num_classes=7)
    assert (source.kind, source.input_shape) == ("timm", (1, 3, 160, 160))
    assert source.module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(
    "name", ["torchvision:squeezenet1_1", "torchvision:regnet_y_400mf", "timm:test_resnet"]
)
def test_meta_holds_no_data(name: str) -> None:
    source = load(name, meta=True)
    assert all(tensor.is_meta for tensor in source.module.state_dict().values())
    assert all(x.is_meta for x in source.inputs())


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:squeezenet1_1",
        "torchvision:lraspp_mobilenet_v3_large",
        "torchvision:fcos_resnet50_fpn",
        "timm:test_resnet.r160_in1k",
    ],
)
def test_builders_do_not_touch_the_network(name: str, no_network: None) -> None:
    load(name, meta=True)


def test_build_repeats_what_was_recorded() -> None:
    source = load("torchvision:squeezenet1_1(dropout=0.25)", num_classes=4)
    assert source.builder is not None
    again = build(source.builder, num_classes=source.num_classes)
    assert again.state_dict().keys() == source.module.state_dict().keys()
    assert again(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    assert [part.p for part in again.modules() if isinstance(part, nn.Dropout)] == [0.25]


def test_module_is_taken_as_it_is() -> None:
    module = nn.Sequential(nn.Linear(7, 3)).eval().double()
    source = load(module)
    assert (source.kind, source.module, source.input_shape) == ("module", module, (1, 7))
    assert source.inputs()[0].dtype == torch.float64
    assert not module.training


def test_unknown_input_is_asked_for() -> None:
    source = load(nn.ReLU())
    assert (source.input_shape, source.input_shape_from) == (None, "unknown")
    with pytest.raises(UsageError, match=r"give its shape with the batch, as in --input-shape 1,3,224,224"):
        source.inputs()
    assert load(nn.ReLU(), input_shape=(2, 5)).inputs()[0].shape == (2, 5)


@pytest.mark.parametrize("shape", [(), (0, 3), (1, -3), (1.5, 2)])
def test_impossible_input_shape_is_a_usage_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="sizes with the batch first"):
        load(nn.Linear(2, 2), input_shape=shape)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel])
def test_wrappers_are_taken_off(wrap) -> None:  # type: ignore[no-untyped-def]
    source = load(wrap(nn.Linear(2, 2)))
    assert type(source.module) is nn.Linear
    assert "took the model out of its" in source.notes[0]


def test_whole_module_loads_with_exact_weights(tmp_path: Path) -> None:
    module = load("timm:test_resnet").module
    torch.save(module, tmp_path / "net.pt")
    source = load(str(tmp_path / "net.pt"))
    assert (source.kind, type(source.module), source.input_shape) == (
        "pickle",
        type(module),
        (1, 3, 160, 160),
    )
    same_tensors(source.module, module)


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    expected = hashlib.sha256((tmp_path / "net.pt").read_bytes()).hexdigest()
    assert load(str(tmp_path / "net.pt")).sha256 == expected


@pytest.mark.parametrize("key", ["model", "net", "ema"])
def test_module_inside_a_checkpoint_is_found(key: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, key: nn.Linear(2, 2)}, tmp_path / "net.pt")
    source = load(str(tmp_path / "net.pt"))
    assert type(source.module) is nn.Linear
    assert source.notes == (f"took the model under {key!r}",)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_kind_is_read_from_the_bytes(suffix: str, tmp_path: Path) -> None:
    module = load("timm:test_resnet").module
    save_file(module.state_dict(), tmp_path / f"net{suffix}")
    source = load(str(tmp_path / f"net{suffix}"), arch="timm:test_resnet")
    assert (source.kind, source.arch, source.builder) == (
        "safetensors",
        "timm:test_resnet",
        "timm:test_resnet",
    )
    same_tensors(source.module, module)


@pytest.mark.parametrize("meta", [True, False])
def test_what_torch_saved_is_read_under_any_suffix(meta: bool, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    torch.save(module, tmp_path / "net.safetensors")
    found = load(str(tmp_path / "net.safetensors"), meta=meta).module
    assert [p.shape for p in found.parameters()] == [p.shape for p in module.parameters()]


@pytest.mark.parametrize("file", ["whole.pt", "net/model.safetensors", "net/packed.safetensors"])
def test_what_binarize_made_is_refused_as_binarized(file: str, tmp_path: Path) -> None:
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)]
    converted = binarize.convert(nn.Sequential(*layers), "bnn", example_input=torch.zeros(1, 3, 16, 16))
    torch.save(converted, tmp_path / "whole.pt")
    binarize.save(converted, tmp_path / "net")
    binarize.pack(tmp_path / "net")
    for arch in (None, "torchvision:resnet18"):
        with pytest.raises(BinarizeError, match=r"already binarized.*float model"):
            load(str(tmp_path / file), arch=arch)


@pytest.mark.parametrize(
    "model, said", [(None, "a NoneType"), (7, "an? int"), (nn.ReLU, r"ReLU is a class.*ReLU\(")]
)
def test_what_is_no_model_is_a_usage_error(model: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(model)


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict_goes_into_the_users_own_class(zipped: bool, net: str, tmp_path: Path) -> None:
    module = load(net).module
    torch.save(module.state_dict(), tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    source = load(str(tmp_path / "net.pt"), arch=net)
    assert (source.kind, source.input_shape, source.builder) == ("state_dict", (1, 1, 8, 8), None)
    same_tensors(source.module, module)


def test_architecture_named_by_the_checkpoint_is_used_and_said(tmp_path: Path) -> None:
    state = build("timm:test_resnet").state_dict()
    torch.save({"arch": "test_resnet", "version": 2, "state_dict": state}, tmp_path / "net.pt")
    source = load(str(tmp_path / "net.pt"))
    assert source.arch == "timm:test_resnet"
    assert "took the architecture timm:test_resnet that the checkpoint names" in source.notes


def test_number_of_classes_is_read_from_the_file_and_can_be_changed(tmp_path: Path) -> None:
    module = build("torchvision:squeezenet1_1", num_classes=15)
    torch.save(module.state_dict(), tmp_path / "net.pt")
    kept = load(str(tmp_path / "net.pt"), arch="torchvision:squeezenet1_1")
    same_tensors(kept.module, module)
    assert (kept.num_classes, kept.builder) == (15, "torchvision:squeezenet1_1")
    changed = load(str(tmp_path / "net.pt"), arch="torchvision:squeezenet1_1", num_classes=3)
    assert changed.module(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert "new random head of 3 classes: classifier.1" in changed.notes
    torch.testing.assert_close(
        changed.module.features.state_dict(), module.features.state_dict(), rtol=0, atol=0
    )


def test_foreign_class_is_refused_by_name_unless_its_architecture_is_given(net: str, tmp_path: Path) -> None:
    module = load(net).module
    path = str(tmp_path / "net.pt")
    torch.save(module, path)
    with pytest.raises(
        UntrustedSourceError, match=r"import own_net\w*\.Net, which is beyond the modules of torch\.nn"
    ) as caught:
        load(path)
    assert "--arch module.py:make_model" in str(caught.value)
    assert "--trust-pickle" in str(caught.value)
    same_tensors(load(path, arch=net).module, module)
    trusted = load(path, trust_pickle=True)
    assert type(trusted.module) is type(module)
    assert trusted.notes == (f"trusted the code that the file names: {trusted.class_path}",)


def test_foreign_objects_beside_a_state_dict_are_left_out(net: str, tmp_path: Path) -> None:
    module = load(net).module
    torch.save({"state_dict": module.state_dict(), "callback": module}, tmp_path / "net.pt")
    source = load(str(tmp_path / "net.pt"), arch=net)
    same_tensors(source.module, module)
    assert any(note.startswith("left out what the file has of own_net") for note in source.notes)


@pytest.mark.parametrize(
    ("spec", "options", "error", "message"),
    [
        ("torchvision:resnet81", {}, SourceError, "unknown torchvision model 'resnet81'; nearest: resnet18"),
        ("timm:test_resnett", {}, SourceError, "unknown timm model 'test_resnett'; nearest: test_resnet"),
        ("torchvision:convnext_atto", {}, SourceError, "nearest: convnext_"),
        ("torchvision:", {}, SourceError, "names no model"),
        ("torchvision:quantized_resnet18", {}, SourceError, "its float model is torchvision:resnet18"),
        ("torchvison:vgg11", {}, SourceError, 'did you mean "torchvision"?'),
        ("vgg11", {}, SourceError, "no such file; did you mean torchvision:vgg11 or timm:vgg11?"),
        ("torchvision:resnet18", {"weights": "V9"}, UsageError, "no weights 'V9'; known: IMAGENET1K_V1"),
        ("timm:test_resnet", {"weights": "V9"}, UsageError, "no weights 'V9'; known: r160_in1k"),
        ("timm:test_resnet.V9", {}, UsageError, "no weights 'V9'; known: r160_in1k"),
        ("torchvision:resnet18", {"num_classes": 0}, UsageError, "num_classes is 0"),
        ("torchvision:resnet18", {"arch": "timm:resnet18"}, UsageError, "--arch has no meaning"),
        ("torchvision:resnet18(depth=3)", {}, UsageError, "unexpected keyword argument 'depth'"),
        ("torchvision:resnet18(open('x'))", {}, UsageError, "arguments must be literals"),
        ("torchvision:raft_small", {"num_classes": 3}, UsageError, "num_classes"),
        ("https://example.org/net.pt", {}, SourceError, "nothing is fetched from an address"),
        ("", {}, UsageError, "no model is named"),
        ("hf-hub:org/name", {}, UsageError, "add --weights default to allow that"),
        ("a\0b", {}, SourceError, "not a name that a file can have"),
        ("a" * 5000, {}, SourceError, "not a name that a file can have"),
    ],
)
def test_wrong_names_say_what_was_meant(
    spec: str, options: dict[str, object], error: type[BinarizeError], message: str, no_network: None
) -> None:
    with pytest.raises(error) as caught:
        load(spec, **options)  # type: ignore[arg-type]
    assert type(caught.value) is error
    assert message in str(caught.value)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "model_best.pt").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"no such file; nearest there: model_best\.pt"):
        load(str(tmp_path / "model_bst.pt"))
    with pytest.raises(SourceError, match="there is no folder"):
        load(str(tmp_path / "nowhere" / "model.pt"))


def test_folder_of_timm_loads_its_weights(tmp_path: Path, no_network: None) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model("test_resnet", num_classes=5)
    timm.models.save_for_hf(module, tmp_path / "saved", model_config={"num_classes": 5})
    with pytest.raises(SourceError, match="name it local-dir:"):
        load(str(tmp_path / "saved"))
    source = load(f"local-dir:{tmp_path / 'saved'}")
    assert (source.kind, source.builder, source.input_shape) == ("timm", None, (1, 3, 160, 160))
    same_tensors(source.module, module)


@pytest.mark.parametrize(
    "builder", ["test_vit(num_heads=0)", "test_vit(patch_size=0)", "convnext_tiny(depths=[], dims=[])"]
)
def test_arguments_that_a_builder_stumbles_over_are_refused_in_words(builder: str) -> None:
    with pytest.raises(UsageError, match=f"timm:{builder.partition('(')[0]}"):
        load(f"timm:{builder}", meta=True)
