"""Whether somebody looks at the operations that run, who would not see a kernel that is called by address."""

from __future__ import annotations

import torch

__all__ = ["is_recorded"]


def is_recorded() -> bool:
    """Whether torch compiles or traces, or a dispatch mode (make_fx, a counter of operations) is on."""
    return (
        torch.compiler.is_compiling() or torch.jit.is_tracing() or bool(torch._C._len_torch_dispatch_stack())
    )
