"""The operations that C code is written for, by torch's names; those that only move numbers are in `names`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from binarize.exporters.c import reductions, views, windows
from binarize.exporters.c.activations import ACTIVATIONS, chosen
from binarize.exporters.c.apart import APART
from binarize.exporters.c.call import Call
from binarize.exporters.c.elementwise import clamp, combined, mapped, prelu
from binarize.exporters.c.names import MOVES, SAME
from binarize.exporters.c.steps import Value

__all__ = ["HANDLERS", "known_operations"]

Handler = Callable[[Call], "Value | list[Value]"]


def _clamped(low: object, high: object) -> Handler:
    """Limits by their own numbers, or those named in the call."""

    def limited(call: Call) -> Value:
        given = call.bound("input min max inplace min_val max_val", min=low, max=high)
        given |= {name[:3]: given[name] for name in ("min_val", "max_val") if name in given}
        ends = (
            -math.inf if given["min"] is None else given["min"],
            math.inf if given["max"] is None else given["max"],
        )
        return clamp(call, call.value(given["input"]), *ends)

    return limited


def _limited(call: Call) -> Value:
    """hardtanh."""
    given = call.bound("input min_val max_val inplace", min_val=-1.0, max_val=1.0)
    return clamp(call, call.value(given["input"]), given["min_val"], given["max_val"])


def _relu(high: float) -> Handler:
    def limited(call: Call) -> Value:
        return clamp(call, call.value(call.bound("input inplace")["input"]), 0, high)

    return limited


def _one_limit(low: bool) -> Handler:
    def limited(call: Call) -> Value:
        given = call.bound("input limit min max")
        limit = next(given[name] for name in ("limit", "min", "max") if name in given)
        ends = (limit, math.inf) if low else (-math.inf, limit)
        return clamp(call, call.value(given["input"]), *ends)

    return limited


def _leaky_relu(call: Call) -> Value:
    given = call.bound("input negative_slope inplace", negative_slope=0.01)
    return _sloped(call, given["input"], float(given["negative_slope"]))


def _rrelu(call: Call) -> Value:
    given = call.bound("input lower upper training inplace", lower=1 / 8, upper=1 / 3)
    return _sloped(call, given["input"], (given["lower"] + given["upper"]) / 2)


def _sloped(call: Call, x: object, slope: float) -> Value:
    return prelu(call, call.dense(x), torch.tensor([slope]), None, None)


def _prelu(call: Call) -> Value:
    given = call.bound("input weight")
    if not isinstance(given["weight"], Tensor):
        raise call.refuse("slopes that are computed from the input have no C code")
    return prelu(call, call.dense(given["input"]), given["weight"], None, None)


def _activation(call: Call) -> Value:
    function, numbers = chosen(call.op, call.args, call.keywords)
    return mapped(call, function, call.args[0] if call.args else call.keywords["input"], *numbers)


def _arithmetic(function: str, *, turned: bool = False) -> Handler:
    def two(call: Call) -> Value:
        given = call.bound("input other alpha rounding_mode", alpha=1, rounding_mode=None)
        a, b = given["input"], given["other"]
        if turned:
            a, b = b, a
        name = function if given["rounding_mode"] is None else "floor_divide"
        if given["rounding_mode"] not in (None, "floor"):
            raise call.refuse(
                f'{call.op} with rounding_mode="{given["rounding_mode"]}" has no C code; floor has'
            )
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            raise call.refuse(f"{call.op} of two numbers")
        return combined(call, name, a, b)

    return two


def _reversed_divide(call: Call) -> Value:
    """number / tensor, which torch computes as the inverse times the number."""
    given = call.bound("input other")
    return combined(call, "multiply", mapped(call, "reciprocal", given["input"]), given["other"])


_POWERS = {2: "square", 3: "cube", 0.5: "root", -1: "reciprocal", -0.5: "inverse_root"}


def _power(call: Call) -> Value:
    given = call.bound("input exponent")
    x, exponent = given["input"], given["exponent"]
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = float(exponent)
    if not isinstance(exponent, (int, float)) or not isinstance(x, Value):
        raise call.refuse("a power whose exponent is no fixed number has no C code")
    if exponent == 1:
        return x
    if exponent in _POWERS:
        return mapped(call, _POWERS[exponent], x)
    if exponent == 4:
        return mapped(call, "square", mapped(call, "square", x))
    return combined(call, "power_of", x, float(exponent))


def _where(call: Call) -> Value:
    given = call.bound("condition input other")
    return combined(call, "choose", given["condition"], given["input"], given["other"])


def _masked_fill(call: Call) -> Value:
    given = call.bound("input mask value")
    return combined(call, "choose", given["mask"], given["value"], given["input"])


def _embedding(call: Call) -> Value:
    names = "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse"
    given = call.bound(names, max_norm=None)
    if not isinstance(given["weight"], Tensor) or given["max_norm"] is not None:
        raise call.refuse("an embedding whose table is computed, or held to max_norm, has no C code")
    weight = given["weight"].float()
    table, x = call.value(weight), call.dense(given["input"])
    numbers = {"n": x.size, "width": weight.shape[1]}
    return call.add("rows", [table, x], call.shape, numbers=numbers)


def _dropout(call: Call) -> Value:
    given = call.bound("input p training inplace", p=0.5, training=True)
    if given["training"] and given["p"]:
        raise call.refuse(
            f"{call.op} draws random numbers in evaluation mode; give it training=self.training"
        )
    return call.value(given["input"])


# Functions of `arithmetic` -> torch's names.
_ARITHMETIC = {
    "add": "add",
    "subtract": "sub subtract",
    "multiply": "mul multiply",
    "divide": "div divide true_divide",
    "floor_divide": "floor_divide __floordiv__",
    "larger": "maximum fmax",
    "smaller": "minimum fmin",
    "is_greater": "gt greater __gt__",
    "is_less": "lt less __lt__",
    "is_at_least": "ge greater_equal __ge__",
    "is_at_most": "le less_equal __le__",
    "is_equal": "eq __eq__",
    "is_unequal": "ne not_equal __ne__",
    "both": "logical_and bitwise_and __and__",
    "one_of": "logical_or bitwise_or __or__",
}
_DROPOUTS = ("alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout")
HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_DROPOUTS, _dropout),
    **dict.fromkeys(ACTIVATIONS, _activation),
    "relu": _relu(math.inf), "relu6": _relu(6), "hardtanh": _limited, "clamp": _clamped(None, None),
    "clip": _clamped(None, None), "clamp_min": _one_limit(True), "clamp_max": _one_limit(False),
    "leaky_relu": _leaky_relu, "rrelu": _rrelu, "prelu": _prelu, "batch_norm": windows.batch_norm,
    "pow": _power, "where": _where, "masked_fill": _masked_fill, "__rdiv__": _reversed_divide,
    **{name: _arithmetic(function) for function, names in _ARITHMETIC.items() for name in names.split()},
    "rsub": _arithmetic("subtract", turned=True), "__rsub__": _arithmetic("subtract", turned=True),
    "pad": views.padded, "cat": views.cat, "concat": views.cat, "concatenate": views.cat, "stack": views.stack,
    "sum": reductions.reduced("sum"), "mean": reductions.reduced("mean"), "amax": reductions.reduced("largest"),
    "amin": reductions.reduced("smallest"), "argmax": reductions.reduced("place_largest"),
    "argmin": reductions.reduced("place_smallest"), "max": reductions.extreme("largest"),
    "min": reductions.extreme("smallest"), "softmax": reductions.along_one("softmax"),
    "log_softmax": reductions.along_one("log_softmax"), "cumsum": reductions.along_one("running_sum"),
    "standardized": reductions.standardized, "linear": reductions.linear,
    **dict.fromkeys(("matmul", "bmm", "mm", "mv", "__matmul__", "__rmatmul__"), reductions.matmul),
    "embedding": _embedding,
    "interpolate": windows.interpolate,
    **{f"conv{n}d": windows.conv(n) for n in (1, 2)},
    **{f"conv_transpose{n}d": windows.conv_transpose(n) for n in (1, 2)},
    **{f"{kind}{n}d": windows.pool(kind, n) for kind in ("max_pool", "avg_pool") for n in (1, 2)},
    **{f"adaptive_{kind}{n}d": windows.adaptive_pool(kind, n) for kind in ("max_pool", "avg_pool") for n in (1, 2)},
}  # fmt: skip


def known_operations() -> list[str]:
    """Torch's names of all operations that the C file can hold."""
    return sorted({*HANDLERS, *MOVES, *SAME, *APART} - {"standardized"})
