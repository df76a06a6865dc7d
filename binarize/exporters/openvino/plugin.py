"""OpenVINO's CPU plugin on a file, in this process: `child` keeps it away from the user's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import openvino as ov
import torch
from torch import Tensor

__all__ = ["compiled", "run", "run_compiled"]

_SIGN = re.compile(r"binarize/\d+/sign\d*")


def run(
    path: str,
    batches: Sequence[Sequence[Tensor]],
    layers: Sequence[str],
    options: Mapping[str, Any],
    threads: int,
) -> list[dict[str, Any]]:
    """The fields of a `child.Ran` for each batch."""
    torch.set_num_threads(threads)
    found = []
    for batch in batches:
        core = ov.Core()
        model = core.read_model(path)
        own = len(model.outputs)
        taps = _taps(model, layers)
        # A tensor that several layers read is one output.
        places = {_key(end): end for pair in taps.values() for end in pair}
        for end in places.values():
            model.add_outputs(end)
        ready = compiled(core, model, batch, options)
        hint = ready.get_property("INFERENCE_PRECISION_HINT")
        values = run_compiled(ready, batch)
        held = dict(zip(places, values[own:], strict=True))
        found.append(
            {
                "outputs": values[:own],
                "taps": {name: tuple(held[_key(end)] for end in pair) for name, pair in taps.items()},
                "precision": hint if isinstance(hint, str) else hint.get_type_name(),
            }
        )
    return found


def compiled(core: Any, model: Any, batch: Sequence[Tensor], options: Mapping[str, Any]) -> Any:
    """A model for batches of that size."""
    shapes = [list(x.shape) for x in batch]
    model.reshape(dict(zip(model.inputs, shapes, strict=True)))
    threads = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    return core.compile_model(model, "CPU", {**options, **threads})


def run_compiled(ready: Any, batch: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a compiled model for one batch."""
    results = ready([x.numpy() for x in batch])
    return [torch.from_numpy(results[output].copy()) for output in ready.outputs]


def _taps(model: Any, layers: Sequence[str]) -> dict[str, list[Any]]:
    """What the layers read and give.

    OpenVINO merges equal steps and keeps one of their names: a layer that shares its input with another one has no sign
    of its own name, and one that computes the same as another one is not there at all.
    """
    named = {op.get_friendly_name(): op for op in model.get_ops()}
    return {
        name: [_sign_before(named[name]).input_value(0), named[name].output(0)]
        for name in layers
        if name in named
    }


def _key(end: Any) -> tuple[str, int]:
    return end.get_node().get_name(), end.get_index()


def _sign_before(end: Any) -> Any:
    """The step that compares a layer's input: the nearest one, going back from the layer's end."""
    queue, seen = [end], set()
    for op in queue:
        if _SIGN.fullmatch(op.get_friendly_name()):
            return op
        for value in op.input_values():
            before = value.get_node()
            if before.get_name() not in seen:
                seen.add(before.get_name())
                queue.append(before)
    raise LookupError(f"no sign before {end.get_friendly_name()}")
