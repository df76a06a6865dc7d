"""A scheme of your own, from its formulas to C: python examples/your_own_scheme.py

A weight binarizer, an input binarizer and a nonlinearity, a class each; your_own_scheme.yaml beside this file makes a
scheme of them. The bundled network is converted, trained for a few steps, packed, fused and exported, and each of these
forms is compared with the frozen one. The same on a command line:

    binarize convert net.pt --rules examples/your_own_scheme.yaml --trust examples/your_own_scheme.py -o net
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.binarizers.bnn import SteSign
from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear
from binarize.binarizers.sign import Estimator, WeightBinarizer
from binarize.binarizers.statistics import per_channel
from binarize.demo.digits import load_digits, trained_vgg

HERE = Path(__file__)
EPOCHS, BATCH, RATE = 1, 64, 3e-3


class RootMeanSquareSign(WeightBinarizer):
    """sign(w) times the root mean square of each filter, which is constant in the backward pass."""

    def __init__(self, axis: int = 0) -> None:
        super().__init__()
        self.axis = axis
        self.estimator = SteSign()

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(signs, one scale a filter). `axis` is where the filters lie."""
        others = [i for i in range(w.dim()) if i != self.axis]
        return self.estimator(w), w.detach().square().mean(others, keepdim=True).sqrt()


class CauchySign(Estimator):
    """sign(x), with the gradient 1 / (1 + (width x)^2)."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.width = width

    def derivative(self, x: Tensor) -> Tensor:
        return (x * self.width).square().add(1).reciprocal()


class TwoSlopes(Nonlinearity):
    """up z where z > 0, else down z, with z = x + shift; all three learned per channel.

    Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    """

    def __init__(self, channels: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.up = nn.Parameter(torch.ones(channels))
        self.down = nn.Parameter(torch.full((channels,), 0.25))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        up, down, shift = (per_channel(one, x, self.channel_dim) for one in (self.up, self.down, self.shift))
        z = x + shift
        return torch.where(z > 0, up * z, down * z)

    def piecewise(self) -> PiecewiseLinear:
        """The same as numbers: from them the kernels, packed files, C and ONNX make their code."""
        return PiecewiseLinear.of(self.channel_dim, pre=self.shift, positive=self.up, negative=self.down)

    def start_as_relu(self) -> bool:
        """What calibration begins with, where the float model has a ReLU."""
        nn.init.ones_(self.up)
        nn.init.zeros_(self.down)
        nn.init.zeros_(self.shift)
        return True


def trained(images: Tensor, labels: Tensor) -> nn.Module:
    """The bundled network in this scheme, after a few steps."""
    rules, trust = str(HERE.with_suffix(".yaml")), [str(HERE)]
    model = binarize.convert(trained_vgg(), rules=rules, trust=trust, example_input=images[:128])
    optimizer = torch.optim.Adam(model.train().parameters(), lr=RATE)
    for batch in torch.randperm(len(labels)).split(BATCH) * EPOCHS:
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels, held_out, answers = load_digits()
    with torch.enable_grad():
        model = trained(images, labels)
    accuracy = (model(held_out).argmax(1) == answers).float().mean().item()
    parts = sorted({type(m).__name__ for m in model.modules() if "your_own_scheme" in type(m).__module__})
    print(f"converted with {', '.join(parts)}; after a few steps {accuracy:.3f} of the held-out digits")

    frozen = binarize.freeze(model)
    expected = frozen(held_out)
    with tempfile.TemporaryDirectory() as folder, binarize.trusting(str(HERE)):
        packing = binarize.pack(binarize.save(model, f"{folder}/net"))
        assert packing.needs is None, packing.needs
        # The file holds no code of this module, and needs none: only its straight lines.
        alone = shutil.copy(packing.path, f"{folder}/alone.safetensors")
        packed = binarize.load_packed(alone)
        assert torch.equal(packed(held_out), expected)
        print(
            f"packed {packing.layers} layers into {packing.sizes.file:,} bytes, outputs bit-equal to the frozen form"
        )

        fused = binarize.fuse(packed, held_out)
        assert not any(type(module) is PiecewiseLinear for module in fused.modules())
        # Float layers round otherwise in the fast form; an input next to a threshold may fall on its other side.
        same = (fused(held_out).argmax(1) == expected.argmax(1)).float().mean().item()
        assert same > 0.99, same
        print(f"fused, every nonlinearity part of a kernel: same class on {same:.1%}")

        for format in ("c", "onnx"):
            # Each is compared with the frozen form before, and run after it is written.
            done = binarize.export(model, format, f"{folder}/net.{format}", example_input=held_out[:4])
            print(f"exported {done.path.name}:", *done.written.lines, *done.written.warnings, sep="\n  ")


if __name__ == "__main__":
    main()
