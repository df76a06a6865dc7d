"""What a layer with a forward of its own computes, found out by running it: many only pad their input, or cast it.

A copy of the layer is run on whole numbers. With weights that are 1 at the first tap alone, its output says where that tap
lies on the input, so how much is padded in front; the size of the output bounds what is padded behind. Then weights and
inputs at random have to give what torch's own layer gives with such a padding.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Plain", "plain_forward"]

_MODES = ("constant", "reflect", "replicate", "circular")
# Layer -> what was found out; a layer is asked many times.
_known: WeakKeyDictionary[nn.Module, Plain | None] = WeakKeyDictionary()


@dataclass(frozen=True)
class Plain:
    """torch's convolution or linear layer, behind a padding."""

    # Before and after each axis, the last axis first, as F.pad takes them; None: as much as keeps ceil(size / stride)
    # positions, by the size of the input.
    sides: tuple[int, ...] | None = ()
    mode: str = "constant"


def plain_forward(layer: nn.Module) -> Plain | None:
    """What a convolution or linear layer computes on the input that it is given; None where it is something else.

    Neither the layer nor torch's random numbers are touched.
    """
    if layer not in _known:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
            try:
                _known[layer] = _found(layer)
            except Exception:  # anything can come out of a user's forward that is run on our numbers
                _known[layer] = None
    return _known[layer]


def _found(layer: nn.Module) -> Plain | None:
    if "weight" not in layer._parameters:
        return None
    random = torch.Generator().manual_seed(0)
    copied = _copied(layer, random).eval()
    if isinstance(copied, nn.Linear):
        inputs = [_numbers((*batch, copied.in_features), random) for batch in ((3,), (2, 4))]
        return Plain() if all(_computes(copied, x, Plain()) for x in inputs) else None
    if not isinstance(copied, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return None
    shapes = _shapes(copied)
    sides = _sides(copied, shapes)
    modes = () if sides is None else _MODES if any(sides) else _MODES[:1]
    for plain in [*(Plain(sides, mode) for mode in modes), Plain(None)]:
        if all(_computes(copied, _numbers(shape, random), plain) for shape in shapes):
            return plain
    return None


def _copied(layer: nn.Module, random: torch.Generator) -> nn.Module:
    """The layer with other numbers, on the CPU, and without hooks. None is 0 or 1, which change nothing in a product."""
    memo: dict[int, Any] = {}
    for tensor in (*layer.parameters(), *layer.buffers()):
        numbers = torch.randint(2, 5, tensor.shape, generator=random).float()
        numbers *= torch.randint(0, 2, tensor.shape, generator=random) * 2 - 1
        memo[id(tensor)] = nn.Parameter(numbers, False) if isinstance(tensor, nn.Parameter) else numbers
    for part in layer.modules():
        memo.update(
            {id(table): OrderedDict() for name, table in vars(part).items() if name.endswith("_hooks")}
        )
    return copy.deepcopy(layer, memo)


def _numbers(shape: Sequence[int], random: torch.Generator) -> Tensor:
    return torch.randint(-3, 4, tuple(shape), generator=random).float()


def _shapes(conv: Any) -> list[tuple[int, ...]]:
    """Inputs of sizes that leave every rest when they are divided by the stride, and one far from the others."""
    least = 3 * max(_reach(conv)) + 2 * max(conv.stride)
    steps = [*range(min(max(conv.stride), 4) + 1), 9]
    return [
        (2, conv.in_channels, *(least + step + axis for axis in range(len(conv.kernel_size))))
        for step in steps
    ]


def _reach(conv: Any) -> list[int]:
    return [(kernel - 1) * dilation + 1 for kernel, dilation in zip(conv.kernel_size, conv.dilation)]


def _computes(layer: nn.Module, x: Tensor, plain: Plain) -> bool:
    """Whether the layer gives, in both modes, what torch's own one gives behind the padding."""
    wanted = _torch_own(layer, x, plain)
    for training in (False, True):
        layer.train(training)
        found = layer(x.clone())
        if type(found) is not Tensor or found.dtype != wanted.dtype or found.shape != wanted.shape:
            return False
        if not torch.equal(found, wanted):
            return False
    return True


def _torch_own(layer: Any, x: Tensor, plain: Plain) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(x, layer.weight, layer.bias)
    padded = F.pad(x, _by_size(layer, x) if plain.sides is None else list(plain.sides), mode=plain.mode)
    convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[len(layer.kernel_size) - 1]
    return cast(
        Tensor, convolve(padded, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)
    )


def _by_size(conv: Any, x: Tensor) -> list[int]:
    sides: list[int] = []
    for size, stride, reach in reversed(list(zip(x.shape[2:], conv.stride, _reach(conv)))):
        total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
        sides += [total // 2, total - total // 2]
    return sides


def _sides(conv: Any, shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The padding before and after each axis, the last axis first, that fits all sizes; None where none does."""
    weight, bias = conv.weight.clone(), None if conv.bias is None else conv.bias.clone()
    conv.weight.zero_()
    conv.weight[:, 0].flatten(1)[:, 0] = 1
    if bias is not None:
        conv.bias.zero_()
    # Of each axis: what is padded in front, and the least and the most that may be padded behind.
    bounds: list[list[tuple[int, int, int]]] = []
    for shape in shapes:
        x = torch.zeros(shape)
        x[0, 0] = torch.arange(1, math.prod(shape[2:]) + 1).reshape(shape[2:])
        y = conv(x)[0, 0]
        middle = tuple(size // 2 for size in y.shape)
        place = torch.unravel_index(y[middle].round().long() - 1, shape[2:])
        bounds.append([])
        for at, found, size, out, stride, reach in zip(
            middle, place, shape[2:], y.shape, conv.stride, _reach(conv)
        ):
            before = at * stride - int(found)
            least = (out - 1) * stride + reach - size - before
            bounds[-1].append((before, least, least + stride - 1))
    conv.weight.copy_(weight)
    if bias is not None:
        conv.bias.copy_(bias)
    return _common(bounds)


def _common(bounds: list[list[tuple[int, int, int]]]) -> tuple[int, ...] | None:
    sides: list[int] = []
    for of_axis in reversed(list(zip(*bounds))):
        fronts = {before for before, _, _ in of_axis}
        least, most = max(low for _, low, _ in of_axis), min(high for _, _, high in of_axis)
        if len(fronts) > 1 or min(fronts) < 0 or least > most or most < 0:
            return None
        front = fronts.pop()
        # As much behind as in front, where that fits: what runs beyond the last step is never read.
        sides += [front, front if least <= front <= most else max(least, 0)]
    return tuple(sides)
