"""A converted model in Hugging Face's Trainer: python examples/hf_trainer.py   (pip install transformers accelerate)

The Trainer keeps its loop, logging and checkpoints. Three pieces of ours hang in its hooks: the optimizer with its
parameter groups and the clipping of latent weights, the schedules of the estimators as a callback, and the loss with the
float model as teacher, as the output of a module around the model. Half a minute on one core.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import binarize
from binarize.demo.digits import load_digits, trained_vgg
from binarize.training.loop.objective import Objective
from binarize.training.loop.optimizers import make_optimizer
from binarize.training.loop.schedules import Schedules
from binarize.training.recipe import recipe_of
from binarize.training.teachers.teacher import Teacher


class Taught(nn.Module):
    """A model that answers with its loss, as the Trainer wants it."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        losses, logits = self.objective(self.model, images, labels)
        return {"loss": losses.total, "logits": logits}


class Progress(TrainerCallback):
    """Tells the schedules of the estimators how far the training is."""

    def __init__(self, schedules: Schedules) -> None:
        self.schedules = schedules

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.schedules.set(state.global_step / state.max_steps)


def rows(images: Tensor, labels: Tensor) -> list[dict[str, Tensor]]:
    return [{"images": image, "labels": label} for image, label in zip(images, labels)]


def main() -> None:
    torch.set_num_threads(1)
    images, labels, *held_out = load_digits()
    float_model = trained_vgg()
    model = binarize.convert(float_model, "adabin", add_shortcuts=True, example_input=images[:256])
    recipe = recipe_of(model)
    options: dict[str, Any] = {"num_train_epochs": 5, "per_device_train_batch_size": 64, "use_cpu": True}
    options |= {"lr_scheduler_type": "cosine", "max_grad_norm": 0.0, "seed": 0, "disable_tqdm": True}
    options |= {"logging_strategy": "epoch", "eval_strategy": "epoch", "save_strategy": "no", "report_to": []}
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            Taught(model, Objective(recipe, [Teacher(float_model)])),
            TrainingArguments(folder, **options),
            train_dataset=rows(images, labels),
            eval_dataset=rows(*held_out),
            optimizers=(make_optimizer(model, recipe), None),
            callbacks=[Progress(Schedules(model))],
            compute_metrics=lambda p: {"top1": float((p.predictions.argmax(1) == p.label_ids).mean())},
        ).train()


if __name__ == "__main__":
    main()
