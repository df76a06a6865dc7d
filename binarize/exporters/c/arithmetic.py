"""Functions of one, two or three numbers, each as an expression of C and as the same operations of torch.

Both give the same bits: every product and sum is rounded by itself, and what is no sum or product is made of those
(`transcendental`). `in_order` computes with the torch side, the C file with the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from binarize.exporters.c.transcendental import error, expo, logarithm, square_root, tangent

__all__ = ["BINARY", "FUNCTIONS", "UNARY", "Function", "section"]


@dataclass(frozen=True)
class Function:
    """`c` reads x, or x and y, or x, y and z; further names are numbers that are fixed in the call."""

    c: str
    torch: Callable[..., Tensor]
    # Functions in kernels.c that the expression calls.
    needs: tuple[str, ...] = ()
    # Whether it never falls.
    rising: bool = False
    numbers: tuple[str, ...] = ()
    operands: int = 1


def _sigmoid(x: Tensor) -> Tensor:
    return 1.0 / (1.0 + expo(-x))


def _log_of_one_and(x: Tensor) -> Tensor:
    return logarithm(1.0 + x)


def _softplus(x: Tensor) -> Tensor:
    return _log_of_one_and(expo(-x.abs())) + x.clamp_min(0)


def _round(x: Tensor) -> Tensor:
    return x.round()


def _floor_divide(x: Tensor, y: Tensor) -> Tensor:
    return (x / y).floor()


def _truth(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: function(x, y).float()


def _minus(x: Tensor) -> Tensor:
    return -x


UNARY: dict[str, Function] = {
    "absolute": Function("x < 0.0f ? -x : x", torch.abs),
    "negative": Function("-x", _minus),
    "square": Function("x * x", lambda x: x * x),
    "cube": Function("x * x * x", lambda x: x * x * x),
    "reciprocal": Function("1.0f / x", lambda x: 1.0 / x),
    "root": Function("square_root(x)", square_root, ("square_root",), rising=True),
    "inverse_root": Function("1.0f / square_root(x)", lambda x: 1.0 / square_root(x), ("square_root",)),
    "exponential": Function("expo(x)", expo, ("expo",)),
    "exponential_less_one": Function("expo(x) - 1.0f", lambda x: expo(x) - 1.0, ("expo",)),
    "natural_logarithm": Function("logarithm(x)", logarithm, ("logarithm",)),
    "logarithm_of_one_and": Function("logarithm(1.0f + x)", _log_of_one_and, ("logarithm",)),
    "scaled_logarithm": Function(
        "logarithm(x) * scale", lambda x, scale: logarithm(x) * scale, ("logarithm",), numbers=("scale",)
    ),
    "sigmoid": Function("1.0f / (1.0f + expo(-x))", _sigmoid, ("expo",)),
    "silu": Function("x / (1.0f + expo(-x))", lambda x: x / (1.0 + expo(-x)), ("expo",)),
    "hyperbolic_tangent": Function("tangent(x)", tangent, ("tangent",)),
    "error_function": Function("error(x)", error, ("error",)),
    "softplus": Function(
        "soft(x * beta) / beta", lambda x, beta: _softplus(x * beta) / beta, ("soft",), numbers=("beta",)
    ),
    "log_sigmoid": Function("-soft(-x)", lambda x: -_softplus(-x), ("soft",)),
    "mish": Function("x * tangent(soft(x))", lambda x: x * tangent(_softplus(x)), ("soft", "tangent")),
    "gelu": Function(
        "0.5f * x * (1.0f + error(x * 0.70710678118654752f))",
        lambda x: 0.5 * x * (1.0 + error(x * 0.7071067811865476)),
        ("error",),
    ),
    "gelu_by_tangent": Function(
        "0.5f * x * (1.0f + tangent(0.79788456080286536f * (x + 0.044715f * (x * x * x))))",
        lambda x: 0.5 * x * (1.0 + tangent(0.7978845608028654 * (x + 0.044715 * (x * x * x)))),
        ("tangent",),
    ),
    "elu": Function(
        "x > 0.0f ? x * scale : (expo(x * inner) - 1.0f) * outer",
        lambda x, scale, inner, outer: torch.where(x > 0, x * scale, (expo(x * inner) - 1.0) * outer),
        ("expo",),
        numbers=("scale", "inner", "outer"),
    ),
    "hard_sigmoid": Function(
        "(x < -3.0f ? 0.0f : x > 3.0f ? 6.0f : x + 3.0f) / 6.0f",
        lambda x: torch.where(x < -3, 0.0, torch.where(x > 3, 6.0, x + 3.0)) / 6.0,
        rising=True,
    ),
    "hard_swish": Function(
        "x * (x < -3.0f ? 0.0f : x > 3.0f ? 6.0f : x + 3.0f) / 6.0f",
        lambda x: x * torch.where(x < -3, 0.0, torch.where(x > 3, 6.0, x + 3.0)) / 6.0,
    ),
    "soft_sign": Function("x / (1.0f + (x < 0.0f ? -x : x))", lambda x: x / (1.0 + x.abs())),
    "hard_shrink": Function(
        "x > limit || x < -limit ? x : 0.0f",
        lambda x, limit: torch.where((x > limit) | (x < -limit), x, 0.0),
        numbers=("limit",),
    ),
    "soft_shrink": Function(
        "x > limit ? x - limit : x < -limit ? x + limit : 0.0f",
        lambda x, limit: torch.where(x > limit, x - limit, torch.where(x < -limit, x + limit, 0.0)),
        rising=True,
        numbers=("limit",),
    ),
    "threshold": Function(
        "x > limit ? x : value",
        lambda x, limit, value: torch.where(x > limit, x, value),
        numbers=("limit", "value"),
    ),
    "floored": Function("lower_whole(x)", torch.floor, ("lower_whole",), rising=True),
    "raised": Function("-lower_whole(-x)", torch.ceil, ("lower_whole",), rising=True),
    "truncated": Function("x < 0.0f ? -lower_whole(-x) : lower_whole(x)", torch.trunc, ("lower_whole",), rising=True),
    "rounded": Function("nearest_whole(x)", _round, ("nearest_whole",), rising=True),
    "sign_of": Function(
        "x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f", torch.sign, rising=True
    ),
    "is_zero": Function("x == 0.0f ? 1.0f : 0.0f", lambda x: (x == 0).float()),
    "is_not_zero": Function("x != 0.0f ? 1.0f : 0.0f", lambda x: (x != 0).float()),
}  # fmt: skip
BINARY: dict[str, Function] = {
    name: Function(c, function, needs, operands=operands)
    for name, c, function, needs, operands in (
        ("add", "x + y", torch.add, (), 2),
        ("subtract", "x - y", torch.sub, (), 2),
        ("multiply", "x * y", torch.mul, (), 2),
        ("divide", "x / y", torch.div, (), 2),
        ("floor_divide", "lower_whole(x / y)", _floor_divide, ("lower_whole",), 2),
        ("power_of", "expo(logarithm(x) * y)", lambda x, y: expo(logarithm(x) * y), ("expo", "logarithm"), 2),
        ("larger", "x > y ? x : y", torch.maximum, (), 2),
        ("smaller", "x < y ? x : y", torch.minimum, (), 2),
        ("is_greater", "x > y ? 1.0f : 0.0f", _truth(torch.gt), (), 2),
        ("is_less", "x < y ? 1.0f : 0.0f", _truth(torch.lt), (), 2),
        ("is_at_least", "x >= y ? 1.0f : 0.0f", _truth(torch.ge), (), 2),
        ("is_at_most", "x <= y ? 1.0f : 0.0f", _truth(torch.le), (), 2),
        ("is_equal", "x == y ? 1.0f : 0.0f", _truth(torch.eq), (), 2),
        ("is_unequal", "x != y ? 1.0f : 0.0f", _truth(torch.ne), (), 2),
        ("one_of", "x != 0.0f || y != 0.0f ? 1.0f : 0.0f", _truth(torch.logical_or), (), 2),
        ("both", "x != 0.0f && y != 0.0f ? 1.0f : 0.0f", _truth(torch.logical_and), (), 2),
        ("choose", "x != 0.0f ? y : z", lambda x, y, z: torch.where(x != 0, y, z), (), 3),
    )
}
FUNCTIONS = {**UNARY, **BINARY}

_OPERANDS = "xyz"


def section(name: str) -> tuple[tuple[str, ...], str]:
    """(functions that it needs, its text) of the loop over all numbers, in the form that a step's name asks for.

    `NAME` reads operands of one shape, `NAME_spread` operands of any steps along four axes.
    """
    spread = name.endswith("_spread")
    function = FUNCTIONS[name.removesuffix("_spread")]
    letters = _OPERANDS[: function.operands]
    given = ", ".join(f"const float *{letter}s" for letter in letters)
    numbers = "".join(f", float {number}" for number in function.numbers)
    if not spread:
        reads = ", ".join(f"{letter} = {letter}s[i]" for letter in letters)
        return function.needs, (
            f"static void {name}({given}, int32_t n{numbers}, float *out)\n{{\n"
            f"    for (int32_t i = 0; i < n; i++) {{\n"
            f"        const float {reads};\n        out[i] = {function.c};\n    }}\n}}"
        )
    reads = ", ".join(
        f"{letter} = {letter}s["
        + " + ".join(f"{axis} * along[{4 * k + 4 + i}]" for i, axis in enumerate("abcd"))
        + "]"
        for k, letter in enumerate(letters)
    )
    loops = "".join(
        f"{'    ' * (i + 1)}for (int32_t {axis} = 0; {axis} < along[{i}]; {axis}++)\n"
        for i, axis in enumerate("abc")
    )
    return function.needs, (
        f"static void {name}({given}, const int32_t *along, float *out)\n{{\n{loops}"
        f"                for (int32_t d = 0; d < along[3]; d++) {{\n"
        f"                    const float {reads};\n                    *out++ = {function.c};\n"
        f"                }}\n}}"
    )
