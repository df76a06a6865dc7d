"""What is no plain float model is refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from binarize.errors import SourceError
from binarize.modules.float_check import check_whole, quantizer_of
from binarize.sources import load


def poisoned(value: float) -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 4))
    with torch.no_grad():
        module[0].weight[1, 2] = value
    return module


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "0.weight holds 1 NaN values among 16"),
        (float("inf"), "0.weight holds 1 infinite values"),
    ],
)
@pytest.mark.parametrize("saved", [True, False])
def test_weights_that_are_not_finite_are_named(value: float, message: str, saved: bool, tmp_path) -> None:  # type: ignore[no-untyped-def]
    model: str | nn.Module = poisoned(value)
    if saved:
        torch.save(model, tmp_path / "net.pt")
        model = str(tmp_path / "net.pt")
    with pytest.raises(SourceError, match=message):
        load(model)


def test_large_weights_are_finite_though_their_sum_is_not() -> None:
    module = nn.Linear(4, 4).half()
    with torch.no_grad():
        module.weight.fill_(60000)
    load(module)


def test_buffers_may_be_infinite_but_not_nan() -> None:
    module = nn.Linear(4, 4)
    module.register_buffer("mask", torch.full((2, 2), -torch.inf))
    load(module)
    module.mask.fill_(torch.nan)
    with pytest.raises(SourceError, match="mask holds 4 NaN"):
        load(module)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_quantized_modules_are_refused() -> None:
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(SourceError, match=r"already quantized: 0 is torch\.ao\.nn\.quantized\.dynamic"):
        load(quantized)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_quantized_files_are_refused_as_such(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.save(torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2))), tmp_path / "net.pt")
    with pytest.raises(SourceError, match=r"already quantized \(it needs torch\.ao\.nn\.quantized"):
        load(str(tmp_path / "net.pt"))


def test_quantized_tensors_are_refused() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("w", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))
    with pytest.raises(SourceError, match=r"already quantized: w is torch\.qint8"):
        load(module)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_eight_bit_weights_are_refused(dtype: torch.dtype, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "eight.py").write_text("from torch import nn\ndef net(): return nn.Linear(2, 2)\n")
    torch.save({"weight": torch.zeros(2, 2).to(dtype), "bias": torch.zeros(2)}, tmp_path / "net.pt")
    with pytest.raises(SourceError, match=f"already quantized: weight is {dtype}"):
        load(str(tmp_path / "net.pt"), arch=f"{tmp_path / 'eight.py'}:net")


@pytest.mark.parametrize(
    "table", ["_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_forward_hooks"]
)
def test_modules_that_are_not_whole_are_refused(table: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Unpickling gives a module whatever attributes the file has."""
    module = nn.Sequential(nn.Linear(2, 2))
    setattr(module[0], table, None)
    torch.save(module, tmp_path / "net.pt")
    with pytest.raises(SourceError, match="damaged: a Linear in it"):
        load(str(tmp_path / "net.pt"))


def test_binarized_modules_are_refused() -> None:
    from binarize.binarizers import bnn, xnor
    from binarize.layers.linear import BinaryLinear

    layer = BinaryLinear.from_float(
        nn.Linear(2, 2), weight_binarizer=xnor.ScaledSign(), input_binarizer=bnn.SteSign()
    )
    with pytest.raises(SourceError, match=r"already binarized: 0 is binarize\.layers\.linear\.BinaryLinear"):
        load(nn.Sequential(layer))


def test_layers_without_shapes_are_refused() -> None:
    with pytest.raises(SourceError, match=r"0\.weight has no shape yet \(a lazy layer\)"):
        load(nn.Sequential(nn.LazyLinear(3)))


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("bitsandbytes.nn.modules.Linear4bit", "bitsandbytes"),
        ("torchao.dtypes.AffineQuantizedTensor", "torchao"),
        ("torchaoish.Linear", None),
        ("torch.nn.modules.linear.Linear", None),
    ],
)
def test_quantizers_are_known_by_their_packages(name: str, library: str | None) -> None:
    assert quantizer_of(name) == library


@pytest.mark.parametrize("statistic", ["running_mean", "running_var"])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_norm_with_infinite_statistics_is_refused(statistic: str, value: float) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    getattr(model[1], statistic)[1] = value
    with pytest.raises(
        SourceError, match=rf"1\.{statistic} holds 1 (NaN|infinite) values among 2: the model is broken"
    ):
        load(model)


class Cached(nn.Module):
    """What some classes of timm do when they are moved, or change their mode."""

    def __init__(self, *missing: str) -> None:
        super().__init__()
        self.moved, self.trained = [torch.ones(1)], {"x": 1}
        for name in missing:
            delattr(self, name)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        self.moved.clear()
        return super()._apply(fn, recurse)

    def train(self, mode=True):  # type: ignore[no-untyped-def]
        self.trained.clear()
        return super().train(mode)


@pytest.mark.parametrize("missing", ["moved", "trained"])
def test_a_class_that_cannot_do_its_own_is_damaged(missing: str) -> None:
    with pytest.raises(SourceError, match=f"net.pt: damaged: its Sequential cannot be moved: .*'{missing}'"):
        check_whole(nn.Sequential(Cached(missing)), "net.pt")


def test_trying_out_a_module_leaves_its_mode() -> None:
    module = nn.Sequential(nn.Dropout(), Cached())
    module[0].eval()
    check_whole(module, "net.pt")
    assert (module.training, module[0].training, module[1].training) == (True, False, True)


def test_float_models_are_known_by_their_layers_and_not_by_their_names() -> None:
    prepared = torchvision.models.quantization.resnet18(weights=None, quantize=False)
    assert load(prepared).module is prepared
    fused = torch.ao.nn.intrinsic.ConvReLU2d(nn.Conv2d(2, 2, 3), nn.ReLU())
    assert load(nn.Sequential(fused)).module[0] is fused
    for name in ("bnn", "hqq"):
        namespace: dict[str, Any] = {"__name__": name}
        exec("from torch import nn\nclass Net(nn.Linear): ...", namespace)
        assert load(namespace["Net"](2, 2)).class_path == f"{name}.Net"


def test_quantized_layers_are_known_in_containers_of_any_name() -> None:
    model = torchvision.models.quantization.resnet18(weights=None, quantize=False)
    model.fc = torch.ao.nn.qat.Linear(512, 4, qconfig=torch.ao.quantization.get_default_qat_qconfig())
    with pytest.raises(SourceError, match="already quantized: the model itself"):
        load(model)


def test_a_module_that_is_refused_keeps_its_modes() -> None:
    class Stuck(nn.Linear):
        def train(self, mode: bool = True) -> nn.Module:
            if not mode:
                raise AttributeError("no such mode")
            return super().train(mode)

    model = nn.Sequential(nn.Dropout(), Stuck(2, 2))
    model[0].training, model[1].training = False, True
    with pytest.raises(SourceError, match="cannot be moved: no such mode"):
        check_whole(model, "net")
    assert [part.training for part in model] == [False, True]
