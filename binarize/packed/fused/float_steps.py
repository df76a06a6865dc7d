"""Float convolutions of a traced model: BatchNorm folded in, activations and pools taken along, images with channels last."""

from __future__ import annotations

import torch
import torch.fx
from torch import nn
from torch.fx import GraphModule
from torch.nn.utils.fusion import fuse_conv_bn_eval

from binarize.packed.fused.float_conv import FloatConv, suits
from binarize.packed.fused.steps import (
    calls_of,
    form_of,
    module_at,
    only_user,
    shape_of,
    skip_reader,
    table_of,
)

__all__ = ["channels_last", "fold_norms", "take_float_convs"]


def fold_norms(traced: GraphModule) -> None:
    """Each BatchNorm that alone reads a float convolution becomes part of it."""
    for node in list(traced.graph.nodes):
        norm = module_at(traced, node, nn.BatchNorm2d)
        conv = module_at(traced, node.args[0], nn.Conv2d) if norm is not None else None
        if conv is None or norm.running_mean is None or len(node.args[0].users) > 1:
            continue
        if calls_of(traced, node.args[0].target) > 1:
            continue
        traced.set_submodule(node.args[0].target, fuse_conv_bn_eval(conv, norm))
        node.replace_all_uses_with(node.args[0])
        traced.graph.erase_node(node)


def take_float_convs(traced: GraphModule) -> None:
    """Each float convolution that suits the kernels takes the activation and the max pooling that alone read it."""
    for node in list(traced.graph.nodes):
        conv = module_at(traced, node, nn.Conv2d)
        if conv is None or not suits(conv) or calls_of(traced, node.target) > 1:
            continue
        fused = FloatConv(conv)
        traced.set_submodule(node.target, fused)
        form = form_of(only_user(traced, node, nn.Module))
        table = None if form is None else table_of(form, conv.out_channels, 4)
        if form is not None and table is not None:
            fused.relu, fused.activation = form.is_relu, None if form.is_relu else table
            skip_reader(traced, node)
        pool = only_user(traced, node, nn.MaxPool2d)
        numbers = None if pool is None else _pool_numbers(pool)
        if numbers is not None:
            fused.pool = numbers
            skip_reader(traced, node)


def _pool_numbers(pool: nn.MaxPool2d) -> list[int] | None:
    """(side, stride, padding) of a square window; None for what the kernels do not know."""
    numbers = [pool.kernel_size, pool.stride, pool.padding]
    if pool.ceil_mode or pool.return_indices or pool.dilation not in (1, (1, 1)):
        return None
    sides = [n if isinstance(n, tuple) else (n, n) for n in numbers]
    return [a for a, _ in sides] if all(a == b for a, b in sides) else None


# A view of memory -> the same that copies where the memory lies otherwise, as images do here.
_VIEWS = {"view": "reshape", "view_as": "reshape_as"}


def channels_last(traced: GraphModule) -> None:
    for node in traced.graph.nodes:
        if node.op == "call_method" and not any(isinstance(one, torch.dtype) for one in node.args):
            node.target = _VIEWS.get(str(node.target), node.target)
    for module in list(traced.modules()):
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    for node in list(traced.graph.nodes):
        shape = shape_of(node)
        if node.op == "placeholder" and shape is not None and len(shape) == 4:
            if all(module_at(traced, user, FloatConv) is not None for user in node.users):
                continue  # its kernel reads an image as it lies
            with traced.graph.inserting_after(node):
                laid = traced.graph.call_method("contiguous", (node,), {"memory_format": torch.channels_last})
            node.replace_all_uses_with(laid, delete_user_cb=lambda user, laid=laid: user is not laid)
            laid.meta = dict(node.meta)
