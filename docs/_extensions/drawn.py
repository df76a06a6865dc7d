"""Functions drawn as SVG: what a binarizer makes of a number, and the gradient that it gives back."""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.schemes.part import Part

# The range of the number, and pixels of a drawing.
REACH, WIDTH, HEIGHT, MARGIN = 2.0, 320, 150, 24


def binarizer(part: Part) -> str:
    """A figure of an input binarizer as it begins, with its gradient; the colours are those of the text around it."""
    module = part.build(channels=1, channel_dim=1)
    x = torch.linspace(-REACH, REACH, 401).reshape(-1, 1).requires_grad_()
    y = module(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    curves = {"output": y.detach().flatten(), "gradient": gradient.flatten()}
    pictures = "".join(curve(name, x.detach().flatten(), values) for name, values in curves.items())
    return f'```{{raw}} html\n<p class="curves">{pictures}</p>\n```'


def curve(name: str, x: Tensor, values: Tensor) -> str:
    """One function. Shapes: x and values (n,)."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    high = high if high > low else low + 1.0

    def place(a: float, b: float) -> str:
        across = MARGIN + (a + REACH) / (2 * REACH) * (WIDTH - 2 * MARGIN)
        down = HEIGHT - MARGIN - (b - low) / (high - low) * (HEIGHT - 2 * MARGIN)
        return f"{across:.1f},{down:.1f}"

    points = " ".join(place(a, b) for a, b in zip(x.tolist(), values.tolist()))
    axes = [(place(-REACH, 0), place(REACH, 0)), (place(0, low), place(0, high))]
    lines = "".join(f'<polyline points="{a} {b}" stroke="currentColor" opacity="0.35"/>' for a, b in axes)
    said = f"{name} of the binarizer from -2 to 2: least {low:.3g}, greatest {high:.3g}"
    return (
        f'<svg role="img" aria-label="{said}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" fill="none">'
        f'<title>{said}</title>{lines}<polyline points="{points}" stroke="currentColor" stroke-width="2"/>'
        f'<text x="{MARGIN}" y="14" fill="currentColor" font-size="12">{name}: {low:.3g} to {high:.3g}</text></svg>'
    )
