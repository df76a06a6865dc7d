"""Schedules of binarizers: numbers that change during training, written into the buffers where the binarizers read them.

    kind                writes    at progress p = e / E
    ede, iee, rbnn      t, k      t = t_min (t_max / t_min)^p,  k = max(1 / t, 1)
    recu                tau       (tau_max - tau_min) (exp(p) - 1) / (e - 1) + tau_min
    fda                 n         n_min + floor(steps p)
    reste               o         1 + (o_max - 1) p
    fda_noise           alpha     alpha_max (1 + cos(pi p)) / 2

p counts optimizer steps where the papers count epochs: in a short training a whole epoch is a coarse step. A value depends on
p alone and lies in a buffer, so a checkpoint holds it and a resumed training goes on with the same numbers.

Sources: Qin et al., IR-Net, CVPR 2020, https://arxiv.org/abs/1909.10788; Ding et al., IE-Net, 2022,
https://doi.org/10.3390/electronics11060937; Lin et al., RBNN, NeurIPS 2020, https://arxiv.org/abs/2009.13055;
Xu et al., ReCU, ICCV 2021, https://arxiv.org/abs/2103.12369; Xu et al., FDA-BNN, NeurIPS 2021,
https://arxiv.org/abs/2103.00841; Wu et al., ReSTE, ICCV 2023, https://arxiv.org/abs/2308.06689. Starting values are those
of the authors' code; that of ReSTE's last root is the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from binarize.conversion.conversion import conversion_of
from binarize.errors import RuleError, did_you_mean
from binarize.layers.layer import BinaryLayer

__all__ = ["KINDS", "Kind", "Schedules", "fourier_terms", "noise_share", "root", "sharpness", "tolerance"]


def sharpness(progress: float, t_min: float, t_max: float) -> dict[str, float]:
    """t, which grows from t_min to t_max, and k = max(1 / t, 1)."""
    t = t_min * (t_max / t_min) ** progress
    return {"t": t, "k": max(1 / t, 1.0)}


def tolerance(progress: float, tau_min: float, tau_max: float) -> dict[str, float]:
    """tau of ReCU, from tau_min to tau_max, slowly at first."""
    return {"tau": (tau_max - tau_min) * math.expm1(progress) / math.expm1(1) + tau_min}


def fourier_terms(progress: float, n_min: float, steps: float) -> dict[str, float]:
    """n of the Fourier series of FDA-BNN, from n_min up by `steps`, an integer."""
    return {"n": n_min + math.floor(steps * progress)}


def root(progress: float, o_max: float) -> dict[str, float]:
    """o of ReSTE, whose derivative is that of the o-th root, from 1 to o_max along a line."""
    return {"o": 1 + (o_max - 1) * progress}


def noise_share(progress: float, alpha_max: float) -> dict[str, float]:
    """alpha of FDA-BNN's noise adaptation, from alpha_max to 0 along half a cosine."""
    return {"alpha": alpha_max * (1 + math.cos(math.pi * progress)) / 2}


@dataclass(frozen=True)
class Kind:
    """One kind of schedule: what it computes, and its options with their usual values."""

    values: Callable[..., dict[str, float]]
    options: Mapping[str, float]


KINDS: Mapping[str, Kind] = {
    "ede": Kind(sharpness, {"t_min": 1e-3, "t_max": 10.0}),
    "iee": Kind(sharpness, {"t_min": 1e-2, "t_max": 10.0}),
    "rbnn": Kind(sharpness, {"t_min": 1e-2, "t_max": 10.0}),
    "recu": Kind(tolerance, {"tau_min": 0.85, "tau_max": 0.99}),
    "fda": Kind(fourier_terms, {"n_min": 9.0, "steps": 9.0}),
    "reste": Kind(root, {"o_max": 3.0}),
    "fda_noise": Kind(noise_share, {"alpha_max": 0.1}),
}

# The first word of a target -> the layer's attribute.
_SLOTS = {
    "weight": "weight_binarizer",
    "input": "input_binarizer",
    "scale": "scale",
    "nonlinearity": "activation",
}


@dataclass(frozen=True)
class _Entry:
    kind: Kind
    options: Mapping[str, float]
    buffers: Mapping[str, Tensor]


