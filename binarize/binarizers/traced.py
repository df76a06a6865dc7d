"""Symbolic tracing: a module of ours is one node of the graph, as torch's own layers are."""

from __future__ import annotations

from typing import Any

import torch.fx
from torch import Tensor, nn

__all__ = ["as_one_node"]


def as_one_node(module: nn.Module, x: Tensor, *rest: Any) -> Tensor | None:
    """The call of `module` on `x` as a node, where torch.fx traces symbolically; None where `x` is a tensor.

    So torchvision's feature extraction and whatever else traces a converted model need not know our modules: torch
    asks a module's own name whether to trace into it.
    """
    if not isinstance(x, torch.fx.Proxy):
        return None
    tracer: Any = x.tracer
    node: Tensor = tracer.create_proxy("call_module", tracer.path_of_module(module), (x, *rest), {})
    return node
