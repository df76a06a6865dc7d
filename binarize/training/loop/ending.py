"""With which weights a training ends: those of the last step or their moving average, of the last epoch or of the best one.

The moving average is timm's; validation looks at it, and the trained model has it. Statistics of BatchNorm belong to the
weights of a moment, so they may be taken anew at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["Average", "Best", "take_norms_anew"]


class Average:
    """The moving average of a model's parameters and buffers: a copy of it that follows, in evaluation mode.

    In the first steps it follows faster, since there is nothing yet to average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        from timm.utils import ModelEmaV3

        self._average = ModelEmaV3(model, decay=decay, use_warmup=True)

    @property
    def model(self) -> nn.Module:
        """The copy."""
        module: nn.Module = self._average.module
        return module

    def update(self, model: nn.Module, step: int) -> None:
        """After that many steps of the optimizer."""
        self._average.update(model, step=step)


class Best:
    """The tensors of the best epoch so far by validation: by top-1 where there are classes, else by the loss.

    Of equal epochs the later one is kept: its weights have settled more.
    """

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.value = 0.0
        self.tensors: dict[str, Tensor] = {}

    def look(self, model: nn.Module, epoch: int, row: Mapping[str, Any]) -> None:
        """Keep the model's tensors if this epoch is the best."""
        top1, loss = row.get("val_top1"), row.get("val_loss")
        if top1 is None and loss is None:
            return
        value = float(top1) if top1 is not None else -float(loss or 0.0)
        if self.epoch is None or value >= self.value:
            self.epoch, self.value = epoch, value
            self.tensors = {
                name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()
            }

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"epoch": self.epoch, "value": self.value, "tensors": self.tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.epoch, self.value, self.tensors = state["epoch"], state["value"], dict(state["tensors"])


@torch.no_grad()
def take_norms_anew(model: nn.Module, batches: Iterable[Any]) -> int:
    """Set the running statistics of every BatchNorm to the mean over these batches; how many images there were.

    All else runs as in evaluation; the model's modes stay as they are.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    images = 0
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            # The plain mean over the batches.
            norm.momentum = None
            norm.train()
        for batch in batches:
            model(pytree.tree_map_only(Tensor, lambda t: t.to(device), batch.images))
            images += len(pytree.tree_leaves(batch.images)[0])
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return images
