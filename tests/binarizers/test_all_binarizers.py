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
    abbnn,
    adabin,
    adabin_seed002,
    bayesbinn,
    bernoulli,
    binaryconnect,
    biper,
    bireal,
    bit,
    bitnet,
    bnn,
    bnnplus,
    dorefa,
    fda,
    ienet,
    insta,
    irnet,
    pokebnn,
    proxybnn,
    rbnn,
    reactnet,
    realtobinary,
    rebnn,
    recu,
    reste,
    sibnn,
    tang,
    xnor,
    xnorpp,
)

ESTIMATORS = {
    "abbnn.SigmoidSign": abbnn.SigmoidSign,
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
    "reste.PowerSign": reste.PowerSign,
    "reste.PowerSign at the end of its schedule": lambda: reste.PowerSign(3.0),
    "xnor.MappedSign": xnor.MappedSign,
}
INPUTS = {
    **ESTIMATORS,
    "adabin.AdaptiveInput": adabin.AdaptiveInput,
    "adabin.AdaptiveInput, code": lambda: adabin.AdaptiveInput(form="code"),
    "bit.ElasticSign": lambda: bit.ElasticSign(1),
    "bit.ElasticStep": lambda: bit.ElasticStep(1),
    "dorefa.ZeroOne": dorefa.ZeroOne,
    "bernoulli.InputSign": lambda: bernoulli.InputSign(1, threshold=0.0),
    "insta.InstanceSign": lambda: insta.InstanceSign(1),
    "realtobinary.GatedSign": lambda: realtobinary.GatedSign(1),
    "sibnn.SparseInput": sibnn.SparseInput,
    "fda.NoisyInput": lambda: fda.NoisyInput(1).eval(),
    "reactnet.RSign": lambda: reactnet.RSign(1),
    "ienet.MultiSign of one threshold": lambda: ienet.MultiSign(1, thresholds=1),
    "ienet.OutputMultiSign of one threshold": lambda: ienet.OutputMultiSign(1, thresholds=1),
}
# Several planes: more than two values.
MANY_VALUED = {
    "bitnet.AbsMaxInput": bitnet.AbsMaxInput,
    "tang.ResidualSign": tang.ResidualSign,
}
# Whose threshold is a half, and whose values are 0 and 1.
ZERO_ONE = ("dorefa.ZeroOne", "bit.ElasticStep", "sibnn.SparseInput")
WEIGHTS = {
    **ESTIMATORS,
    "adabin.AdaptiveWeight": adabin.AdaptiveWeight,
    "adabin_seed002.LearnedWeight": adabin_seed002.LearnedWeight,
    "adabin_seed002.LearnedWeight, full": lambda: adabin_seed002.LearnedWeight(gradient="full"),
    "adabin_seed002.LearnedWeight, layer": lambda: adabin_seed002.LearnedWeight(granularity="layer"),
    "biper.PeriodicSign": biper.PeriodicSign,
    "bitnet.CentredSign": bitnet.CentredSign,
    "proxybnn.BasisWeight": proxybnn.BasisWeight,
    "rbnn.RotatedWeight": rbnn.RotatedWeight,
    "rebnn.ResilientWeight": rebnn.ResilientWeight,
    "recu.RectifiedWeight": recu.RectifiedWeight,
    "bayesbinn.MeanFieldSign": bayesbinn.MeanFieldSign,
    "binaryconnect.StochasticSign": binaryconnect.StochasticSign,
    "bireal.ScaledSign": bireal.ScaledSign,
    "bireal.ScaledSign, paper": lambda: bireal.ScaledSign(gradient="paper"),
    "dorefa.LayerScaledSign": dorefa.LayerScaledSign,
    "fda.NoisyWeight": lambda: fda.NoisyWeight().eval(),
    "ienet.StandardSign": ienet.StandardSign,
    "irnet.LibraWeight": irnet.LibraWeight,
    "xnor.ScaledSign": xnor.ScaledSign,
    "xnor.ScaledSign, paper": lambda: xnor.ScaledSign(scale_grad="paper"),
    "xnor.ScaledSign, exact": lambda: xnor.ScaledSign(scale_grad="exact"),
    "xnor.ScaledSign, centred": lambda: xnor.ScaledSign(centre=True),
}
# A draw is not given twice.
DRAWN_ONCE = [
    name for name in WEIGHTS if name not in ("binaryconnect.StochasticSign", "bayesbinn.MeanFieldSign")
]
REAL_VALUED = {
    "abbnn.QuantizedRPReLU": lambda: abbnn.QuantizedRPReLU(1),
    "adabin.Maxout": lambda: adabin.Maxout(1),
    "bernoulli.LogitScale": bernoulli.LogitScale,
    "pokebnn.DPReLU": lambda: pokebnn.DPReLU(1),
    "recu.RandomScale": lambda: recu.RandomScale(1),
    "fda.NoiseAdapter": lambda: fda.NoiseAdapter(1),
    "reactnet.RPReLU": lambda: reactnet.RPReLU(1),
    "xnorpp.ChannelScale": lambda: xnorpp.ChannelScale(1),
    "xnorpp.MapScale": lambda: xnorpp.MapScale(1),
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
    covered = {key.split(" ")[0].rstrip(",") for key in {**INPUTS, **MANY_VALUED, **WEIGHTS, **REAL_VALUED}}
    # Signs once they are hardened: tests/bernoulli.
    random = {f"bernoulli.{name}" for name in ("Averages", "Means", "MaxPool", "OutputSign", "Probabilities")}
    assert covered | random == public_modules()


def build(table, name, dtype):
    torch.manual_seed(0)
    return table[name]().to(dtype)


def build_for(name, w):
    """A weight binarizer as a conversion makes it for this weight."""
    module = build(WEIGHTS, name, w.dtype)
    if hasattr(module, "start_from_weight"):
        module.start_from_weight(w.clone(), getattr(module, "axis", 0))
    return module


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
    threshold = 0.5 if name in ZERO_ONE else 0.0
    assert torch.equal(y.detach() == upper, x.detach() >= threshold)
    assert (lower, upper) == ((0, 1) if name in ZERO_ONE else (-1, 1))
    y.backward(torch.ones_like(y))
    # Those of a gate, and what serves in training alone, are not read here.
    own = {} if name == "realtobinary.GatedSign" else dict(module.named_parameters())
    for tensor in (x, *(p for key, p in own.items() if not key.startswith("noise."))):
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
    w = FILTERS[kind]().to(dtype)
    module = build_for(name, w)
    w.requires_grad_()
    values, scale = module.split(w)
    wb = values if scale is None else values * scale
    assert wb.dtype == values.dtype == dtype
    assert wb.shape == w.shape
    assert torch.isfinite(wb).all()
    for one in wb.detach().flatten(1):
        assert len(one.unique()) <= 2
    if not name.startswith(("adabin", "rebnn")):  # whose values have a size in one tensor
        assert set(values.unique().tolist()) <= {-1, 1}
    wb.backward(torch.linspace(-1, 1, w.numel(), dtype=dtype).view_as(w))
    assert w.grad.dtype == dtype
    assert torch.isfinite(w.grad).all()
    for key, parameter in module.named_parameters():
        if not key.startswith("noise."):  # of training alone
            assert parameter.grad.dtype == dtype
            assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", DRAWN_ONCE)
def test_split_times_scale_is_the_binary_weight(name):
    w = FILTERS["random"]()
    module = build_for(name, w)
    w.requires_grad_()
    g = torch.linspace(-1, 1, w.numel()).view_as(w)
    values, scale = module.split(w)
    product = values if scale is None else values * scale
    wb = module(w)
    assert torch.equal(product, wb)
    assert torch.equal(torch.autograd.grad(product, w, g)[0], torch.autograd.grad(wb, w, g)[0])


@pytest.mark.parametrize("name", DRAWN_ONCE)
def test_what_a_weight_binarizer_says_of_itself_is_so(name):
    w = FILTERS["random"]().double()
    module = build_for(name, w)
    w.requires_grad_()
    _, scale = module.split(w)
    assert module.trains_scale == (scale is not None and scale.requires_grad)
    if any(parameter.numel() == len(w) for parameter in module.parameters()):
        assert not module.per_filter  # a row of w alone would meet numbers of all rows
        return
    torch.testing.assert_close(module(w)[1:] if module.per_filter else module(w[1:]), module(w[1:]))
    # A basis is the identity at the start, and what a layer's mean clips changes gradients alone.
    if not module.per_filter and not name.startswith(("proxybnn", "recu")):
        assert not torch.equal(module(w)[1:], module(w[1:]))


@pytest.mark.parametrize("name", DRAWN_ONCE)
def test_other_output_axis_is_the_transposed_weight(name):
    w = FILTERS["random"]().double()
    module = build_for(name, w)
    turned = copy.deepcopy(module)
    if hasattr(turned, "axis"):
        turned.axis = 1
    torch.testing.assert_close(turned(w.transpose(0, 1)).transpose(0, 1), module(w), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MANY_VALUED)
def test_an_input_of_several_planes_keeps_the_type_and_finite_gradients(name, dtype):
    x = numbers(dtype).requires_grad_()
    y = build(MANY_VALUED, name, dtype)(x)
    assert y.dtype == dtype and torch.isfinite(y).all()
    y.backward(torch.ones_like(y))
    assert x.grad.dtype == dtype and torch.isfinite(x.grad).all()


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


@pytest.mark.parametrize("name", {**INPUTS, **MANY_VALUED, **WEIGHTS, **REAL_VALUED})
def test_deepcopy_and_state_dict_round_trip(name):
    module = build({**INPUTS, **MANY_VALUED, **WEIGHTS, **REAL_VALUED}, name, torch.float32)
    twin = copy.deepcopy(module)
    twin.load_state_dict(module.state_dict(), strict=True)
    assert repr(twin) == repr(module)
    torch.manual_seed(1)
    first = module(numbers(torch.float32))
    torch.manual_seed(1)
    assert torch.equal(twin(numbers(torch.float32)), first)
