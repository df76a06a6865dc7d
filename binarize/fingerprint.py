"""What a saved model is recognized by: sha256 of its record, of its tensors and of a seeded output."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from binarize.capture.outputs import tensors_in
from binarize.capture.shadow import silenced_hooks
from binarize.conversion import SourceRecord
from binarize.liveness import call, evaluating
from binarize.packed.kernels import active
from binarize.sources.structure import tied_tensors

__all__ = [
    "is_permuted",
    "machine",
    "output_digest",
    "record_digest",
    "tensor_digest",
    "tensors_of",
    "unique_tensors",
]


def unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with tied tensors once and everything contiguous."""
    tied = {name for group in tied_tensors(model) for name in group[1:]}
    unique: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in tensors_of(model).items():
        if name in tied:
            continue
        value = value.detach().contiguous()
        # Views of one tensor are written one by one.
        storage = value.untyped_storage().data_ptr()
        unique[name] = value.clone() if storage in storages else value
        storages.add(storage)
    return unique


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without what is no tensor (extra state of modules)."""
    state = model.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def is_permuted(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a tensor fills its memory in another order than that of its axes."""
    if len(shape) != len(strides):
        return False
    expected = 1
    for stride, size in sorted(zip(strides, shape)):
        if size > 1 and stride != expected:
            return False  # it has gaps, or shows elements twice
        expected *= size
    return tuple(strides) != torch.empty(tuple(shape), device="meta").stride()


def record_digest(record: Mapping[str, Any]) -> str:
    """sha256 of everything in binarize.json but the fingerprint."""
    content = {key: value for key, value in record.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    """The tensor's memory, not copied: a numpy array, which is a buffer."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


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
    """sha256 of the output on a seeded input; None where nobody knows one that the model takes, or on another device."""
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
