"""The C file on emulated microcontrollers, with floats in software and in hardware."""

from __future__ import annotations

import pytest
import torch
from packed_layers import conv, linear
from torch import nn

from benchmarks.cortex_m import BOARDS, run_on_board, tools_missing
from binarize.exporters.c.in_order import in_order
from binarize.exporters.c.write import translate


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_computes_the_packed_models_bits(name: str) -> None:
    if tools_missing():
        pytest.skip(f"not installed: {', '.join(tools_missing())}")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.PReLU(6), conv(6, 9, pad=1, two_levels=True, outside=0.3),
        nn.MaxPool2d(2), nn.Flatten(), linear(9 * 9, 12), nn.Linear(12, 4),
    ).eval()  # fmt: skip
    x = torch.randn(3, 3, 6, 6)
    with torch.no_grad(), in_order():
        expected = model(x)
    source, _ = translate(model, x[:1], "net")
    found, stack = run_on_board(source, x, 4, BOARDS[name], seconds=60)
    assert torch.equal(found, expected)
    assert 0 < stack < 1024
