"""Draws the report of a converted ResNet-18 for README.md: python docs/draw.py writes docs/report.svg."""

from __future__ import annotations

import io
import re
from pathlib import Path

import torch
import torchvision
from rich.console import Console
from rich.terminal_theme import MONOKAI

import binarize
from binarize.report.drawing.terminal import render

WIDTH = 108


def main() -> None:
    torch.manual_seed(0)
    plan = binarize.plan(
        torchvision.models.resnet18(), "bireal", shortcuts="every", input_shape=(1, 3, 224, 224)
    )
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(render(plan.report, WIDTH))
    text = console.export_svg(
        title="binarize plan torchvision:resnet18 -s bireal --shortcuts every", theme=MONOKAI
    )
    # The picture asks no other machine for its letters.
    text = re.sub(r"@font-face \{.*?\}\n", "", text, flags=re.DOTALL)
    text = re.sub(r"<!-- Generated with Rich.*?-->\n", "", text)
    assert "http" not in text.replace("http://www.w3.org/", "")
    Path(__file__).with_name("report.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
