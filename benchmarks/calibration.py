"""Accuracy without labels and without training, on Fashion-MNIST: python benchmarks/calibration.py [--draws 3]

A small VGG of six convolutions is trained in float (once; its weights are kept in the folder) on 55,000 training images.
Then, for every draw of 2,000 of those images, without their labels, it is converted and calibrated in four ways:

    W1A32 closed form, W1A1 closed form      thresholds, signs, scales and shifts, classifier; no gradient
    W1A32 steps, W1A1 steps                  and steps of Adam towards the float model's output, within two minutes of a core

Each is evaluated once on the 10,000 test images (--validate: on the 5,000 training images that nothing was trained on).
On one thread; seconds are those of the processor. A killed run goes on where it was when the same command is given again.
Results are lines of benchmarks/results/calibration.jsonl. The data: apt-get install dataset-fashion-mnist
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from networks import make
from safetensors.torch import load_model
from torch import Tensor, nn

import binarize
from binarize.training.data import Preprocessing, open_data
from binarize.training.data.seeds import generator
from binarize.training.data.tensors import normalized

HELD_OUT, EPOCHS = 5000, 5
FLOAT_RECIPE = {
    "optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.02, "schedule": "cosine", "warmup": 0.05,
    "batch_size": 128, "augment": "shift2+flip",
}  # fmt: skip
# Name -> (scheme, steps a layer, steps of all layers, least accuracy asked for)
WAYS: Mapping[str, tuple[str, int, int, float]] = {
    "W1A32 closed form": ("binaryconnect", 0, 0, 0.89),
    "W1A1 closed form": ("reactnet", 0, 0, 0.76),
    "W1A32 steps": ("binaryconnect", 0, 300, 0.905),
    "W1A1 steps": ("reactnet", 0, 900, 0.86),
}
PIXELS = Preprocessing((1, 28, 28), (0.5,), (0.5,))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fashion", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--validate", action="store_true", help="judge by held-out training images")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="some of them alone; repeatable")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = _images(arguments.fashion, "train")
    train, held = slice(HELD_OUT, None), slice(0, HELD_OUT)
    test = (images[held], labels[held]) if arguments.validate else _images(arguments.fashion, "validation")
    model = _float_model(arguments.results, (images[train], labels[train]))
    accuracy = _accuracy(model, *test)
    where = "held-out training" if arguments.validate else "test"
    print(f"float {100 * accuracy:.2f} on {len(test[0]):,} {where} images", flush=True)
    reached = True
    for way in arguments.way or WAYS:
        rows = [
            _row(arguments, way, draw, model, images[train], test, accuracy)
            for draw in range(arguments.draws)
        ]
        found = [row["top1"] for row in rows]
        reached &= statistics.mean(found) >= WAYS[way][3]
        print(
            f"{way:18s} {100 * statistics.mean(found):.2f} ({', '.join(f'{100 * x:.2f}' for x in found)}), "
            f"asked for {100 * WAYS[way][3]:.1f}; {max(row['seconds'] for row in rows):.0f} s at most",
            flush=True,
        )
    return 0 if reached else 1


def _row(
    arguments: argparse.Namespace,
    way: str,
    draw: int,
    model: nn.Module,
    images: Tensor,
    test: tuple[Tensor, Tensor],
    reference: float,
) -> dict[str, Any]:
    """The recorded result, or a new one that is then recorded."""
    scheme, steps, joint, _ = WAYS[way]
    key = {
        "way": way, "draw": draw, "scheme": scheme, "steps": steps, "joint_steps": joint,
        "images": arguments.images, "validate": arguments.validate, "float": reference,
    }  # fmt: skip
    file = arguments.results / "calibration.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    for line in map(json.loads, lines):
        if all(line.get(name) == value for name, value in key.items()):
            return dict(line)
    chosen = torch.randperm(len(images), generator=generator(1000, draw))[: arguments.images]
    batch = images[chosen]
    binary = binarize.convert(model, scheme, example_input=batch[:2], calibrate=False)
    started = time.process_time()
    found = binarize.calibrate(binary, batch, model, steps=steps, joint_steps=joint, seed=draw)
    seconds = time.process_time() - started
    row = {**key, "top1": _accuracy(binary, *test), "agreement": found.agreement, "seconds": seconds}
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")
    return row


def _float_model(results: Path, train: tuple[Tensor, Tensor]) -> nn.Module:
    """The float network, trained unless its folder holds it already."""
    folder = results / "calibration" / "float"
    model = make("vgg6")
    if not (folder / "model.safetensors").is_file():
        started = time.process_time()
        unfinished = (folder / "checkpoints" / "last.ckpt").is_file()
        binarize.finetune(
            model,
            train,
            validation=False,
            epochs=EPOCHS,
            recipe=FLOAT_RECIPE,
            teacher="none",
            out=folder,
            resume=unfinished,
            force=not unfinished,
            seed=0,
            device="cpu",
            precision="bf16",
            channels_last=True,
        )
        print(f"float network trained in {(time.process_time() - started) / 60:.1f} minutes", flush=True)
        # In the layout that everything else here has.
        model = make("vgg6")
    load_model(model, str(folder / "model.safetensors"))
    return model.eval()


def _images(folder: str, split: str) -> tuple[Tensor, Tensor]:
    data = open_data(f"idx:{folder}", split)
    assert data is not None
    dataset: Any = data.dataset
    images: Tensor = normalized(dataset.images, PIXELS)
    return images, dataset.labels


def _accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500))
        )
    return right / len(images)


if __name__ == "__main__":
    raise SystemExit(main())
