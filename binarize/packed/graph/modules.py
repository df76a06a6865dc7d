"""The module types that a packed file's graph may name, and what each is made with. A closed list.

A module is described as [name of its type, the arguments of its constructor] and made without data: its numbers are
among the file's tensors. A type stands here only if its forward depends on nothing but these arguments, its tensors
and its input, so that equal descriptions and numbers compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from binarize.binarizers.adabin import Maxout
from binarize.binarizers.nonlinearity import PiecewiseLinear
from binarize.binarizers.reactnet import RPReLU
from binarize.binarizers.xnorpp import ChannelScale
from binarize.errors import UsageError
from binarize.layers.layer import Threshold
from binarize.layers.shortcuts import MeanChannels, RepeatChannels

__all__ = ["describe", "make", "may_hold", "own_tensors"]

# Longer or larger is nothing that a layer is made with.
_LARGEST = 1 << 31
_MOST_SIZES = 16


def _is_integer(value: object) -> bool:
    return type(value) is int and abs(value) < _LARGEST


def _is_flag(value: object) -> bool:
    return value is None or type(value) is bool


def _is_axis(value: object) -> bool:
    return value is None or _is_integer(value)


def _is_sizes(value: object) -> bool:
    return _each(value, lambda one: one is None or (_is_integer(one) and one >= 0))


def _is_numbers(value: object) -> bool:
    return _each(value, lambda one: one is None or (type(one) in (int, float) and abs(one) <= 1e30))


def _is_limit(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) <= 1e30)


def _is_padding(value: object) -> bool:
    return value in ("same", "valid") or _each(value, _is_integer)


def _each(value: Any, check: Callable[[Any], bool]) -> bool:
    several = isinstance(value, tuple) and len(value) <= _MOST_SIZES
    return all(map(check, value)) if several else check(value)


def _one_of(*choices: object) -> Callable[[Any], bool]:
    return lambda value: any(type(value) is type(choice) and value == choice for choice in choices)


def _has_bias(module: nn.Module) -> bool:
    if isinstance(module, nn.RNNBase):
        return module.bias
    bias = module.in_proj_bias if isinstance(module, nn.MultiheadAttention) else module.bias
    return bias is not None


def _channels(module: nn.Module) -> int:
    return next(module.parameters()).numel()


_FLAGS = """
affine add_zero_attn align_corners batch_first bias bidirectional ceil_mode count_include_pad elementwise_affine inplace
recompute_scale_factor track_running_stats
"""
_NUMBERS = (
    "alpha beta dropout eps k lambd max_val min_val momentum negative_slope p scale_factor threshold value"
)
_SIZES = """
channels dilation divisor_override downscale_factor embed_dim embedding_dim groups hidden_size in_channels in_features
input_size kdim kernel_size normalized_shape num_channels num_embeddings num_features num_groups num_heads
num_parameters out_channels out_features output_padding output_size proj_size size stride unflattened_size
upscale_factor vdim
"""
# Argument -> whether a value may be given for it.
_ARGUMENTS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_FLAGS.split(), _is_flag),
    **dict.fromkeys(_NUMBERS.split(), _is_numbers),
    **dict.fromkeys(_SIZES.split(), _is_sizes),
    **dict.fromkeys(("channel_dim", "dim", "end_dim", "padding_idx", "start_dim"), _is_axis),
    **dict.fromkeys(("low", "high"), _is_limit),
    "approximate": _one_of("none", "tanh"),
    "mode": _one_of("nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact"),
    "nonlinearity": _one_of("tanh", "relu"),
    # Each is a step of the constructor.
    "num_layers": lambda value: _is_integer(value) and 1 <= value <= 1000,
    # Each is an item of a list.
    "times": lambda value: _is_integer(value) and 1 <= value <= 1 << 16,
    "padding": _is_padding,
    "padding_mode": _one_of("zeros", "reflect", "replicate", "circular"),
}
# Arguments that are not the attribute of their name.
_READ: dict[str, Callable[[Any], Any]] = {"bias": _has_bias, "channels": _channels}

_CONV = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
_BATCH = "num_features eps momentum affine track_running_stats"
_AVERAGE = "kernel_size stride padding ceil_mode count_include_pad"
_MAXIMUM = "kernel_size stride padding dilation ceil_mode"
_RNN = "input_size hidden_size num_layers bias batch_first dropout bidirectional"
_SPECS: dict[str, str] = {
    **{f"Conv{n}d": _CONV for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": f"{_CONV} output_padding" for n in (1, 2, 3)},
    **{f"{kind}{n}d": _BATCH for n in (1, 2, 3) for kind in ("BatchNorm", "InstanceNorm")},
    **{f"MaxPool{n}d": _MAXIMUM for n in (1, 2, 3)},
    **{f"AvgPool{n}d": _AVERAGE if n == 1 else f"{_AVERAGE} divisor_override" for n in (1, 2, 3)},
    **{f"Adaptive{kind}Pool{n}d": "output_size" for n in (1, 2, 3) for kind in ("Avg", "Max")},
    **{f"{kind}Pad{n}d": "padding" for n in (1, 2, 3) for kind in ("Reflection", "Replication", "Zero")},
    **{f"ConstantPad{n}d": "padding value" for n in (1, 2, 3)},
    **dict.fromkeys(("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"), "p inplace"),
    **dict.fromkeys(("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid"), "inplace"),
    **dict.fromkeys(("Identity", "LogSigmoid", "Sequential", "Sigmoid", "Softmax2d", "Softsign"), ""),
    **dict.fromkeys(("Tanh", "Tanhshrink"), ""),
    **dict.fromkeys(("CELU", "ELU"), "alpha inplace"),
    **dict.fromkeys(("GLU", "LogSoftmax", "Softmax", "Softmin"), "dim"),
    **dict.fromkeys(("Hardshrink", "Softshrink"), "lambd"),
    "ChannelShuffle": "groups",
    "Embedding": "num_embeddings embedding_dim padding_idx",
    "Flatten": "start_dim end_dim",
    "GELU": "approximate",
    "GRU": _RNN,
    "GroupNorm": "num_groups num_channels eps affine",
    "Hardtanh": "min_val max_val inplace",
    "LSTM": f"{_RNN} proj_size",
    "LayerNorm": "normalized_shape eps elementwise_affine bias",
    "LeakyReLU": "negative_slope inplace",
    "Linear": "in_features out_features bias",
    "LocalResponseNorm": "size alpha beta k",
    "MultiheadAttention": "embed_dim num_heads dropout bias add_zero_attn kdim vdim batch_first",
    "PReLU": "num_parameters",
    "PixelShuffle": "upscale_factor",
    "PixelUnshuffle": "downscale_factor",
    "RMSNorm": "normalized_shape eps elementwise_affine",
    "RNN": f"{_RNN} nonlinearity",
    "Softplus": "beta threshold",
    "Threshold": "threshold value inplace",
    "Unflatten": "dim unflattened_size",
    "Upsample": "size scale_factor mode align_corners recompute_scale_factor",
}  # fmt: skip
# Name in the file -> (type, its arguments).
_TYPES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    **{
        f"nn.{name}": (getattr(nn, name), tuple(arguments.split()))
        for name, arguments in _SPECS.items()
        if hasattr(nn, name)
    },
    "ChannelScale": (ChannelScale, ("channels", "channel_dim")),
    "Maxout": (Maxout, ("channels", "channel_dim")),
    "MeanChannels": (MeanChannels, ("groups", "channel_dim")),
    "PiecewiseLinear": (PiecewiseLinear, ("channels", "channel_dim", "low", "high")),
    "RPReLU": (RPReLU, ("channels", "channel_dim")),
    "RepeatChannels": (RepeatChannels, ("times", "channel_dim")),
    "Threshold": (Threshold, ("channels", "channel_dim")),
}
_NAMES = {cls: name for name, (cls, _) in _TYPES.items()}
# What does nothing to its input outside of training, whatever it is made with.
_IDLE = ("torchvision.ops.stochastic_depth.StochasticDepth",)


def describe(module: nn.Module) -> list[Any] | str:
    """[type, arguments] of a module in evaluation mode, or in words why it has no such description."""
    cls = type(module)
    if f"{cls.__module__}.{cls.__qualname__}" in _IDLE:
        return ["nn.Identity", {}]
    name = _NAMES.get(cls)
    if name is None or "forward" in vars(module):
        return f"it has a {cls.__name__}, which is no module of the closed list"
    if module._forward_hooks or module._forward_pre_hooks:
        return f"it has a {cls.__name__} with hooks"
    given: dict[str, Any] = {}
    for argument in _TYPES[name][1]:
        value = _READ[argument](module) if argument in _READ else getattr(module, argument)
        given[argument] = tuple(value) if isinstance(value, (list, tuple)) else value
    try:
        made = make([name, given])
    except UsageError as error:
        return str(error)
    if cls is not nn.Sequential and (
        _shown(made) != _shown(module, vars(made)) or _shapes(made) != _shapes(module)
    ):
        return f"it has a {cls.__name__} that its constructor does not make"
    return [name, {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}]


def make(said: object) -> nn.Module:
    """The module of a description, without data. Raises: UsageError, where it is none."""
    name, given = said if isinstance(said, list) and len(said) == 2 else (None, None)
    cls, arguments = _TYPES.get(name, (None, ())) if isinstance(name, str) else (None, ())
    if cls is None or not isinstance(given, dict) or given.keys() != set(arguments):
        raise UsageError(f"{str(said)[:80]} describes no module of the closed list")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    for argument, value in given.items():
        if not _ARGUMENTS[argument](value):
            raise UsageError(f"{name} is not made with {argument}={str(value)[:40]}")
    try:
        with torch.device("meta"):
            return cls(**given).eval()
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"{name} is not made with {str(given)[:80]}: {str(error)[:80]}") from error


def may_hold(module: nn.Module, name: str) -> bool:
    """Whether a described module takes another one under that name."""
    return type(module) is nn.Sequential and name == str(len(module))


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of the module itself, those too that a state dict leaves out."""
    tensors = {**module._parameters, **module._buffers}
    return {name: value for name, value in tensors.items() if value is not None}


def _shown(module: nn.Module, names: Iterable[str] | None = None) -> dict[str, Any]:
    """The public attributes."""
    found = {name: vars(module).get(name) for name in (vars(module) if names is None else names)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found.items()
        if not name.startswith("_") and name != "training"
    }


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        f"{path}.{name}": tuple(value.shape)
        for path, one in module.named_modules()
        for name, value in own_tensors(one).items()
    }
