"""Every operation that C code is written for, on one input, as outputs of one C file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.exporters.c.activations import ACTIVATIONS
from binarize.exporters.c.apart import APART
from binarize.exporters.c.check import run_samples
from binarize.exporters.c.in_order import in_order
from binarize.exporters.c.names import MOVES, SAME
from binarize.exporters.c.operations import HANDLERS, known_operations
from binarize.exporters.c.table import operations_page
from binarize.exporters.c.transcendental import error, expo, logarithm, power, square_root, tangent
from binarize.exporters.c.write import translate


def filled(x: Tensor) -> Tensor:
    y = torch.zeros(1, 6, 6, 6)
    y[:, :4] = x
    y[:, 4:] = x[:, :2] * 2
    return y


def written(x: Tensor) -> Tensor:
    """In place, through views of one memory."""
    y = x * 2
    z = y[:, :2]
    z.add_(1)
    y[:, 3:] *= 3
    return y + z.repeat(1, 2, 1, 1)


MODULES: list[Callable[[], nn.Module]] = [
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Tanh,
    nn.ELU,
    nn.SELU,
    nn.Softplus,
    nn.Softsign,
    nn.Mish,
    nn.LogSigmoid,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Tanhshrink,
    nn.ReLU6,
    nn.PReLU,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.CELU,
    nn.RReLU,
    nn.Dropout,
    lambda: nn.GELU("tanh"),
    lambda: nn.Softmax(1),
    lambda: nn.LogSoftmax(-1),
    lambda: nn.Softmin(1),
    lambda: nn.Threshold(0.1, 2.0),
    lambda: nn.Upsample(scale_factor=2),
    lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    lambda: nn.Upsample((9, 11), mode="bilinear", align_corners=True),
    lambda: nn.Upsample(scale_factor=1.5, mode="bicubic"),
    lambda: nn.PixelShuffle(2),
    lambda: nn.PixelUnshuffle(2),
    lambda: nn.ReflectionPad2d((1, 2, 3, 1)),
    lambda: nn.ReplicationPad2d(2),
    lambda: nn.CircularPad2d(1),
    lambda: nn.ZeroPad2d((1, -1, 2, 0)),
    lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2),
    lambda: nn.ConvTranspose2d(4, 5, 2, 2),
    lambda: nn.ConvTranspose2d(4, 5, 4, 3, 2, dilation=2),
    lambda: nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"),
    lambda: nn.Conv2d(4, 4, 3, padding="same", groups=2),
    lambda: nn.LayerNorm(6),
    lambda: nn.LayerNorm((4, 6, 6)),
    lambda: nn.GroupNorm(2, 4),
    lambda: nn.BatchNorm2d(4),
    lambda: nn.InstanceNorm2d(4, affine=True),
    lambda: nn.ChannelShuffle(2),
    lambda: nn.LocalResponseNorm(3),
    lambda: nn.GLU(1),
    lambda: nn.AdaptiveAvgPool2d((4, 3)),
    lambda: nn.AdaptiveMaxPool2d(2),
    lambda: nn.Linear(6, 3),
    lambda: nn.AvgPool2d(3, 2, 1),
    lambda: nn.MaxPool2d(2),
    lambda: nn.RMSNorm(6),
]
LINES: list[Callable[[], nn.Module]] = [
    lambda: nn.Conv1d(4, 3, 3, 2, padding_mode="circular", padding=1),
    lambda: nn.ConvTranspose1d(4, 3, 4, 2, 1),
    lambda: nn.MaxPool1d(3, 2, 1),
    lambda: nn.AvgPool1d(2),
    lambda: nn.AdaptiveAvgPool1d(5),
    lambda: nn.AdaptiveMaxPool1d(3),
    lambda: nn.Upsample(scale_factor=2, mode="linear"),
    lambda: nn.InstanceNorm1d(4),
    lambda: nn.ReflectionPad1d(2),
    lambda: nn.BatchNorm1d(4),
]
FUNCTIONS: list[Callable[[Tensor], Any]] = [
    lambda x: x.exp(),
    lambda x: x.expm1(),
    lambda x: (x.abs() + 0.01).log(),
    lambda x: (x.abs() + 0.01).log2(),
    lambda x: x.abs().log1p() + (x.abs() + 1).log10(),
    lambda x: x.abs().sqrt(),
    lambda x: (x.abs() + 0.1).rsqrt(),
    torch.erf,
    lambda x: (x.abs() + 0.1).pow(2.3),
    lambda x: x**2 + x**3 + x**4,
    lambda x: 3 / (x.abs() + 1),
    lambda x: x / 3.7,
    lambda x: x.floor() + x.ceil() + x.round() + x.trunc() + x.sign(),
    lambda x: torch.maximum(x, x.mean(1, keepdim=True)) - torch.minimum(x, x[:, :1]),
    lambda x: x.max(1)[0] + x.min(1).values,
    lambda x: x.amax((2, 3)) - x.amin((2, 3)),
    lambda x: x.argmax(1),
    lambda x: x.argmin(3),
    lambda x: x.sum((1, 3)),
    lambda x: x.sum((0, 2)),
    lambda x: x.mean((0, 2, 3)),
    lambda x: torch.where(x > 0, x, x * 0.1 + 1),
    lambda x: x.std((2, 3)),
    lambda x: x.var(1, unbiased=False),
    lambda x: F.normalize(x, dim=1),
    lambda x: x.norm(dim=(2, 3)),
    lambda x: x @ x.transpose(2, 3),
    lambda x: torch.einsum("bchw,bdhw->bcd", x, x + 1),
    lambda x: x.bool().float(),
    lambda x: F.scaled_dot_product_attention(x, x * 0.5, x + 1, is_causal=True),
    lambda x: x[0] * 2,
    lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    lambda x: x * x.mean((2, 3)).sigmoid()[:, :, None, None].expand_as(x),
    lambda x: x.view(1, 2, 2, 6, 6).transpose(1, 2).reshape(1, 4, 6, 6),
    lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    lambda x: x.flip(2, 3) + x,
    lambda x: x.roll((1, 2), (2, 3)),
    lambda x: x.repeat(1, 2, 1, 1),
    lambda x: F.unfold(x, 3, padding=1),
    lambda x: torch.stack([x, x * 2], 2).flatten(1, 2),
    lambda x: torch.cat([x, x * 2], 3),
    filled,
    written,
    lambda x: torch.cat([x, torch.zeros(1, 2, 6, 6)], 1),
    lambda x: x + x[:, :1] * x[:, :, :1],
    lambda x: x.mean((2, 3)).squeeze(),
    lambda x: x[:, [2, 0, 1]],
    lambda x: x.permute(0, 2, 3, 1) * torch.arange(4.0),
    lambda x: x.logsumexp(1),
    lambda x: x.cumsum(2),
    lambda x: x.repeat_interleave(2, 1),
    lambda x: x.tril(),
    lambda x: F.interpolate(x, size=(9, 4)),
    lambda x: x.clamp(-1, x.mean()),
    lambda x: x.clamp(min=-0.5).clamp_max(1),
    lambda x: x.masked_fill(x < 0, 0.5),
    lambda x: ((x > 0) & (x < 1) | (x == 0)).float(),
    lambda x: (~(x > 0)).float(),
    lambda x: 1 - x,
    lambda x: x // 0.3,
    lambda x: x[..., ::2] + x[..., 1::2],
    lambda x: -abs(x),
    lambda x: x.view(1, 4, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(4, 9, 4),
    lambda x: x.sum(),
    lambda x: x.int().float(),
    lambda x: F.cosine_similarity(x[:, :2], x[:, 2:]),
    lambda x: torch.lerp(x, x * x, 0.3),
    lambda x: x.softmax(1).unbind(1)[2],
    lambda x: F.hardtanh(x, -0.7, 0.3),
    lambda x: x.relu_().add_(1),
    lambda x: torch.rsub(x, 2, alpha=3),
    lambda x: x.new_ones(3) * x[0, 0, 0, :3],
]


class Each(nn.Module):
    """What each operation makes of one input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.modules_of = nn.ModuleList(make() for make in MODULES)
        self.lines = nn.ModuleList(make() for make in LINES)
        for name, tensor in self.named_buffers():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + (0.5 if name.endswith("var") else 0))

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        return {
            "modules": [module(x) for module in self.modules_of],
            "lines": [module(x[:, :, 0]) for module in self.lines],
            "functions": [function(x.clone()) for function in FUNCTIONS],
        }


