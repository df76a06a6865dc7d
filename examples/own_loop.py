"""Convert a network and train it with a loop of your own: python examples/own_loop.py

The result of `convert` is an ordinary module: any optimizer, any loss, any loop. This one fits the bundled digits in
about a minute on one core and prints the accuracy before and after.
"""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.demo.digits import load_digits, trained_vgg

EPOCHS, BATCH, RATE = 6, 64, 3e-3


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is the label's."""
    with torch.no_grad():
        return (model.eval()(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels, *held_out = load_digits()

    # Real images as the example set thresholds and BatchNorm statistics; `float_model` stays as it was.
    float_model = trained_vgg()
    model = binarize.convert(float_model, "adabin", add_shortcuts=True, example_input=images[:256])
    print(f"float {accuracy(float_model, *held_out):.3f}, converted {accuracy(model, *held_out):.3f}")

    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(labels) // BATCH))
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for batch in torch.randperm(len(labels)).split(BATCH):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch}  {accuracy(model, *held_out):.3f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        binarize.save(model, f"{folder}/digits")
        loaded = binarize.load(f"{folder}/digits")
        same = torch.equal(loaded.eval()(held_out[0]), model.eval()(held_out[0]))
        print(f"saved and loaded, outputs bit-equal: {same}")


if __name__ == "__main__":
    main()
