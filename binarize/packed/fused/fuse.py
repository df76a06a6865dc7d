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

import contextlib
import copy
import io
import operator
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval

from binarize.binarizers.nonlinearity import PiecewiseLinear, piecewise_of
from binarize.capture.graph_model import GraphModel
from binarize.errors import CaptureError
from binarize.modules.outputs import tensors_in
from binarize.packed.agreement import OTHER_INPUTS, are_equal
from binarize.packed.fused.float_conv import FloatConv, suits
from binarize.packed.fused.trace import CLOSED, graph_of_steps
from binarize.packed.fused_conv import FusedConv
from binarize.packed.graph.bounds import GUARD
from binarize.packed.layers import PackedLayer

__all__ = ["fuse"]

_ADD = (operator.add, operator.iadd, torch.add)


class _Shapes(ShapeProp):
    """Runs a graph on numbers step by step, as guarded as its forward."""

    def run_node(self, n: Node) -> Any:
        if GUARD.concerns(n):
            GUARD.check(n.target, *self.fetch_args_kwargs_from_env(n))
        return super().run_node(n)


class _Fused(GraphModel):
    """The graph may be that of a file."""

    guard = GUARD


def fuse(model: nn.Module, *example: Tensor) -> nn.Module:
    """A fused copy of a packed model for inputs of the example's size (the batch may differ).

    Raises: CaptureError, where the model cannot be traced as a whole.
    """
    traced = _traced(copy.deepcopy(model).eval(), example)
    _drop_identities(traced)
    _fold_norms(traced)
    _take_float_convs(traced)
    _channels_last(traced)
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and _fuses(traced.get_submodule(str(node.target)), node):
            _fuse_layer(traced, node)
    _pass_words(traced)
    _overwrite(traced)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.eval().requires_grad_(False)


def _traced(model: nn.Module, example: tuple[Tensor, ...]) -> _Fused:
    """The model as steps that know their shapes; as many of its modules opened as the model's own results allow."""
    with torch.no_grad():
        # A forward may write into what it is given.
        expected = tensors_in(model(*(one.clone() for one in example)))
        for closed in CLOSED:
            traced = _Fused(model, graph_of_steps(model, closed, example))
            try:
                # Where a step fails, torch prints it.
                with contextlib.redirect_stderr(io.StringIO()):
                    found = tensors_in(_Shapes(traced).propagate(*(one.clone() for one in example)))
            except OTHER_INPUTS:
                continue  # a forward that takes another way where tensors only stand for themselves
            if are_equal(found, expected):
                return traced
    raise CaptureError(
        f"{type(model).__name__} cannot be traced: its steps compute something else than it does"
    )


def _shape(node: Node) -> tuple[int, ...] | None:
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return None if shape is None else tuple(shape)


def _module(traced: GraphModule, node: object, kind: type | tuple[type, ...]) -> Any:
    if isinstance(node, Node) and node.op == "call_module" and len(node.args) == 1 and not node.kwargs:
        module = traced.get_submodule(str(node.target))
        return module if isinstance(module, kind) else None
    return None


def _calls(traced: GraphModule, path: str) -> int:
    return sum(node.op == "call_module" and node.target == path for node in traced.graph.nodes)


def _drop_identities(traced: GraphModule) -> None:
    for node in list(traced.graph.nodes):
        if _module(traced, node, (nn.Identity, nn.Dropout, nn.Dropout2d)) is not None:
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def _fold_norms(traced: GraphModule) -> None:
    """Each BatchNorm that alone reads a float convolution becomes part of it."""
    for node in list(traced.graph.nodes):
        norm = _module(traced, node, nn.BatchNorm2d)
        conv = _module(traced, node.args[0], nn.Conv2d) if norm is not None else None
        if conv is None or norm.running_mean is None or len(node.args[0].users) > 1:
            continue
        if _calls(traced, node.args[0].target) > 1:
            continue
        traced.set_submodule(node.args[0].target, fuse_conv_bn_eval(conv, norm))
        node.replace_all_uses_with(node.args[0])
        traced.graph.erase_node(node)


def _take_float_convs(traced: GraphModule) -> None:
    """Each float convolution that suits the kernels takes the activation and the max pooling that alone read it."""
    for node in list(traced.graph.nodes):
        conv = _module(traced, node, nn.Conv2d)
        if conv is None or not suits(conv) or _calls(traced, node.target) > 1:
            continue
        fused = FloatConv(conv)
        traced.set_submodule(node.target, fused)
        form = _form(_only_user(traced, node, nn.Module))
        table = None if form is None else _table(form, conv.out_channels, 4)
        if form is not None and table is not None:
            fused.relu, fused.activation = form.is_relu, None if form.is_relu else table
            _skip(traced, node)
        pool = _only_user(traced, node, nn.MaxPool2d)
        numbers = None if pool is None else _pool_numbers(pool)
        if numbers is not None:
            fused.pool = numbers
            _skip(traced, node)