class Schedules:
    """The schedules of a converted model, as the schemes of its layers name them.

    Example:
        >>> schedules = Schedules(model)        # doctest: +SKIP
        >>> schedules.set(step / steps)         # doctest: +SKIP
    """

    def __init__(self, model: nn.Module) -> None:
        self._entries = list(_entries(model))
        self._layers = [layer for layer in model.modules() if isinstance(layer, BinaryLayer)]

    def __len__(self) -> int:
        return len(self._entries)

    @torch.no_grad()
    def set(self, progress: float) -> None:
        """Write what belongs to this share of the training, from 0 to 1, into the buffers."""
        for entry in self._entries:
            values = entry.kind.values(progress, **entry.options)
            for name, buffer in entry.buffers.items():
                buffer.fill_(values[name])

    @torch.no_grad()
    def look(self, *, new_epoch: bool) -> None:
        """Let weight binarizers that ask for it look at their weights, before each step and before each epoch.

        RBNN fits its rotations anew in each epoch, ReBNN counts the signs that each step turned; both into buffers.
        """
        for layer in self._layers:
            binarizer = layer.weight_binarizer
            for name in ("before_epoch", "before_step") if new_epoch else ("before_step",):
                if hasattr(binarizer, name):
                    getattr(binarizer, name)(layer.real_weight())


def _entries(model: nn.Module) -> Iterator[_Entry]:
    conversion = conversion_of(model)
    if conversion is None:
        return
    seen: set[int] = set()
    for decision in conversion.plan.binarized:
        layer = model.get_submodule(decision.layer.name)
        assert isinstance(layer, BinaryLayer) and decision.scheme is not None
        for number, data in enumerate(conversion.plan.schemes[decision.scheme].schedule):
            where = f'scheme "{decision.scheme}": schedule[{number}]'
            if decision.weights_only and str(data["target"]).startswith("input"):
                continue
            entry = _entry(layer, data, where)
            # A layer that stands at several paths has one set of buffers.
            if id(next(iter(entry.buffers.values()))) not in seen:
                seen.update(id(buffer) for buffer in entry.buffers.values())
                yield entry


def _entry(layer: BinaryLayer, data: Mapping[str, object], where: str) -> _Entry:
    kind = KINDS.get(str(data["kind"]))
    if kind is None:
        raise RuleError(
            f"{where}: no kind {data['kind']!r} (known are {', '.join(KINDS)}){did_you_mean(str(data['kind']), KINDS)}"
        )
    given = {key: value for key, value in data.items() if key not in ("target", "kind")}
    for key, value in given.items():
        if key not in kind.options:
            raise RuleError(f"{where}: {data['kind']} takes no {key!r}{did_you_mean(key, kind.options)}")
        if not isinstance(value, (int, float)):
            raise RuleError(f"{where}: {key} is {value!r}; expected a number")
    options = {**kind.options, **given}
    target = str(data["target"])
    module = _target(layer, target, where)
    names = kind.values(0.0, **options)
    buffers = dict(module.named_buffers(recurse=False))
    for name in names:
        if name not in buffers:
            raise RuleError(
                f"{where}: {target} is a {type(module).__name__}, which has no buffer {name!r} for {data['kind']} to write"
            )
    return _Entry(kind, options, {name: buffers[name] for name in names})  # type: ignore[arg-type]


def _target(layer: BinaryLayer, target: str, where: str) -> nn.Module:
    """The module at a path such as "weight.estimator". Raises RuleError with the nearest name."""
    slot, *path = target.split(".")
    if slot not in _SLOTS:
        raise RuleError(
            f"{where}: target {target!r} begins with none of {', '.join(_SLOTS)}{did_you_mean(slot, _SLOTS)}"
        )
    module = getattr(layer, _SLOTS[slot])
    for word in path:
        children = dict(module.named_children()) if isinstance(module, nn.Module) else {}
        if word not in children:
            raise RuleError(
                f"{where}: target {target!r}: {type(module).__name__} has no part {word!r}{did_you_mean(word, children)}"
            )
        module = children[word]
    if not isinstance(module, nn.Module):
        raise RuleError(f"{where}: target {target!r}: the layer has no {slot} part")
    return module
