"""`load(spec)`: a named builder, a file, a function or a module, as a `Source`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from binarize.errors import SourceError
from binarize.sources import architectures, input_shapes
from binarize.sources.safe_pickle import load_pickle_safely

__all__ = ["Kind", "Source", "build", "load"]

Kind = Literal["module", "torchvision", "timm", "pickle", "state_dict", "factory", "safetensors"]


@dataclass(frozen=True)
class Source:
    """A float model and where it came from.

    `builder` rebuilds the same structure offline with `build(builder, num_classes=...)`, or is None.
    `input_shape` counts the batch; None means that nobody knows it and the user must be asked.
    `weights` is the downloaded tag; None for a builder means random weights.
    """

    spec: str
    kind: Kind
    module: nn.Module
    example_input: tuple[Tensor, ...] | None
    input_shape: tuple[int, ...] | None
    sha256: str | None
    class_path: str
    weights: str | None
    arch: str | None
    builder: str | None = None
    num_classes: int | None = None
    input_shape_from: str = "unknown"


def load(
    spec: str | nn.Module,
    *,
    arch: str | None = None,
    weights: str | None = None,
    num_classes: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    trust_pickle: bool = False,
    device: str | torch.device = "cpu",
    meta: bool = False,
) -> Source:
    """The float model that `spec` names, ready to be captured.

    `meta` builds named builders without parameter data. Only `weights` may touch the network.

    Raises: SourceError, UntrustedSourceError, UsageError.
    """
    if isinstance(spec, nn.Module):
        return _finish("", "module", spec, None, input_shape=input_shape)
    parts = architectures.split(spec)
    if parts is not None:
        built = architectures.build(spec, weights=weights, num_classes=num_classes, meta=meta)
        kind: Kind = "torchvision" if parts[0] == "torchvision" else "timm"
        return _finish(
            spec, kind, built.module, built, input_shape=input_shape, device=device, num_classes=num_classes
        )
    path = Path(spec)
    if not path.is_file():
        raise SourceError(f"{spec}: no such file, and not torchvision:NAME or timm:NAME")
    module = load_pickle_safely(path)
    if not isinstance(module, nn.Module):
        raise SourceError(f"{spec}: holds {type(module).__name__}, expected a whole module")
    return _finish(spec, "pickle", module, None, input_shape=input_shape, device=device)


def build(builder: str, *, num_classes: int | None = None, meta: bool = False) -> nn.Module:
    """The float module that a recorded builder gives: random weights, never the network."""
    return architectures.build(builder, num_classes=num_classes, meta=meta).module


def _finish(
    spec: str,
    kind: Kind,
    module: nn.Module,
    built: architectures.Built | None,
    *,
    input_shape: tuple[int, ...] | None,
    device: str | torch.device | None = None,
    num_classes: int | None = None,
) -> Source:
    if device is not None and not any(p.is_meta for p in module.parameters()):
        module = module.to(device)
    origin = "given"
    if input_shape is None and built is not None:
        input_shape, origin = built.input_shape, "the library's default"
    if input_shape is None:
        input_shape, origin = input_shapes.infer(module), "the first layer"
    inputs = built.inputs if built else 1
    example = input_shapes.example_input(input_shape, module, inputs=inputs) if input_shape else None
    return Source(
        spec=spec or f"{type(module).__module__}.{type(module).__qualname__}",
        kind=kind,
        module=module,
        example_input=example,
        input_shape=tuple(input_shape) if input_shape else None,
        sha256=None,
        class_path=f"{type(module).__module__}.{type(module).__qualname__}",
        weights=built.weights if built else None,
        arch=None,
        builder=spec if built and built.reproducible else None,
        num_classes=num_classes,
        input_shape_from=origin if input_shape else "unknown",
    )
