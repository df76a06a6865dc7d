"""What a saved model is recognized by: sha256 of its record, of its tensors and of a seeded output."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from binarize.conversion.source_record import SourceRecord
from binarize.inputs.arguments import call
from binarize.kernels.variants import active
from binarize.modules.hooks import silenced_hooks
from binarize.modules.modes import evaluating
from binarize.modules.outputs import tensors_in
from binarize.modules.tensors import _bytes

__all__ = ["machine", "output_digest", "record_digest"]


def record_digest(record: Mapping[str, Any]) -> str:
    """sha256 of everything in binarize.json but the fingerprint."""
    content = {key: value for key, value in record.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def machine() -> dict[str, Any]:
    """What the last digits of an output depend on."""
    return {
        "torch": str(torch.__version__),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        # A training layer may run on these, and AdaBin's last digits then differ from torch's.
        "kernels": getattr(active(needed=False), "name", None),
    }


def output_digest(model: nn.Module, origin: SourceRecord) -> str | None:
    """sha256 of the output on a seeded input; None where the model's inputs are unknown, or on another device."""
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device.type != "cpu":
        return None
    inputs = origin.inputs(model)
    if inputs is None:
        return None
    with silenced_hooks(model), evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            output = call(model, inputs)
        except Exception:  # a forward may look at its numbers, and refuse these in its own way
            return None
    digest = hashlib.sha256()
    for value in tensors_in(output):
        digest.update(_bytes(value.detach().contiguous()))
    return digest.hexdigest()
