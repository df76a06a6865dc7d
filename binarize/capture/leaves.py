"""Which modules are one operation and which are opened."""

from __future__ import annotations

from torch import nn

from binarize.attention.multihead import ExplicitAttention
from binarize.computed_weights import class_before
from binarize.layers.layer import is_binary

__all__ = ["CONVOLUTIONS", "is_leaf", "is_opaque"]

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# Their subclasses stay one operation too (timm's BatchNormAct2d, Conv2dSame, LayerNorm2d ...).
_OPERATIONS = (
    *CONVOLUTIONS,
    nn.Linear,
    nn.Embedding,
    nn.MultiheadAttention,
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.dropout._DropoutNd,
    nn.RNNBase,
)


def is_leaf(module: nn.Module) -> bool:
    """Whether the recorder writes a call of this module down as one node.

    Childless helpers without parameters are opened: they may return objects that are no tensors, and what they
    compute should be seen. Those that draw random numbers (DropPath) are not: their graph differs between the modes.
    """
    if _is_operation(module):
        return True
    if next(module.children(), None) is not None:
        return False
    holds_tensors = any(True for _ in module.parameters()) or any(True for _ in module.buffers())
    return holds_tensors or "Drop" in type(module).__name__ or "StochasticDepth" in type(module).__name__


def is_opaque(module: nn.Module) -> bool:
    """Whether the symbolic tracer leaves this module closed: every single operation and every childless module."""
    return _is_operation(module) or next(module.children(), None) is None


def _is_operation(module: nn.Module) -> bool:
    if isinstance(module, (ExplicitAttention, nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return False
    # Lazily rewritten layers are subclasses as well, so isinstance comes first.
    if isinstance(module, _OPERATIONS):
        return not _is_container(module)
    # Torch's own containers (nn.TransformerEncoderLayer) call their parts while they are looked at; see attention/
    childless = next(module.children(), None) is None
    return childless and type(module).__module__.startswith(("torch.nn.", "torch.ao.nn."))


def _is_container(module: nn.Module) -> bool:
    """Whether a layer's class was only borrowed: its forward runs layers of its own, and not what it inherits."""
    base = next((kind for kind in (*CONVOLUTIONS, nn.Linear) if isinstance(module, kind)), None)
    forward = class_before(module).forward
    # A binary layer computes what it inherits, on what its parts make of it.
    if base is None or is_binary(module) or forward is base.forward or not hasattr(forward, "__code__"):
        return False
    code = forward.__code__
    if {"weight", "forward", "_conv_forward", "super"} & {*code.co_names} or "__class__" in code.co_freevars:
        return False
    held = [child for name, child in module.named_children() if name != "parametrizations"]
    return any(True for child in held for _ in child.parameters())
