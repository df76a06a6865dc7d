"""Every function takes what `convert` takes: wrapped models, and arguments of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nets
import pytest
import torch
from torch import Tensor, nn

import binarize
from binarize.inputs.batches import as_batches
from binarize.packed.freeze import pack_layers


def _nested(model: nn.Module) -> nn.Module:
    return nn.DataParallel(torch.optim.swa_utils.AveragedModel(model))


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "nested": _nested,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_models_are_taken_everywhere(name: str, tmp_path: Path) -> None:
    wrap, model, x = WRAPPERS[name], nets.BasicBlocks().eval(), nets.pictures(4)
    wrapped = wrap(model)
    binary = binarize.convert(wrapped, "bireal", example_input=x).eval()
    with torch.no_grad():
        for parameter in binary.parameters():
            parameter.add_(1)
    binarize.load_float_state_dict(binary, wrapped.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(binary.state_dict()[key], value)
    assert binarize.calibrate(wrap(binary), x, wrapped).fitted
    labelled = (x, torch.zeros(4, dtype=torch.long))
    first, second = (
        binarize.evaluate(one, labelled, wrapped).to_json()["model"]["loss"] for one in (binary, wrap(binary))
    )
    assert first == second
    folder = binarize.save(wrap(binary), tmp_path / "net")
    assert torch.equal(binarize.load(folder, model=wrapped)(x), binary(x))
    packed = pack_layers(binarize.freeze(wrap(binary)))
    assert torch.equal(binarize.fuse(wrap(packed), x)(x), binarize.fuse(packed, x)(x))


class _Timed(nn.Module):
    """Takes an image and a step in time, as a diffusion model."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Embedding(10, 16)
        self.a, self.b, self.c = nets.conv(3, 16), nets.conv(16, 16), nets.conv(16, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu() + self.steps(t)[:, :, None, None]).relu())


def test_whole_numbers_that_the_model_takes_are_no_labels() -> None:
    torch.manual_seed(0)
    model, given = _Timed().eval(), (nets.pictures(4), torch.arange(4))
    binary = binarize.convert(model, "bireal", example_input=given)
    assert binarize.calibrate(binary, given, model).fitted == ("b",)
    assert binarize.calibrate(binary, [given, given], model).images == 8
    assert binarize.convert(model, "bireal", example_input=given, calibrate=[given]) is not None


def test_what_comes_behind_the_arguments_is_no_argument() -> None:
    x, t, y = torch.zeros(2, 3), torch.arange(2), torch.arange(2)
    assert [len(args) for args, _ in as_batches([(x, t, y), (x, t)], taken=2)] == [2, 2]
    assert [len(args) for args, _ in as_batches([(x, y)])] == [1]
