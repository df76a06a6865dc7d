"""What has no weights to pack, as steps in C: norms, pools, sums, and functions. Each takes and gives Values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from binarize.exporters.c.elementwise import affine, clamp, prelu, require_channels_first
from binarize.exporters.c.in_order import norm_affine
from binarize.exporters.c.steps import Image, Step, Value, refuse
from binarize.exporters.c.views import padded
from binarize.kernels.geometry import Geometry

__all__ = ["FUNCTIONS", "RESHAPES", "batch_norm", "channel_scale", "threshold"]

# Operations that leave the numbers and their order in memory alone.
RESHAPES = frozenset(
    ("clone", "contiguous", "detach", "dropout", "dropout1d", "dropout2d", "flatten", "float", "ravel", "reshape",
     "reshape_as", "squeeze", "to", "type_as", "unflatten", "unsqueeze", "view", "view_as")
)  # fmt: skip


def batch_norm(x: Value, norm: Any, name: str) -> Step:
    """A BatchNorm that no layer took in, in evaluation mode."""
    if norm.running_mean is None:
        raise refuse(name, "a BatchNorm without running statistics needs a batch")
    return affine(
        x, *norm_affine(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps), name
    )


def threshold(x: Value, layer: Any, name: str) -> Step:
    """x - tau."""
    require_channels_first(x, layer, name)
    return affine(x, None, -layer.tau, name)


def channel_scale(x: Value, layer: Any, name: str) -> Step:
    """A learned factor per channel."""
    require_channels_first(x, layer, name)
    return affine(x, layer.s, None, name)


# --- functions: (arguments, keywords, shape of the result with its batch axis, layer) -> step or value

Arguments = tuple[Any, ...]
Keywords = dict[str, Any]


def _bound(names: str, args: Arguments, keywords: Keywords, **defaults: object) -> dict[str, Any]:
    """Arguments by name. Raises: TypeError, where one is given that has no name here."""
    known = names.split()
    given = {**dict(zip(known, args)), **keywords}
    if len(args) > len(known) or given.keys() - set(known):
        raise TypeError(", ".join(map(str, [*args[len(known) :], *(given.keys() - set(known))])))
    return {**defaults, **given}


def _relu(args: Arguments, keywords: Keywords, shape: object, name: str) -> Step:
    given = _bound("input inplace", args, keywords)
    return clamp(given["input"], 0, math.inf, name)


def _relu6(args: Arguments, keywords: Keywords, shape: object, name: str) -> Step:
    given = _bound("input inplace", args, keywords)
    return clamp(given["input"], 0, 6, name)


def _hardtanh(args: Arguments, keywords: Keywords, shape: object, name: str) -> Step:
    given = _bound("input min_val max_val inplace", args, keywords, min_val=-1.0, max_val=1.0)
    return clamp(given["input"], given["min_val"], given["max_val"], name)


def _clamped(args: Arguments, keywords: Keywords, shape: object, name: str) -> Step:
    given = _bound("input min max", args, keywords)
    low, high = given.get("min"), given.get("max")
    return clamp(given["input"], -math.inf if low is None else low, math.inf if high is None else high, name)


def _leaky_relu(args: Arguments, keywords: Keywords, shape: object, name: str) -> Step:
    given = _bound("input negative_slope inplace", args, keywords, negative_slope=0.01)
    return prelu(given["input"], torch.tensor([float(given["negative_slope"])]), None, None, name)


def _prelu_function(args: Arguments, keywords: Keywords, shape: object, name: str) -> Step:
    given = _bound("input weight", args, keywords)
    return prelu(given["input"], given["weight"], None, None, name)


def _arithmetic(function: str) -> Callable[[Arguments, Keywords, Any, str], Step]:
    def two(args: Arguments, keywords: Keywords, shape: object, name: str) -> Step:
        given = _bound("input other alpha", args, keywords, alpha=1)
        a, b = given["input"], given["other"]
        if given["alpha"] != 1:
            raise refuse(name, f"{function} with alpha={given['alpha']} has no C code")
        if isinstance(a, Value) and isinstance(b, Value):
            if a.shape != b.shape:
                raise refuse(name, f"{function} of {(1, *a.shape)} and {(1, *b.shape)}; expected one shape")
            return Step(function, [a, b], Value.floats(a.shape), name)
        if not isinstance(a, Value):
            a, b = b, a
            if function == "subtract":
                raise refuse(name, "subtracting a tensor from a constant has no C code")
        table = _constant(b, a, name)
        if function == "multiply":
            return affine(a, table, None, name)
        return affine(a, None, table if function == "add" else -table, name)

    return two


def _constant(constant: Any, x: Value, name: str) -> Tensor:
    """A number, or one a channel, that a value meets."""
    if isinstance(constant, (int, float)):
        return torch.tensor([float(constant)])
    shape = tuple(constant.shape)
    wanted = (1,) * (len(x.shape) + 1 - len(shape)) + shape
    fits = wanted[0] == 1 and all(n == 1 for n in wanted[2:]) and wanted[1:2] in ((), (1,), (x.channels,))
    if constant.dtype != torch.float32 or not (constant.numel() == 1 or fits):
        raise refuse(name, f"a constant {constant.dtype} {shape} meets {(1, *x.shape)}")
    return constant.reshape(-1)


def _max_pool(args: Arguments, keywords: Keywords, shape: Any, name: str) -> Step:
    names = "input kernel_size stride padding dilation ceil_mode return_indices"
    given = _bound(names, args, keywords, stride=None, padding=0, dilation=1)
    return Step(
        "max_pool", [given["input"]], Value.floats(tuple(shape[1:])), name, _pooled(given, shape, name)
    )


def _avg_pool(args: Arguments, keywords: Keywords, shape: Any, name: str) -> Step:
    names = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
    given = _bound(
        names, args, keywords, stride=None, padding=0, count_include_pad=True, divisor_override=None
    )
    divisor = given["divisor_override"] or (-1 if given["count_include_pad"] else 0)
    image = _pooled(given, shape, name)
    y = Value.floats(tuple(shape[1:]))
    return Step("avg_pool", [given["input"]], y, name, image, numbers={"divisor": divisor})


def _adaptive_avg_pool(args: Arguments, keywords: Keywords, shape: Any, name: str) -> Step:
    x = _bound("input output_size", args, keywords)["input"]
    sizes, wanted = x.shape[1:], tuple(shape[2:])
    if any(n % w for n, w in zip(sizes, wanted)):
        raise refuse(name, f"an adaptive pool from {sizes} to {wanted} has windows of several sizes")
    kernel = tuple(n // w for n, w in zip(sizes, wanted))
    image = _pooled({"input": x, "kernel_size": kernel, "stride": None, "padding": 0}, shape, name)
    return Step("avg_pool", [x], Value.floats(tuple(shape[1:])), name, image, numbers={"divisor": -1})


def _pooled(given: dict[str, Any], shape: Any, name: str) -> Image:
    x = given["input"]
    axes = len(x.shape) - 1
    if axes not in (1, 2):
        raise refuse(name, f"a pool over {axes} axes has no C code")

    def pair(value: Any, line: int) -> tuple[int, int]:
        each = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        both = each * axes if len(each) == 1 else each
        return (line, *both) if axes == 1 else both

    kernel = pair(given["kernel_size"], 1)
    stride = pair(given["stride"], 1) if given["stride"] not in (None, (), []) else kernel
    top, left = pair(given["padding"], 0)
    dilation = pair(given.get("dilation", 1), 1)
    geometry = Geometry(x.channels, x.channels, kernel, stride, (top, top, left, left), dilation)
    height, width = (1, *x.shape[1:])[-2:]
    out_height, out_width = (1, *shape[2:])[-2:]
    return Image(geometry, height, width, out_height, out_width)


def _mean(args: Arguments, keywords: Keywords, shape: Any, name: str) -> Step:
    given = _bound("input dim keepdim", args, keywords, dim=None, keepdim=False)
    x: Value = given["input"]
    rank, dim = len(x.shape) + 1, given["dim"]
    if dim is None:
        raise refuse(name, "a mean over the batch")
    axes = sorted(axis % rank for axis in (dim if isinstance(dim, (tuple, list)) else (dim,)))
    if axes[0] == 0 or axes != list(range(axes[0], axes[-1] + 1)):
        raise refuse(name, f"a mean over the axes {axes}; expected neighbours without the batch")
    first, end = axes[0] - 1, axes[-1]
    numbers: dict[str, float] = {
        "outer": math.prod(x.shape[:first]),
        "count": math.prod(x.shape[first:end]),
        "inner": math.prod(x.shape[end:]),
    }
    return Step("mean", [x], Value.floats(tuple(shape[1:])), name, numbers=numbers)


def _batch_norm(args: Arguments, keywords: Keywords, shape: object, name: str) -> Step:
    names = "input running_mean running_var weight bias training momentum eps"
    given = _bound(names, args, keywords, weight=None, bias=None, training=False, eps=1e-5)
    if given["training"] or given.get("running_mean") is None:
        raise refuse(name, "a BatchNorm without running statistics needs a batch")
    mean, var, weight, bias = (given[key] for key in ("running_mean", "running_var", "weight", "bias"))
    return affine(given["input"], *norm_affine(mean, var, weight, bias, given["eps"]), name)


def _cat(args: Arguments, keywords: Keywords, shape: Any, name: str) -> Step:
    given = _bound("tensors dim", args, keywords, dim=0)
    rank = len(shape)
    if given["dim"] % rank != 1 or not all(isinstance(x, Value) for x in given["tensors"]):
        raise refuse(name, f"cat along axis {given['dim'] % rank}; expected channels of values")
    return Step("cat", list(given["tensors"]), Value.floats(tuple(shape[1:])), name)


Handler = Callable[[Arguments, Keywords, Any, str], "Step | Value"]
FUNCTIONS: dict[str, Handler] = {
    "relu": _relu, "relu_": _relu, "relu6": _relu6, "hardtanh": _hardtanh, "hardtanh_": _hardtanh,
    "clamp": _clamped, "clamp_": _clamped, "leaky_relu": _leaky_relu, "leaky_relu_": _leaky_relu,
    "prelu": _prelu_function, "batch_norm": _batch_norm, "pad": padded,
    "max_pool1d": _max_pool, "max_pool2d": _max_pool, "avg_pool1d": _avg_pool, "avg_pool2d": _avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool, "adaptive_avg_pool2d": _adaptive_avg_pool,
    "mean": _mean, "cat": _cat, "concat": _cat, "concatenate": _cat,
    **{f"{name}{end}": _arithmetic(function) for end in ("", "_") for name, function in
       (("add", "add"), ("sub", "subtract"), ("mul", "multiply"))},
}  # fmt: skip