def _only_user(traced: GraphModule, node: Node, kind: type | tuple[type, ...]) -> Any:
    (user,) = node.users if len(node.users) == 1 else (None,)
    return _module(traced, user, kind)


def _skip(traced: GraphModule, node: Node) -> None:
    """The only reader of a node, which the node now does itself, leaves the graph."""
    (user,) = node.users
    node.meta = dict(user.meta)
    user.replace_all_uses_with(node)
    traced.graph.erase_node(user)


def _pool_numbers(pool: nn.MaxPool2d) -> list[int] | None:
    """(side, stride, padding) of a square window; None for what the kernels do not know."""
    numbers = [pool.kernel_size, pool.stride, pool.padding]
    if pool.ceil_mode or pool.return_indices or pool.dilation not in (1, (1, 1)):
        return None
    sides = [n if isinstance(n, tuple) else (n, n) for n in numbers]
    return [a for a, _ in sides] if all(a == b for a, b in sides) else None


# A view of memory -> the same that copies where the memory lies otherwise, as images do here.
_VIEWS = {"view": "reshape", "view_as": "reshape_as"}


def _channels_last(traced: GraphModule) -> None:
    for node in traced.graph.nodes:
        if node.op == "call_method" and not any(isinstance(one, torch.dtype) for one in node.args):
            node.target = _VIEWS.get(str(node.target), node.target)
    for module in list(traced.modules()):
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    for node in list(traced.graph.nodes):
        shape = _shape(node)
        if node.op == "placeholder" and shape is not None and len(shape) == 4:
            if all(_module(traced, user, FloatConv) is not None for user in node.users):
                continue  # its kernel reads an image as it lies
            with traced.graph.inserting_after(node):
                laid = traced.graph.call_method("contiguous", (node,), {"memory_format": torch.channels_last})
            node.replace_all_uses_with(laid, delete_user_cb=lambda user, laid=laid: user is not laid)
            laid.meta = dict(node.meta)


def _node(value: object) -> Node:
    assert isinstance(value, Node)
    return value


def _fuses(layer: nn.Module, node: Node) -> bool:
    """Whether one call of a kernel is all that a packed layer does."""
    if not isinstance(layer, PackedLayer) or layer.float_input:
        return False
    shape = _shape(_node(node.args[0])) if node.args else None
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
    return plain and alone and len(node.args) == 1 and not node.kwargs and _shape(node) is not None


def _fuse_layer(traced: GraphModule, node: Node) -> None:
    layer = traced.get_submodule(str(node.target))
    assert isinstance(layer, PackedLayer)
    shape = _shape(_node(node.args[0]))
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
        source = _node(before)
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
    return _fused(traced, node) is not None or _module(traced, node, FloatConv) is not None


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
    if len(others) != 1 or not isinstance(others[0], Node) or _shape(others[0]) != _shape(last):
        return last
    node.meta["residual"] = (others[0],)
    node.meta.setdefault("taken", []).append(user)
    # The next step in the same graph may be the activation.
    user.meta["of"] = node
    return user


def _take_activation(traced: GraphModule, fused: FusedConv, last: Node) -> Node:
    (user,) = last.users if len(last.users) == 1 else (None,)
    form = _form(_module(traced, user, nn.Module))
    channels = int(fused.shift.numel())
    table = None if form is None else _table(form, channels, 2 if fused.flat else 4)
    if user is None or table is None:
        return last
    fused.activation = table
    start = last.meta.get("of", last)
    start.meta.setdefault("taken", []).append(user)
    user.meta["of"] = start
    return user


def _form(module: nn.Module | None) -> PiecewiseLinear | None:
    """The straight lines of an activation; None where it runs as it is."""
    form = None if module is None else piecewise_of(module)
    return form if isinstance(form, PiecewiseLinear) else None


def _table(form: PiecewiseLinear, channels: int, axes: int) -> Tensor | None:
    """(pre, positive, negative, post) of y = (z > 0 ? positive z : negative z) + post, z = x + pre."""
    if form.limited or (form.channels > 1 and form.channel_dim % axes != 1):
        return None
    return form.table(channels)
