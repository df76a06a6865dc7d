"""A recurrent layer from a file: its sizes are held against its weights, and the lists it keeps are made anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["check_recurrent"]

# Modes of a class, and how often its weights hold the hidden size.
_MODES: dict[type, tuple[tuple[str, ...], int]] = {
    nn.LSTM: (("LSTM",), 4),
    nn.GRU: (("GRU",), 3),
    nn.RNN: (("RNN_TANH", "RNN_RELU"), 1),
}


def check_recurrent(kind: type[nn.RNNBase], attributes: dict[str, Any]) -> None:
    """Check the attributes of such a layer, and take out of them what torch makes of the others.

    The layer keeps the names of its weights in lists, by which it finds them whenever it is moved or called: a file has
    no say in them.

    Raises: ValueError, where its sizes or weights are damaged.
    """
    modes, gates = next((found for base, found in _MODES.items() if issubclass(kind, base)), ((), 0))
    attributes.setdefault("proj_size", 0)  # torch before 1.8
    proper = {
        **{name: _is_count(attributes.get(name)) for name in ("input_size", "hidden_size", "num_layers")},
        "proj_size": attributes["proj_size"] == 0 or _is_count(attributes["proj_size"]),
        **{name: type(attributes.get(name)) is bool for name in ("bias", "batch_first", "bidirectional")},
        "mode": attributes.get("mode") in modes,
    }
    for name, is_proper in proper.items():
        if not is_proper:
            raise ValueError(f"a {kind.__name__} in it has no proper {name}")
    if attributes["num_layers"] > len(attributes["_parameters"]):
        raise ValueError(f"a {kind.__name__} in it has fewer weights than layers")
    for name, shape in _weights(attributes, gates):
        found = attributes.get(name, attributes["_parameters"].get(name, attributes["_buffers"].get(name)))
        # Of a weight under a norm the value may be missing: it is computed again.
        normed = any(f"{name}{end}" in attributes["_parameters"] for end in ("_g", "_orig"))
        if not (found is None and normed) and not (isinstance(found, Tensor) and found.shape == shape):
            raise ValueError(f"a {kind.__name__} in it has no proper {name}")
    for name in ("all_weights", "_flat_weights", "_flat_weights_names", "_flat_weight_refs"):
        attributes.pop(name, None)
    # Where the first row names nothing torch makes the lists anew, as for files of its first versions.
    attributes["_all_weights"] = [[None]]


def _weights(attributes: Mapping[str, Any], gates: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of each weight."""
    hidden, projected = attributes["hidden_size"], attributes["proj_size"]
    ends = ("", "_reverse") if attributes["bidirectional"] else ("",)
    for layer in range(attributes["num_layers"]):
        inputs = attributes["input_size"] if layer == 0 else (projected or hidden) * len(ends)
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (gates * hidden, inputs),
            "weight_hh": (gates * hidden, projected or hidden),
        }
        if attributes["bias"]:
            shapes |= {"bias_ih": (gates * hidden,), "bias_hh": (gates * hidden,)}
        if projected:
            shapes |= {"weight_hr": (projected, hidden)}
        for end in ends:
            yield from ((f"{word}_l{layer}{end}", shape) for word, shape in shapes.items())


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0
