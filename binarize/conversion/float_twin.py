"""The float model of a converted one, made again from the weights that conversion left as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from binarize.conversion.conversion import conversion_of
from binarize.conversion.float_names import float_names
from binarize.modules.copies import copy_model
from binarize.sources import build

__all__ = ["float_mark", "float_twin", "mark_of"]

_PIECE = 1 << 20


def float_mark(model: nn.Module, names: list[str]) -> str:
    """A digest of some tensors that changes when any of them is trained; independent of threads, and cheap.

    The bits of each tensor are summed as integers: half of a model's memory speed instead of a hash's.
    """
    own = model.state_dict()
    # A module's extra state may be no tensor.
    sums = [f"{name}={_bits(own[name])}" for name in sorted(names) if isinstance(own[name], Tensor)]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()


def _bits(tensor: Tensor) -> int:
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    plain = torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor.detach()
    found = plain.contiguous().view(words[plain.element_size()])
    # A sum of narrow integers makes wide ones of all it is given first.
    return sum(int(piece.sum(dtype=torch.int64)) for piece in found.flatten().split(_PIECE))


def float_twin(model: nn.Module) -> nn.Module | None:
    """The float model, from the latent weights, norms and biases of a model that was only converted since.

    None where it was calibrated or trained, or its scheme scaled them: its weights are the float model's no longer.
    """
    conversion = conversion_of(model)
    if conversion is None or conversion.plan.capture.float_weights is None:
        return None
    record = conversion.source
    with torch.random.fork_rng(devices=[]):
        if conversion.skeleton is not None:
            twin = copy_model(conversion.skeleton)
        elif record.builder is not None:
            twin = build(record.builder, num_classes=record.num_classes)
        else:
            return None
    own, moved = model.state_dict(), float_names(model)
    names = {name: moved.get(name, name) for name in twin.state_dict()}
    if any(name not in own for name in names.values()):
        return None
    if float_mark(model, list(names.values())) != conversion.plan.capture.float_weights:
        return None
    values = ((name, own[source]) for name, source in names.items())
    copies = {name: value.clone() if isinstance(value, Tensor) else value for name, value in values}
    twin.load_state_dict(copies, assign=True)
    return twin.eval()


def mark_of(model: nn.Module, names: Sequence[str]) -> str | None:
    """By what the plan knows the float weights again, where conversion left them as they were; `names` are those before."""
    if any(getattr(module, "scales_weights", False) for module in model.modules()):
        return None
    moved = float_names(model)
    return float_mark(model, [moved.get(name, name) for name in names])
