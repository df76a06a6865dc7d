"""Two Python threads that run one packed model at once, each with two threads of the kernels' pool."""

from __future__ import annotations

import threading

import torch
from torch import nn

from binarize.packed.frozen.form import Form
from binarize.packed.fused.fuse import fuse
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window


def layer(seed: int) -> PackedLayer:
    """A packed 3x3 convolution of random signs."""
    window = Window("conv", 32, 32, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    lower = torch.randn(window.weight_shape, generator=torch.Generator().manual_seed(seed)) < 0
    return PackedLayer.of(Form(window, torch.ones(1, 32), torch.zeros(32)), lower).eval()


def main() -> None:
    torch.set_num_threads(2)
    x = torch.randn(3, 32, 12, 12)
    plain = nn.Sequential(nn.Conv2d(32, 32, 1), layer(0), nn.PReLU(32), layer(1)).eval()
    for model in (plain, fuse(plain, x)):
        with torch.no_grad():
            expected = model(x)
        wrong: list[int] = []

        def check(
            model: nn.Module = model, expected: torch.Tensor = expected, wrong: list[int] = wrong
        ) -> None:
            with torch.no_grad():
                wrong += [i for i in range(50) if not torch.equal(model(x), expected)]

        both = [threading.Thread(target=check) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert not wrong, wrong
    print("two threads: equal")


if __name__ == "__main__":
    main()
