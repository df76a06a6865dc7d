"""A packed model -> the same model with fewer passes over memory: for speed, once it has been checked.

    layer, add, activation    one call of a kernel, which adds and bends what it still holds in registers
    layer, next layer         the call also compares with the next layer's thresholds, which then reads bits
    add                       into the memory of what is added, where nothing reads that later
    convolution, BatchNorm    one convolution, the norm folded into its weight
    with activations, pools  one call of a float kernel, where that is faster than torch: stems, 1x1
    images                    channels last in memory, from the first step on

What the kernels take over is computed to the same bits. The folded norms round otherwise, and so do torch's float
layers on images that lie in memory in another order: logits agree as two float programs do, and an input next to a
threshold may fall on its other side.
"""

from __future__ import annotations

import copy
import operator

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from binarize.packed.fused.float_conv import FloatConv
from binarize.packed.fused.float_steps import channels_last, fold_norms, take_float_convs
from binarize.packed.fused.steps import (
    as_node,
    form_of,
    module_at,
    shape_of,
    table_of,
)
from binarize.packed.fused.trace import traced_steps
from binarize.packed.fused_conv import FusedConv
from binarize.packed.layers import PackedLayer

__all__ = ["fuse"]

_ADD = (operator.add, operator.iadd, torch.add)


def fuse(model: nn.Module, *example: Tensor) -> nn.Module:
    """A fused copy of a packed model for inputs of the example's size (the batch may differ).

    Raises: CaptureError, where the model cannot be traced as a whole.
    """
    traced = traced_steps(copy.deepcopy(model).eval(), example)
    _drop_identities(traced)
    fold_norms(traced)
    take_float_convs(traced)
    channels_last(traced)
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and _fuses(traced.get_submodule(str(node.target)), node):
            _fuse_layer(traced, node)
    _pass_words(traced)
    _overwrite(traced)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.eval().requires_grad_(False)


def _drop_identities(traced: GraphModule) -> None:
    for node in list(traced.graph.nodes):
        if module_at(traced, node, (nn.Identity, nn.Dropout, nn.Dropout2d)) is not None:
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def _fuses(layer: nn.Module, node: Node) -> bool:
    """Whether one call of a kernel is all that a packed layer does."""
    if not isinstance(layer, PackedLayer) or layer.float_input:
        return False
    shape = shape_of(as_node(node.args[0])) if node.args else None
    if shape is None or len(shape) != (2 if layer.window.kind == "linear" else 4):
        return False
    plain = (
        layer.window.native and layer.window.padding_mode == "zeros" and len(layer.window.kernel) in (0, 2)
    )
    inside = (layer.front, layer.norm, layer.shortcut, layer.activation)
    alone = all(part is None for part in inside[:2]) and not (
        (layer.shortcut is not None and layer.shortcut_inside)
        or (layer.activation is not None and layer.activation_inside)
    )
    return plain and alone and len(node.args) == 1 and not node.kwargs and shape_of(node) is not None


def _fuse_layer(traced: GraphModule, node: Node) -> None:
    layer = traced.get_submodule(str(node.target))
    assert isinstance(layer, PackedLayer)
    shape = shape_of(as_node(node.args[0]))
    assert shape is not None
    fused = FusedConv(layer, torch.empty(shape, device="meta"))
    last = node
    last = _take_activation(traced, fused, last)
    first = fused.activation is not None
    last = _take_residual(traced, node, last)
    if not first:
        last = _take_activation(traced, fused, last)
    fused.activation_first = first
    path = f"fused_{node.name}"
    traced.add_submodule(path, fused)
    # Everything that the call reads stands before the last step that it takes the place of.
    with traced.graph.inserting_before(last):
        call = traced.graph.call_module(path, (node.args[0], *node.meta.pop("residual", ())))
    call.meta = dict(last.meta)
    taken = node.meta.pop("taken", [])
    last.replace_all_uses_with(call)
    for old in [*reversed(taken), node]:
        traced.graph.erase_node(old)


def _pass_words(traced: GraphModule) -> None:
    """Where a fused layer reads another's result by its signs, that one gives them; the first reader's thresholds."""
    for node in list(traced.graph.nodes):
        before, layer = node.args[0] if node.args else None, _fused(traced, node)
        producer = _fused(traced, before)
        if layer is None or producer is None or producer.next_threshold is not None:
            continue
        if layer.threshold is not None and layer.threshold.dim() != 1:
            continue
        threshold = torch.zeros(len(producer.shift)) if layer.threshold is None else layer.threshold
        producer.next_threshold, layer.threshold = threshold, None
        producer.gives_words = True
        source = as_node(before)
        with traced.graph.inserting_after(source):
            words = traced.graph.call_function(operator.getitem, (source, 1))
            result = traced.graph.call_function(operator.getitem, (source, 0))
        source.replace_all_uses_with(result, delete_user_cb=lambda user: user not in (words, result))  # noqa: B023
        node.args = (words, *node.args[1:])
        result.meta = dict(source.meta)


def _overwrite(traced: GraphModule) -> None:
    """A result takes the memory of its residual, where a fused layer made that and nothing reads it later."""
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    for node in order:
        layer = _fused(traced, node)
        residual = node.args[1] if layer is not None and len(node.args) > 1 else None
        if layer is None or layer.next_threshold is None or not isinstance(residual, Node):
            continue
        made = residual.args[0] if residual.target is operator.getitem else residual
        # Another step could give a view of what it reads, which lives longer.
        layer.overwrites = _makes_new(traced, made) and all(
            order[user] <= order[node] and _makes_new(traced, user) for user in residual.users
        )


def _makes_new(traced: GraphModule, node: object) -> bool:
    """Whether a step's result has memory that nothing read later has."""
    return _fused(traced, node) is not None or module_at(traced, node, FloatConv) is not None


def _fused(traced: GraphModule, node: object) -> FusedConv | None:
    if isinstance(node, Node) and node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        return module if isinstance(module, FusedConv) else None
    return None


def _take_residual(traced: GraphModule, node: Node, last: Node) -> Node:
    (user,) = last.users if len(last.users) == 1 else (None,)
    adds = user is not None and user.op == "call_function" and user.target in _ADD and len(user.args) == 2
    if user is None or not adds or user.kwargs:
        return last
    others = [one for one in user.args if one is not last]
    if len(others) != 1 or not isinstance(others[0], Node) or shape_of(others[0]) != shape_of(last):
        return last
    node.meta["residual"] = (others[0],)
    node.meta.setdefault("taken", []).append(user)
    # The next step in the same graph may be the activation.
    user.meta["of"] = node
    return user


def _take_activation(traced: GraphModule, fused: FusedConv, last: Node) -> Node:
    (user,) = last.users if len(last.users) == 1 else (None,)
    form = form_of(module_at(traced, user, nn.Module))
    channels = int(fused.shift.numel())
    table = None if form is None else table_of(form, channels, 2 if fused.flat else 4)
    if user is None or table is None:
        return last
    fused.activation = table
    start = last.meta.get("of", last)
    start.meta.setdefault("taken", []).append(user)
    user.meta["of"] = start
    return user
