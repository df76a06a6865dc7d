"""Whether somebody looks at the operations that run, who would not see a kernel that is called by address."""

from __future__ import annotations

import torch

__all__ = ["is_recorded"]


def is_recorded() -> bool:
    """Whether torch compiles, traces or transforms (vmap), or a dispatch mode (make_fx, a counter) is on."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or bool(torch._C._len_torch_dispatch_stack())
        or torch._C._functorch.maybe_current_level() is not None
    )
