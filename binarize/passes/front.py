"""Pooling or BatchNorm in front of a layer that stays float.

before   x ── layer        after   x ── new module ── layer
"""

from __future__ import annotations

from typing import cast

import torch.fx
from torch import nn

from binarize.errors import RewriteError
from binarize.passes.nonlinearity import find_node, relative
from binarize.planning.record.edit_kinds import Precede

__all__ = ["put_in_front"]

_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


def put_in_front(graph: torch.fx.Graph, container: nn.Module, edit: Precede) -> None:
    """Let the planned call of a layer read what a new module makes of its input; a pooled layer's stride becomes 1.

    Raises: RewriteError, where the module's place is taken.
    """
    layer = container.get_submodule(relative(edit.layer, edit.container))
    name = relative(edit.module, edit.container)
    if hasattr(container, name):
        raise RewriteError(f"precede: {edit.module} exists already")
    node = find_node(graph, edit.node, edit.op)
    source = node.args[0] if node.args else next(iter(node.kwargs.values()))
    container.add_module(name, _module(layer, edit))
    with graph.inserting_before(node):
        between = graph.create_node("call_module", name, (source,))
    node.replace_input_with(cast(torch.fx.Node, source), between)


def _module(layer: nn.Module, edit: Precede) -> nn.Module:
    if not edit.pool:
        weight = next(layer.parameters())
        return nn.BatchNorm1d(edit.norm).to(device=weight.device, dtype=weight.dtype).train(layer.training)
    vars(layer)["stride"] = (1,) * len(edit.pool)
    # As many positions as the stride left: ceil(size / stride).
    options = {"kernel_size": edit.pool, "stride": edit.pool, "ceil_mode": True, "count_include_pad": False}
    new: nn.Module = _POOLS[len(edit.pool) - 1](**options)  # type: ignore[arg-type]
    return new.train(layer.training)
