"""What `load` gives for each way of naming a model."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from binarize.errors import SourceError, UntrustedSourceError
from binarize.sources import load


def test_torchvision_builder_gives_module_and_known_input() -> None:
    source = load("torchvision:squeezenet1_1")
    assert (source.kind, source.input_shape) == ("torchvision", (1, 3, 224, 224))
    assert source.class_path == "torchvision.models.squeezenet.SqueezeNet"
    assert source.builder == "torchvision:squeezenet1_1"
    assert source.weights is None
    assert [tuple(x.shape) for x in source.example_input or ()] == [(1, 3, 224, 224)]


def test_timm_builder_takes_the_shape_of_its_own_configuration() -> None:
    source = load("timm:test_resnet", num_classes=7)
    assert (source.kind, source.input_shape) == ("timm", (1, 3, 160, 160))
    assert source.module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:regnet_y_400mf", "timm:test_resnet"])
def test_meta_builders_hold_no_parameter_data(name: str) -> None:
    source = load(name, meta=True)
    assert all(p.is_meta for p in source.module.parameters())


def test_whole_pickled_module_loads_with_exact_weights(tmp_path: Path) -> None:
    module = load("torchvision:squeezenet1_1").module
    torch.save(module, tmp_path / "net.pt")
    source = load(str(tmp_path / "net.pt"))
    assert source.kind == "pickle"
    assert type(source.module) is type(module)
    torch.testing.assert_close(source.module.state_dict(), module.state_dict(), rtol=0, atol=0)


class _MakesAFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickle_that_would_run_code_is_refused_and_does_not(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write({"model": nn.Linear(2, 2), "extra": _MakesAFolder(tmp_path / "pwned")}, tmp_path / "bad.pt")
    with pytest.raises(SourceError) as caught:
        load(str(tmp_path / "bad.pt"))
    assert caught.value.exit_code == 4
    assert not (tmp_path / "pwned").exists()
    if write is torch.save:
        assert isinstance(caught.value, UntrustedSourceError)
        assert "posix.mkdir" in str(caught.value)
