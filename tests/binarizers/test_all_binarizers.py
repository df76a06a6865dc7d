"""Laws that hold for everything in `binarize.binarizers`: two values, finite gradients, every type."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import nn

import binarize.binarizers
from binarize.binarizers import (
    adabin,
    bernoulli,
    binaryconnect,
    bireal,
    bnn,
    bnnplus,
    dorefa,
    fda,
    ienet,
    irnet,
    rbnn,
    reactnet,
    xnor,
    xnorpp,
)

ESTIMATORS = {
    "bnn.SteSign": bnn.SteSign,
    "binaryconnect.IdentitySign": binaryconnect.IdentitySign,
    "bireal.ApproxSign": bireal.ApproxSign,
    "bnnplus.SwishSign": bnnplus.SwishSign,
    "fda.FourierSign": fda.FourierSign,
    "ienet.Iee": ienet.Iee,
    "ienet.InputIee": ienet.InputIee,
    "irnet.Ede": irnet.Ede,
    "irnet.Ede at the end of its schedule": lambda: irnet.Ede(10.0, 1.0),
    "irnet.Ede at the start of its schedule": lambda: irnet.Ede(1e-3, 1e3),
    "rbnn.InputTriangle": rbnn.InputTriangle,
    "rbnn.Triangle": rbnn.Triangle,
    "rbnn.Triangle at the end of its schedule": lambda: rbnn.Triangle(10.0, 1.0),
    "xnor.MappedSign": xnor.MappedSign,
}
INPUTS = {
    **ESTIMATORS,
    "adabin.AdaptiveInput": adabin.AdaptiveInput,
    "adabin.AdaptiveInput, code": lambda: adabin.AdaptiveInput(form="code"),
    "dorefa.ZeroOne": dorefa.ZeroOne,
    "bernoulli.InputSign": lambda: bernoulli.InputSign(1, threshold=0.0),
    "reactnet.RSign": lambda: reactnet.RSign(1),
    "ienet.MultiSign of one threshold": lambda: ienet.MultiSign(1, thresholds=1),
}
WEIGHTS = {
    **ESTIMATORS,
    "adabin.AdaptiveWeight": adabin.AdaptiveWeight,
    "binaryconnect.StochasticSign": binaryconnect.StochasticSign,
    "bireal.ScaledSign": bireal.ScaledSign,
    "bireal.ScaledSign, paper": lambda: bireal.ScaledSign(gradient="paper"),
    "dorefa.LayerScaledSign": dorefa.LayerScaledSign,
    "ienet.StandardSign": ienet.StandardSign,
    "irnet.LibraWeight": irnet.LibraWeight,
    "xnor.ScaledSign": xnor.ScaledSign,
    "xnor.ScaledSign, paper": lambda: xnor.ScaledSign(scale_grad="paper"),
    "xnor.ScaledSign, exact": lambda: xnor.ScaledSign(scale_grad="exact"),
    "xnor.ScaledSign, centred": lambda: xnor.ScaledSign(centre=True),
}
REAL_VALUED = {
    "adabin.Maxout": lambda: adabin.Maxout(1),
    "bernoulli.LogitScale": bernoulli.LogitScale,
    "reactnet.RPReLU": lambda: reactnet.RPReLU(1),
    "xnorpp.ChannelScale": lambda: xnorpp.ChannelScale(1),
    "ienet.OutputScale": lambda: ienet.OutputScale(1),
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def public_modules() -> set[str]:
    """`file.Class` of every module that a file of the folder exports."""
    names = set()
    for info in pkgutil.iter_modules(binarize.binarizers.__path__):
        if info.name in ("sign", "nonlinearity"):  # base classes
            continue
        module = importlib.import_module(f"binarize.binarizers.{info.name}")
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and issubclass(value, nn.Module):
                names.add(f"{info.name}.{name}")
    return names


def test_no_module_is_left_out_of_these_laws():
    covered = {key.split(" ")[0].rstrip(",") for key in {**INPUTS, **WEIGHTS, **REAL_VALUED}}
    # Signs once they are hardened: tests/bernoulli.
    random = {f"bernoulli.{name}" for name in ("Averages", "Means", "MaxPool", "OutputSign", "Probabilities")}
    assert covered | random == public_modules()


def build(table, name, dtype):
    torch.manual_seed(0)
    return table[name]().to(dtype)


def numbers(dtype: torch.dtype) -> torch.Tensor:
    """Both zeros, the ends of the usual intervals, numbers that leave 16 bits when squared."""
    x = torch.tensor([-1e4, -2, -1, -0.5, -1e-3, -0.0, 0.0, 1e-3, 0.5, 1, 2, 1e4], dtype=dtype)
    return x.view(-1, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", INPUTS)
def test_input_binarizer_gives_two_values_and_finite_gradients(name, dtype):
    module = build(INPUTS, name, dtype)
    x = numbers(dtype).requires_grad_()
    y = module(x)
    assert y.dtype == dtype
    lower, upper = y.unique().tolist()
    # Below its threshold (0, for {0, 1} a half) x gives the lower value, from it on the upper one.
    threshold = 0.5 if name == "dorefa.ZeroOne" else 0.0
    assert torch.equal(y.detach() == upper, x.detach() >= threshold)
    assert (lower, upper) == ((0, 1) if name == "dorefa.ZeroOne" else (-1, 1))
    y.backward(torch.ones_like(y))
    for tensor in (x, *module.parameters()):
        if tensor.numel():
            assert tensor.grad.dtype == dtype
            assert torch.isfinite(tensor.grad).all()


FILTERS = {
    "random": lambda: torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(0)),
    "large": lambda: 1e4 * torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(0)).sign(),
    "constant": lambda: torch.full((3, 4, 3, 3), 0.1),
    "constant and large": lambda: torch.full((3, 4, 3, 3), -1e4),
    "zero": lambda: torch.zeros(3, 4, 3, 3),
    "negative zero": lambda: -torch.zeros(3, 4, 3, 3),
    "one weight": lambda: torch.tensor([[0.7], [-0.2], [0.0]]),
    "linear": lambda: torch.randn(3, 8, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.sampled(250)
def test_weight_binarizer_gives_at_most_two_finite_values_a_filter(name, kind, dtype):
    module = build(WEIGHTS, name, dtype)
    w = FILTERS[kind]().to(dtype).requires_grad_()
    values, scale = module.split(w)
    wb = values if scale is None else values * scale
    assert wb.dtype == values.dtype == dtype
    assert wb.shape == w.shape
    assert torch.isfinite(wb).all()
    for one in wb.detach().flatten(1):
        assert len(one.unique()) <= 2
    if name != "adabin.AdaptiveWeight":
        assert set(values.unique().tolist()) <= {-1, 1}
    wb.backward(torch.linspace(-1, 1, w.numel(), dtype=dtype).view_as(w))
    assert w.grad.dtype == dtype
    assert torch.isfinite(w.grad).all()


@pytest.mark.parametrize("name", [name for name in WEIGHTS if not name.startswith("binaryconnect.Sto")])
def test_split_times_scale_is_the_binary_weight(name):
    module = build(WEIGHTS, name, torch.float32)
    w = FILTERS["random"]().requires_grad_()
    g = torch.linspace(-1, 1, w.numel()).view_as(w)
    values, scale = module.split(w)
    product = values if scale is None else values * scale
    wb = module(w)
    assert torch.equal(product, wb)
    assert torch.equal(torch.autograd.grad(product, w, g)[0], torch.autograd.grad(wb, w, g)[0])


@pytest.mark.parametrize("name", [name for name in WEIGHTS if not name.startswith("binaryconnect.Sto")])
def test_what_a_weight_binarizer_says_of_itself_is_so(name):
    module = build(WEIGHTS, name, torch.float64)
    w = FILTERS["random"]().double().requires_grad_()
    _, scale = module.split(w)
    assert module.trains_scale == (scale is not None and scale.requires_grad)
    torch.testing.assert_close(module(w)[1:] if module.per_filter else module(w[1:]), module(w[1:]))
    if not module.per_filter:
        assert not torch.equal(module(w)[1:], module(w[1:]))


@pytest.mark.parametrize("name", [name for name in WEIGHTS if not name.startswith("binaryconnect.Sto")])
def test_other_output_axis_is_the_transposed_weight(name):
    module = build(WEIGHTS, name, torch.float64)
    turned = copy.deepcopy(module)
    if hasattr(turned, "axis"):
        turned.axis = 1
    w = FILTERS["random"]().double()
    torch.testing.assert_close(turned(w.transpose(0, 1)).transpose(0, 1), module(w), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", REAL_VALUED)
def test_nonlinearity_and_scale_keep_the_type_and_finite_gradients(name, dtype):
    module = build(REAL_VALUED, name, dtype)
    x = numbers(dtype).requires_grad_()
    y = module(x)
    assert y.dtype == dtype
    # Sums over the batch of upstream gradients that fit the type.
    y.backward(torch.full_like(y, 1e-2))
    for tensor in (x, *module.parameters()):
        assert tensor.grad.dtype == dtype
        assert torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("name", {**INPUTS, **WEIGHTS, **REAL_VALUED})
def test_deepcopy_and_state_dict_round_trip(name):
    module = build({**INPUTS, **WEIGHTS, **REAL_VALUED}, name, torch.float32)
    twin = copy.deepcopy(module)
    twin.load_state_dict(module.state_dict(), strict=True)
    assert repr(twin) == repr(module)
    torch.manual_seed(1)
    first = module(numbers(torch.float32))
    torch.manual_seed(1)
    assert torch.equal(twin(numbers(torch.float32)), first)
