"""Torch's functions of each number by their names: which function of `arithmetic` each is, with which fixed numbers.

The C file and `in_order` read the same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ACTIVATIONS", "Activation", "chosen"]

Chosen = tuple[str, tuple[float, ...]]


@dataclass(frozen=True)
class Activation:
    """The names of its arguments, the first being the tensor, and what they choose."""

    choose: Callable[[Mapping[str, Any]], Chosen]
    names: str = "input"
    defaults: Mapping[str, Any] = field(default_factory=dict)


def chosen(op: str, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Chosen:
    """(the function, its fixed numbers) of a call."""
    known = ACTIVATIONS[op]
    return known.choose({**known.defaults, **dict(zip(known.names.split(), args)), **keywords})


def _plain(function: str, *numbers: float) -> Activation:
    return Activation(lambda given: (function, numbers), "input inplace out")


def _elu(given: Mapping[str, Any]) -> Chosen:
    return "elu", (1.0, 1.0, float(given["alpha"]))


def _celu(given: Mapping[str, Any]) -> Chosen:
    return "elu", (1.0, 1.0 / float(given["alpha"]), float(given["alpha"]))


_SELU = (1.0507009873554805, 1.0, 1.0507009873554805 * 1.6732632423543772)

_PLAIN = {
    "abs": "absolute", "neg": "negative", "square": "square", "reciprocal": "reciprocal", "sqrt": "root",
    "rsqrt": "inverse_root", "exp": "exponential", "expm1": "exponential_less_one", "log": "natural_logarithm",
    "log1p": "logarithm_of_one_and", "sigmoid": "sigmoid", "silu": "silu", "tanh": "hyperbolic_tangent",
    "erf": "error_function", "logsigmoid": "log_sigmoid", "mish": "mish", "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_swish", "softsign": "soft_sign", "floor": "floored", "ceil": "raised", "trunc": "truncated",
    "fix": "truncated", "sign": "sign_of", "logical_not": "is_zero", "__invert__": "is_zero", "bool": "is_not_zero",
}  # fmt: skip
ACTIVATIONS: dict[str, Activation] = {
    **{name: _plain(function) for name, function in _PLAIN.items()},
    "log_sigmoid": _plain("log_sigmoid"),
    "log2": _plain("scaled_logarithm", 1 / math.log(2)),
    "log10": _plain("scaled_logarithm", 1 / math.log(10)),
    "round": Activation(lambda given: ("rounded", ()), "input"),
    "selu": Activation(lambda given: ("elu", _SELU), "input inplace"),
    "elu": Activation(_elu, "input alpha inplace", {"alpha": 1.0}),
    "celu": Activation(_celu, "input alpha inplace", {"alpha": 1.0}),
    "gelu": Activation(
        lambda given: ("gelu_by_tangent" if given["approximate"] == "tanh" else "gelu", ()),
        "input approximate",
        {"approximate": "none"},
    ),
    "softplus": Activation(
        lambda given: ("softplus", (float(given["beta"]),)), "input beta threshold", {"beta": 1, "threshold": 20}
    ),
    "hardshrink": Activation(
        lambda given: ("hard_shrink", (float(given["lambd"]),)), "input lambd", {"lambd": 0.5}
    ),
    "softshrink": Activation(
        lambda given: ("soft_shrink", (float(given["lambd"]),)), "input lambd", {"lambd": 0.5}
    ),
    **{
        name: Activation(
            lambda given: ("threshold", (float(given["threshold"]), float(given["value"]))),
            "input threshold value inplace",
        )
        for name in ("threshold", "_threshold")
    },
}  # fmt: skip
