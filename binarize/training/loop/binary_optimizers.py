"""Optimizers of binary weights alone, and how one of them and any other optimizer make one.

Bop         a weight turns round where a mean of its gradients says so     Helwegen et al., Latent Weights Do Not Exist,
                                                                           2019, https://arxiv.org/abs/1906.02107
BayesBiNN   parameters of probabilities follow their natural gradient      Meng, Bachmann, Khan, ICML 2020,
                                                                           https://arxiv.org/abs/2002.10778
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from binarize.binarizers.sign import sign

__all__ = ["BayesBiNN", "Bop", "Composite"]

Groups = Iterable[Tensor] | Iterable[dict[str, Any]]


class Bop(Optimizer):
    """m <- (1 - rate) m + rate g; a weight turns round where m has its sign and is larger than `threshold`.

    rate = gamma lr / unit. lr is what a scheduler changes; unit is its value at first, so that gamma falls as lr does. Only
    signs matter: a weight keeps its size.
    """

    def __init__(
        self,
        params: Groups,
        gamma: float = 1e-4,
        threshold: float = 1e-8,
        *,
        lr: float = 1.0,
        unit: float = 1.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "gamma": gamma, "threshold": threshold, "unit": unit})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every weight that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            rate = group["gamma"] * group["lr"] / group["unit"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["mean"] = torch.zeros_like(weight)
                mean = state["mean"].mul_(1 - rate).add_(weight.grad, alpha=rate)
                weight.copy_(torch.where(mean * sign(weight) > group["threshold"], -weight, weight))
        return loss


class BayesBiNN(Optimizer):
    """w <- w - rate (w + N d - prior), d the mean of the gradients with `momentum`, its start corrected; N images.

    The gradient has to be the natural one, as `bayesbinn.MeanFieldSign` gives it. rate = gamma lr / unit, as of `Bop`.
    """

    def __init__(
        self,
        params: Groups,
        gamma: float = 1e-4,
        images: int = 1,
        *,
        momentum: float = 0.0,
        prior: float = 0.0,
        lr: float = 1.0,
        unit: float = 1.0,
    ) -> None:
        options = {"gamma": gamma, "images": images, "momentum": momentum, "prior": prior}
        super().__init__(params, {"lr": lr, "unit": unit, **options})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            rate, beta = group["gamma"] * group["lr"] / group["unit"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"], state["mean"] = 0, torch.zeros_like(weight)
                state["step"] += 1
                mean = state["mean"].mul_(beta).add_(weight.grad, alpha=1 - beta)
                corrected = mean / (1 - beta ** state["step"])
                weight.mul_(1 - rate).sub_(corrected * group["images"] - group["prior"], alpha=rate)
        return loss


class Composite(Optimizer):
    """Several optimizers as one: their groups in a row, one step of each, one state.

    Schedulers see all groups. The groups are the optimizers' own objects, so that what is changed in one is changed in both.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        groups = [group for one in optimizers for group in one.param_groups]
        super().__init__([{"params": list(group["params"])} for group in groups], {})
        self.optimizers = optimizers
        self.param_groups = groups

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each; the loss is computed once."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for one in self.optimizers:
            one.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of all of them, in their order."""
        return {"optimizers": [one.state_dict() for one in self.optimizers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for one, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            one.load_state_dict(cast(dict[str, Any], state))
        self.param_groups = [group for one in self.optimizers for group in one.param_groups]
