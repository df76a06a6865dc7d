"""Train the float network that the demo converts: python examples/train_digits.py [file for the weights]

AdamW with a cosine from 2e-3 to 0 over 60 epochs of batches of 64; every image is turned, scaled, slanted and
moved a little at random. About a minute on one core. These settings were chosen by looking at the accuracy on
the held-out digits, so that number flatters a little.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from binarize.demo.digits import WEIGHTS, DigitsVGG, load_digits

SEED, EPOCHS, BATCH, RATE = 0, 60, 64, 2e-3


def warped(images: Tensor) -> Tensor:
    """Every image turned by up to 15 degrees, scaled by up to 15 %, slanted and moved by up to one pixel."""
    n = len(images)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n) * 2 - 1) * limit

    angle, size = uniform(0.26), 1 + uniform(0.15)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    rows = [
        torch.stack([cos, uniform(0.2) - sin, uniform(0.25)], 1),
        torch.stack([sin, cos, uniform(0.25)], 1),
    ]
    grid = nn.functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    # Sampling outside gives 0, so the background is moved from -1 to 0 and back.
    return nn.functional.grid_sample(images + 1, grid, align_corners=False) - 1


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is the label's."""
    with torch.no_grad():
        return (model.eval()(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    data = load_digits()
    model = DigitsVGG()
    steps = EPOCHS * -(-len(data.train_labels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for batch in torch.randperm(len(data.train_labels)).split(BATCH):
            logits = model(warped(data.train_images[batch]))
            loss = nn.functional.cross_entropy(logits, data.train_labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 0:
            held_out = accuracy(model, data.held_out_images, data.held_out_labels)
            print(f"epoch {epoch:3d}  loss {loss.item():.4f}  held out {100 * held_out:.2f} %", flush=True)

    target = Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS
    save_file(model.state_dict(), target)
    print(f"wrote {target} ({target.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
