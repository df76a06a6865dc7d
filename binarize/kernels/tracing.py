"""Whether somebody looks at the operations that run, who would not see a kernel that is called by address."""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor, nn

__all__ = ["as_one_node", "is_recorded"]


def is_recorded() -> bool:
    """Whether torch compiles, traces or transforms (vmap), or a dispatch mode (make_fx, a counter) is on."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or bool(torch._C._len_torch_dispatch_stack())
        or torch._C._functorch.maybe_current_level() is not None
    )


def as_one_node(module: nn.Module, x: Tensor, *rest: object) -> Tensor | None:
    """The call of `module` on `x` as a node, where torch.fx traces symbolically; None where `x` is a tensor.

    So torchvision's feature extraction and whatever else traces a converted model need not know our modules: torch
    asks a module's own name whether to trace into it.
    """
    if not isinstance(x, torch.fx.Proxy):
        return None
    tracer = x.tracer
    node: Tensor = tracer.create_proxy("call_module", tracer.path_of_module(module), (x, *rest), {})
    return node
