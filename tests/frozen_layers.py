"""Binary layers to freeze, of every kind of layer, weight and input, and the law that they are held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from binarize.binarizers.adabin import AdaptiveInput, AdaptiveWeight
from binarize.binarizers.bireal import ApproxSign, ScaledSign
from binarize.binarizers.bnn import SteSign
from binarize.binarizers.dorefa import LayerScaledSign, ZeroOne
from binarize.binarizers.ienet import MultiSign, StandardSign
from binarize.binarizers.irnet import LibraWeight
from binarize.binarizers.reactnet import RSign
from binarize.layers.classes import binary_class
from binarize.layers.layer import BinaryLayer
from binarize.packed.fold import freeze_layer
from binarize.packed.frozen.layer import FrozenLayer
from binarize.packed.layers import PackedLayer

__all__ = ["INPUTS", "LAYERS", "TOLERANCE", "WEIGHTS", "assert_frozen", "perturbed", "randn", "trained"]

# Of the largest magnitude of a layer's output.
TOLERANCE = 1e-5


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perturbed(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random numbers in all it holds, as training would leave them."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if not value.is_floating_point() or value.dim() == 0:
            continue
        noise = torch.randn(value.shape, generator=generator)
        value.data.copy_(noise.abs() + 0.1 if name.endswith("running_var") else noise)
    return module.eval()


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv2d": (lambda: nn.Conv2d(8, 6, 3, padding=1), (2, 8, 7, 6)),
    "strided": (lambda: nn.Conv2d(8, 6, (3, 2), (2, 1), (0, 1), dilation=(1, 2)), (2, 8, 7, 6)),
    "groups": (lambda: nn.Conv2d(8, 6, 3, padding=1, groups=2), (2, 8, 7, 6)),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), (2, 8, 7, 6)),
    "reflect": (lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), (2, 8, 7, 6)),
    "conv1d": (lambda: nn.Conv1d(8, 6, 5, padding=2), (2, 8, 9)),
    "conv3d": (lambda: nn.Conv3d(8, 6, 3, padding=1), (1, 8, 3, 5, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, groups=2), (2, 8, 4, 3)),
    "linear": (lambda: nn.Linear(8, 6), (5, 8)),
    "tokens": (lambda: nn.Linear(8, 6), (2, 5, 8)),
}
Maker = Callable[[int, int], nn.Module]
WEIGHTS: dict[str, Maker] = {
    "signs": lambda axis, _: SteSign(),
    "adabin": lambda axis, _: AdaptiveWeight(axis=axis),
    "bireal": lambda axis, _: ScaledSign(axis=axis),
    "dorefa": lambda axis, _: LayerScaledSign(),
    "irnet": lambda axis, _: LibraWeight(axis=axis),
    "ienet": lambda axis, _: StandardSign(axis=axis),
}
INPUTS: dict[str, Callable[[int], nn.Module | None]] = {
    "signs": lambda dim: ApproxSign(),
    "adabin": lambda dim: AdaptiveInput(),
    "adabin code": lambda dim: AdaptiveInput(form="code"),
    "rsign": lambda dim: RSign(8, dim),
    "zero one": lambda dim: ZeroOne(),
    "multi": lambda dim: MultiSign(8, dim, thresholds=3),
    "float": lambda dim: None,
}


def trained(name: str, weight: str, inputs: str, **options: Any) -> BinaryLayer:
    torch.manual_seed(0)
    layer = LAYERS[name][0]()
    cls = binary_class(layer)
    assert cls is not None
    axis, dim = int(name == "transposed"), -1 if name == "tokens" else 1
    binarizer = INPUTS[inputs](dim)
    made = cls.from_float(
        layer, weight_binarizer=WEIGHTS[weight](axis, dim), input_binarizer=binarizer, **options
    )
    if binarizer is not None:
        perturbed(binarizer, 1)
    if isinstance(binarizer, AdaptiveInput):
        binarizer.alpha.data.abs_()
    return made.eval()


def assert_frozen(layer: BinaryLayer, x: Tensor, norm: nn.Module | None = None) -> FrozenLayer:
    """The frozen layer computes what the trained one does, and the packed one the same bits."""
    frozen = freeze_layer(layer, norm)
    assert isinstance(frozen, FrozenLayer), frozen
    with torch.no_grad():
        expected = layer(x) if norm is None else norm(layer(x))
        found = frozen(x)
        packed = PackedLayer.of(frozen.form, frozen.lower)
        packed.take_parts(frozen)
        assert torch.equal(packed(x), found)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return frozen
