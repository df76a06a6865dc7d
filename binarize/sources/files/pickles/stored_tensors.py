"""Tensors made of what a pickle says of them, each inside its storage.

A size, a stride or an offset from a file is checked against the data before torch sees it, and all tensors together
hold little more than the file does: a stride of 0 could make a parameter of 10^13 elements out of one.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from binarize.kernels.buffers.memory import span
from binarize.sources.files.pickles.inert import Named
from binarize.sources.files.pickles.instance_dicts import HostileObject, is_name
from binarize.sources.files.pickles.records import Records, Reference

__all__ = ["MAKERS", "QUANTIZED", "Tensors"]

# What tensors may hold together: so many times the file, and this much more.
TIMES, MORE = 16, 1 << 26
DIMENSIONS = 32
# Numbers of a tensor without data, and bytes between the first and the last.
EMPTY_LIMIT = 1 << 50
QUANTIZED = "torch._utils._rebuild_qtensor"
TENSOR_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter")
# The function that a pickle names -> what makes the tensor instead.
MAKERS = {
    "torch._utils._rebuild_tensor": "old",
    "torch._utils._rebuild_tensor_v2": "stored",
    "torch._utils._rebuild_tensor_v3": "typed",
    "torch._utils._rebuild_meta_tensor_no_storage": "without_data",
    "torch._utils._rebuild_parameter": "parameter",
    "torch._utils._rebuild_parameter_with_state": "parameter",
    "torch._tensor._rebuild_from_type_v2": "with_attributes",
}


class Tensors:
    """Makes the tensors of one file: `makers` by the name of the function that would have made them."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._left = TIMES * records.size + MORE
        self.makers: dict[str, Callable[..., object]] = {
            name: getattr(self, method) for name, method in MAKERS.items()
        }

    def old(self, reference: object, offset: object, size: object, stride: object) -> Tensor:
        """As torch before 0.4 wrote them."""
        return self._made(reference, offset, size, stride)

    def stored(
        self,
        reference: object,
        offset: object,
        size: object,
        stride: object,
        requires_grad: object = False,
        *extras: object,
    ) -> Tensor:
        """A tensor of a typed storage; `extras` are its hooks and its metadata."""
        _refuse_extras(*extras)
        return self._made(reference, offset, size, stride).requires_grad_(_flag(requires_grad))

    def typed(
        self,
        reference: object,
        offset: object,
        size: object,
        stride: object,
        *rest: object,
    ) -> Tensor:
        """A tensor of bytes that says its own type; `rest` are requires_grad, its hooks, that type and its metadata."""
        requires_grad, hooks, dtype, *metadata = rest
        _refuse_extras(hooks, *metadata)
        if not isinstance(dtype, torch.dtype):
            raise ValueError("a tensor without a type")
        made = self._made(reference, offset, size, stride, dtype)
        return made.requires_grad_(_flag(requires_grad))

    def without_data(self, dtype: object, size: object, stride: object, requires_grad: object) -> Tensor:
        """A tensor of shapes alone, on the meta device."""
        if not isinstance(dtype, torch.dtype):
            raise ValueError("a tensor without a type")
        sizes, strides = _numbers(size), _numbers(stride)
        if (
            len(sizes) != len(strides)
            or math.prod(sizes) * 16 > EMPTY_LIMIT
            or span(sizes, strides) > EMPTY_LIMIT
        ):
            raise ValueError("a tensor without data of an impossible size")
        return torch.empty_strided(
            sizes, strides, dtype=dtype, device="meta", requires_grad=_flag(requires_grad)
        )

    def parameter(
        self, data: object, requires_grad: object, hooks: object = None, state: object = None
    ) -> nn.Parameter:
        """A parameter, with the attributes it had."""
        _refuse_extras(hooks)
        if type(data) is not Tensor:
            raise ValueError("a parameter without a tensor")
        if not data.is_meta and data.numel() > span(data.shape, data.stride()):
            raise ValueError("a parameter whose elements lie one upon another")
        return _with_state(nn.Parameter(data, _flag(requires_grad)), state)

    def with_attributes(self, maker: object, kind: object, args: object, state: object) -> Tensor:
        """A plain tensor with attributes of its own; no other class is made."""
        name = maker.name if isinstance(maker, Named) else ""
        class_name = kind.name if isinstance(kind, Named) else ""
        if name not in self.makers or name.endswith("_from_type_v2") or not isinstance(args, tuple):
            raise HostileObject(f"a tensor in it is made by {name or 'an object'}")
        if class_name not in TENSOR_CLASSES:
            raise HostileObject(f"a tensor in it is of the class {class_name or 'of an object'}")
        made = self.makers[name](*args)
        if not isinstance(made, Tensor):
            raise ValueError("a tensor in it is none")
        return _with_state(made, state)

    def _made(
        self,
        reference: object,
        offset: object,
        size: object,
        stride: object,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        if not isinstance(reference, Reference):
            raise ValueError("a tensor without data")
        dtype = dtype or reference.dtype
        start, sizes, strides = _numbers((offset,))[0], _numbers(size), _numbers(stride)
        held = reference.count * reference.dtype.itemsize // dtype.itemsize
        count = math.prod(sizes)
        if len(sizes) != len(strides) or start + span(sizes, strides) > held:
            raise ValueError(f"a tensor that does not lie inside of its data {reference.key[:40]}")
        if any(step > max(held, 1) << 16 for step in strides):
            raise ValueError("a tensor with an impossible stride")
        self._left -= count * dtype.itemsize
        if self._left < 0:
            raise ValueError("its tensors have many more elements than the file holds")
        storage = self._records.storage(reference)
        if dtype == torch.bool and reference.dtype != torch.bool:
            raise ValueError("truth values stored as something else")
        return torch.empty(0, dtype=dtype).set_(storage, start, sizes, strides)


def _numbers(found: object) -> tuple[int, ...]:
    """Sizes, strides or an offset: whole numbers that are not negative."""
    if not isinstance(found, tuple) or len(found) > DIMENSIONS:
        raise ValueError("a tensor without a proper shape")
    if any(type(n) is not int or not 0 <= n < EMPTY_LIMIT for n in found):
        raise ValueError("a tensor of an impossible shape")
    return found


def _flag(found: object) -> bool:
    if type(found) is not bool:
        raise ValueError("a flag of a tensor is neither true nor false")
    return found


def _refuse_extras(hooks: object = None, metadata: object = None) -> None:
    if hooks is not None and (type(hooks) is not OrderedDict or hooks):
        raise HostileObject("a tensor in it has hooks")
    if metadata:
        raise ValueError("a tensor in it is a conjugate or negative view")


def _with_state(tensor: object, state: object) -> Any:
    """The tensor with plain attributes that take the place of none of its own."""
    if isinstance(state, tuple) and len(state) == 2 and state[1] is None:  # what a class with slots gives
        state = state[0]
    if state is None:
        return tensor
    if not isinstance(state, dict):
        raise ValueError("a tensor in it has no proper attributes")
    for name, value in state.items():
        plain = type(value) in (bool, int, float, str, type(None))
        if not is_name(name) or hasattr(Tensor, name) or not plain:
            raise HostileObject(f"a tensor in it has its own {name!r:.80}")
        setattr(tensor, name, value)
    return tensor
