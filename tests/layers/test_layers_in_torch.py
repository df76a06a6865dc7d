"""What torch offers for modules works on networks with binary layers."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from layer_tables import network

torch.set_num_threads(1)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def test_repr_shows_the_parts():
    text = repr(network())
    for part in (
        "AdaptiveWeight",
        "Ede",
        "AdaptiveInput",
        "ApproxSign",
        "Threshold",
        "Maxout",
        "BatchNorm2d",
    ):
        assert part in text
    assert "4, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False" in text


def test_deepcopy_shares_nothing(x):
    model = network().eval()
    twin = copy.deepcopy(model)
    expected = model(x)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    assert torch.equal(twin(x), expected)


def test_pickle_and_state_dict_round_trips(x):
    model = network().eval()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), model(x))
    other = network().eval()
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(x), model(x))


def test_export_gives_the_same_output(x):
    model = network().eval()
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x), rtol=0, atol=1e-6)


def test_compile_gives_the_same_output_and_gradients(x):
    model = network()
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    y, expected = compiled(x), model(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    y.square().sum().backward()
    expected.square().sum().backward()
    for (name, p), (_, q) in zip(twin.named_parameters(), model.named_parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_bfloat16_autocast_convolves_in_bfloat16_and_keeps_float32_gradients(x):
    model = network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad.dtype == torch.float32, name
        assert torch.isfinite(p.grad).all(), name


def test_channels_last_gives_the_same_output(x):
    model = network()
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    y = other(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, model(x), rtol=0, atol=1e-5)
    y.sum().backward()


def test_every_gradient_of_a_training_step_is_finite_and_present(x):
    model = network()
    model(x).square().sum().backward()
    for name, p in model.named_parameters():
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name
