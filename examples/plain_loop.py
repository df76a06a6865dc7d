"""The pieces of `binarize.finetune` in a loop of your own: python examples/plain_loop.py

Recipe, parameter groups, clipping, the schedules of the estimators, the teacher's loss and the count of sign flips are
objects that any loop can use. This one fits the bundled digits in about a minute on one core.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import binarize
from binarize.demo.digits import load_digits, trained_vgg
from binarize.training.loop.flips import Flips
from binarize.training.loop.objective import Objective
from binarize.training.loop.optimizers import make_optimizer, make_rates
from binarize.training.loop.schedules import Schedules
from binarize.training.recipe import recipe_of
from binarize.training.teachers.teacher import Teacher

EPOCHS = 6


def train(model: nn.Module, float_model: nn.Module, images: Tensor, labels: Tensor) -> None:
    recipe = recipe_of(model).changed({"epochs": EPOCHS, "batch_size": 64})
    batches = len(labels) // recipe.batch_size
    steps = batches * recipe.epochs
    optimizer = make_optimizer(model, recipe)
    rates = make_rates(optimizer, recipe, steps, batches)
    schedules, objective = Schedules(model), Objective(recipe, [Teacher(float_model)])
    for step in range(steps):
        schedules.set(step / steps)
        batch = torch.randint(len(labels), (recipe.batch_size,))
        losses, _ = objective(model.train(), images[batch], labels[batch])
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        rates.step_update(step + 1)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels, *held_out = load_digits()
    float_model = trained_vgg()
    model = binarize.convert(float_model, "adabin", add_shortcuts=True, example_input=images[:256])
    flips = Flips(model)
    train(model, float_model, images, labels)
    for name, share in flips.count().items():
        print(f"{name}: {100 * share:.1f} % of the signs changed")
    found = binarize.evaluate(model, (held_out[0], held_out[1]), float_model)
    assert found.model is not None and found.reference is not None
    print(f"float {found.reference.top1:.3f}, binary {found.model.top1:.3f}, the same {found.agreement:.3f}")


if __name__ == "__main__":
    main()
