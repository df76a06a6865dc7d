"""A model in evaluation mode, or torch on other threads, for a while; then all is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["evaluating", "torch_threads", "undisturbed"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode again afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Torch's random numbers go on afterwards as if nothing had run, and what is made inside can be trained."""
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)), torch.inference_mode(False):
        yield


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch on so many threads for a while, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
