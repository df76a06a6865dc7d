"""A small training as a program of its own, for tests that kill it or run several of it: `python processes.py FOLDER ...`"""

from __future__ import annotations

import argparse
import time
from typing import Any

import nets
import torch
from torch import Tensor, nn

from binarize.training.fit import Settings, fit
from binarize.training.prepare import prepare
from binarize.training.recipe import chosen_recipe
from binarize.training.records.folder import TrainingFolder
from binarize.training.trainer import Machine


class Normless(nn.Module):
    """No norm and no dropout: what one process computes of a batch does not depend on the rest of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nets.conv(3, 16), nets.conv(), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.relu(self.second(x)).mean((2, 3)))


def model(norm: bool) -> nn.Module:
    import binarize

    torch.manual_seed(0)
    if norm:
        return binarize.convert(nets.seeded(nets.ALL["ConvRelu"]), "adabin", example_input=nets.pictures(4))
    rules = {"schema": 1, "extends": "bireal", "name": "plain", "scheme": {"norm": "never"}}
    return binarize.convert(Normless(), rules=rules, example_input=nets.pictures(4))


def run(folder: str, *, epochs: int, norm: bool, resume: bool, slow: float, devices: int) -> nn.Module:
    trained = model(norm)
    target = TrainingFolder(folder)
    stored = target.open(resume)
    changes: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": 8,
        "teacher": "none",
        "augment": "shift1+flip",
        "lr": 1e-3,
    }

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        time.sleep(slow)
        return nn.functional.cross_entropy(output, labels)

    recipe = chosen_recipe(trained, None, changes, stored=stored)
    prepared = prepare(trained, "fake:24", recipe, loss=loss, stored=stored)
    machine = Machine.here("cpu", devices)
    fit(prepared, Settings(machine=machine, checkpoint_steps=1), target, stored)
    target.finish(trained, prepared.record())
    return trained


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--norm", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--devices", type=int, default=1)
    run(**vars(parser.parse_args()))
