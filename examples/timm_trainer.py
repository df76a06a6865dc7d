"""A converted model in timm's training loop: python examples/timm_trainer.py

timm has no trainer class: its train.py is a loop over its loader, scheduler, moving average and meters. Here they train
a converted network, with three pieces of ours: the optimizer with its parameter groups and the clipping of latent
weights, the schedules of the estimators, and the loss with the float model as teacher. Half a minute on one core.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.data import create_loader
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3, accuracy
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_pil_image

import binarize
from binarize.demo.digits import load_digits, trained_vgg
from binarize.training.loop.objective import Objective
from binarize.training.loop.optimizers import make_optimizer
from binarize.training.loop.schedules import Schedules
from binarize.training.recipe import recipe_of
from binarize.training.teachers.teacher import Teacher

EPOCHS = 5


class Digits(Dataset[Any]):
    """The bundled digits as timm's loader takes images: from PIL, with a transform that the loader sets."""

    transform: Any = None

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(to_pil_image((self.images[index] + 1) / 2)), int(self.labels[index])


def loader_of(images: Tensor, labels: Tensor, training: bool) -> Any:
    options: dict[str, Any] = {"mean": (0.5,), "std": (0.5,), "crop_pct": 1.0, "use_prefetcher": False}
    options |= {"num_workers": 0, "persistent_workers": False, "no_aug": True}
    return create_loader(Digits(images, labels), (1, 8, 8), 64, is_training=training, **options)


def main() -> None:
    torch.manual_seed(0), torch.set_num_threads(1)
    images, labels, *held_out = load_digits()
    float_model = trained_vgg()
    model = binarize.convert(float_model, "adabin", add_shortcuts=True, example_input=images[:256])
    loader, held = loader_of(images, labels, True), loader_of(*held_out, False)
    recipe, steps = recipe_of(model), len(loader)
    optimizer, schedules = make_optimizer(model, recipe), Schedules(model)
    objective = Objective(recipe, [Teacher(float_model)])
    average = ModelEmaV3(model, 0.99, use_warmup=True)
    counted: dict[str, Any] = {"updates_per_epoch": steps, "step_on_epochs": False}
    rates, _ = create_scheduler_v2(optimizer, "cosine", EPOCHS, warmup_epochs=0, **counted)
    for epoch in range(EPOCHS):
        losses, top1 = AverageMeter(), AverageMeter()
        for step, (batch, wanted) in enumerate(loader, epoch * steps):
            schedules.set(step / (EPOCHS * steps))
            found, _ = objective(model.train(), batch, wanted)
            optimizer.zero_grad(), found.total.backward()
            optimizer.step()
            average.update(model, step + 1)
            rates.step_update(step + 1)
            losses.update(found.total.item(), len(wanted))
        for batch, wanted in held:
            top1.update(accuracy(average.module(batch).detach(), wanted)[0].item(), len(wanted))
        print(f"epoch {epoch + 1}  loss {losses.avg:.4f}  held out {top1.avg:.2f} %", flush=True)


if __name__ == "__main__":
    main()