def test_every_operation_gives_the_same_bits_and_torchs_numbers(compiler: str) -> None:
    model, samples = (
        Each().eval(),
        [2 * torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(2)],
    )
    source, _ = translate(model, samples[0], "net")
    assert source.ram_bytes <= 1.1 * source.ram_in_use
    found = run_samples(source, [[x] for x in samples], compiler, ("-Werror", "-O1"))
    for x, parts in zip(samples, found, strict=True):
        with torch.no_grad(), in_order():
            ours = [y for group in model(x).values() for y in group]
        with torch.no_grad():
            theirs = [y for group in model(x).values() for y in group]
        for port, a, b, c in zip(source.outputs, ours, parts, theirs, strict=True):
            assert torch.equal(a.float().flatten(), b), port.path
            torch.testing.assert_close(a, c, rtol=1e-5, atol=5e-6, msg=port.path)


@pytest.mark.parametrize(
    ("ours", "exact", "low", "high", "within"),
    [
        (expo, torch.exp, -100.0, 88.0, 1e-6),
        (logarithm, torch.log, 1e-30, 1e30, 1e-6),
        (tangent, torch.tanh, -12.0, 12.0, 1e-6),
        (square_root, torch.sqrt, 0.0, 1e30, 6e-8),
        (lambda x: power(x, 1.7), lambda x: x**1.7, 1e-6, 1e6, 4e-6),
    ],
)
def test_functions_are_within_the_digits_that_are_said(
    ours: Callable[[Tensor], Tensor],
    exact: Callable[[Tensor], Tensor],
    low: float,
    high: float,
    within: float,
) -> None:
    steps = torch.linspace(0, 1, 20001, dtype=torch.float64)
    even = low + (high - low) * steps
    x = torch.cat([even, low * (high / low) ** steps] if low > 0 else [even, even / 100]).float()
    expected = exact(x.double())
    assert (
        float(((ours(x).double() - expected).abs() / expected.abs().clamp_min(1e-37)).nan_to_num().max())
        < within
    )


def test_the_error_function_is_within_five_ten_millionths() -> None:
    x = torch.linspace(-6, 6, 40001)
    assert float((error(x).double() - torch.erf(x.double())).abs().max()) < 5e-7


def test_ends_of_the_functions() -> None:
    x = torch.tensor([float("-inf"), -200.0, 0.0, 89.5, float("inf")])
    assert expo(x).tolist() == [0.0, 0.0, 1.0, float("inf"), float("inf")]
    assert tangent(x).tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]
    assert logarithm(torch.tensor([0.0, 1.0, float("inf")])).tolist() == [float("-inf"), 0.0, float("inf")]
    assert bool(logarithm(torch.tensor([-1.0])).isnan())


def test_each_operation_stands_in_one_table() -> None:
    tables = [set(HANDLERS), set(MOVES), set(SAME), set(APART) - {"add", "sub", "subtract", "rsub"}]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert set(ACTIVATIONS) <= set(HANDLERS)
    assert {"sigmoid", "einsum", "conv_transpose1d", "pixel_shuffle"} <= set(known_operations())


def test_the_page_of_operations_is_that_of_the_exporter() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "operations.md"
    assert page.read_text(encoding="utf-8") == operations_page(), "write it anew from operations_page()"
