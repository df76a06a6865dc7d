"""The whole model recorded: in evaluation mode, and in training mode for what runs only there."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.utils import _pytree as pytree

from binarize.attention.explicit import explicit_attentions, why_not_explicit
from binarize.capture.tape import Recording, UncopiedError, record
from binarize.errors import CaptureError, SourceError, way
from binarize.modules.copies import meta_like, shadow

__all__ = ["Graph", "capture"]


@dataclass
class Graph:
    """What a model computes on an example.

    `shadow` is a copy of the model without data (or, on a real device, with its own): every path of the graph names
    a module in it, and containers are traced on it, so that the model itself is never run, traced or changed.
    """

    shadow: nn.Module
    evaluation: Recording
    # None where the model cannot run in training mode on the example (detectors ask for targets).
    training: Recording | None
    # "walk": it did not run, and the recordings are empty (see analysis/walk.py).
    level: Literal["meta", "device", "walk"] = "meta"
    notes: tuple[str, ...] = field(default=())

    @property
    def calls(self) -> dict[str, int]:
        """How often each module is called, by path, over both modes."""
        counted = dict(self.training.calls) if self.training else {}
        return {**counted, **self.evaluation.calls}


def capture(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Graph:
    """Record the model on an example, without data on the meta device first, else with real tensors.

    Raises: CaptureError with the exception and the line of the model's code, if it runs on neither; SourceError, where
    a copy of the model computes with weights of the original.
    """
    try:
        return _captured(module, args, dict(kwargs or {}), _originals(module))
    except UncopiedError as error:
        raise SourceError(
            f"a copy of the model still computes with its {error}: an object of its code holds the module, and no "
            "copy reaches into that\n  call the layer as a child of the module (self.layer(x)), or hold it in a list, "
            "a dictionary or a function among the module's attributes"
        ) from None


def _originals(module: nn.Module) -> dict[int, str]:
    """id of each parameter and buffer -> its path."""
    held = (*module.named_parameters(), *module.named_buffers())
    return {id(tensor): path for path, tensor in held}


def _captured(
    module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], originals: Mapping[int, str]
) -> Graph:
    try:
        return _on_meta(_explicit(shadow(module)), args, keywords, originals)
    except UncopiedError:
        raise
    except Exception as meta_error:  # data-dependent code fails on meta tensors in any way it likes
        note = f"not recordable without data ({_line(meta_error)})"
    try:
        return _on_device(_explicit(shadow(module, meta=False)), args, keywords, originals, note)
    except UncopiedError:
        raise
    except Exception as error:
        failure = error
    # What reads the weights of an attention itself runs only while they lie where torch puts them.
    if any(path and why_not_explicit(part) is None for path, part in module.named_modules()):
        with contextlib.suppress(Exception):
            return _on_meta(shadow(module), args, keywords, originals)
        with contextlib.suppress(Exception):
            return _on_device(shadow(module, meta=False), args, keywords, originals, note)
    raise CaptureError(
        f"the model does not run on the example input {_shapes(args, keywords)}: {_line(failure)}\n"
        f"  give an example that it accepts: {way('--input-shape', 'example_input=...')}"
    ) from failure


def _explicit(copy: nn.Module) -> nn.Module:
    """The copy, with the projections of every attention as layers of their own."""
    explicit_attentions(copy)
    return copy


def _on_meta(
    copy: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], originals: Mapping[int, str]
) -> Graph:
    return _capture(copy, *_to_meta(args, kwargs), originals, level="meta", notes=())


def _on_device(
    copy: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], originals: Mapping[int, str], note: str
) -> Graph:
    return _capture(copy, *_clone(args, kwargs), originals, level="device", notes=(note,))


def _capture(
    copy: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    originals: Mapping[int, str],
    *,
    level: Literal["meta", "device"],
    notes: tuple[str, ...],
) -> Graph:
    copy.eval()
    evaluation = record(copy, args, kwargs, originals)
    copy.train()
    training: Recording | None = None
    try:
        # BatchNorm needs more than one value a channel in training mode; a batch of two has it.
        training = record(copy, *_doubled(args, kwargs), originals)
    except UncopiedError:
        raise
    except Exception as error:
        notes = (*notes, f"not recordable in training mode ({_line(error)})")
    copy.eval()
    return Graph(copy, evaluation, training, level, notes)


def _to_meta(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return pytree.tree_map_only(torch.Tensor, lambda t: meta_like(t.detach()), (args, kwargs))


def _clone(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), (args, kwargs))


def _doubled(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def twice(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor, tensor]) if tensor.ndim > 1 and tensor.shape[0] == 1 else tensor

    return pytree.tree_map_only(torch.Tensor, twice, (args, kwargs))


def _shapes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    shapes = [str(tuple(t.shape)) for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    return ", ".join(shapes) or "(no tensor)"


def _line(error: BaseException) -> str:
    """The exception in one line with the place in the model's own code where it was raised."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if "/torch/" not in frame.filename and "/binarize/" not in frame.filename:
            place = f" at {frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}{place}"
