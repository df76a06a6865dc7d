"""What is known of one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Layer"]


Kind = Literal["conv", "conv_transpose", "linear", "attention", "recurrent", "embedding", "custom"]
Position = Literal["first", "last", "none"]
Skip = Literal["own", "enclosing", "concat", "none"]
InputSign = Literal["nonneg", "lowneg", "any"]


@dataclass(frozen=True)
class Layer:
    """The facts about one layer of the float model, in execution order.

    Shapes hold the batch of the example; counts (`macs`) are for one sample. MAC = one multiply and one add.
    """

    # Dotted module path; a functional layer is named after its parameter ("attn.qkv_weight") and marked by `type`.
    name: str
    # Exact class name ("Conv2d", "ScaledStdConv2d"); "F.conv2d" or "F.linear" for a functional layer.
    type: str
    kind: Kind
    order: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    in_channels: int = 0
    out_channels: int = 0
    in_shape: tuple[int, ...] = ()
    out_shape: tuple[int, ...] = ()
    # Weight and bias elements; `weights` counts the weight alone.
    params: int = 0
    weights: int = 0
    bias: bool = False
    macs: int = 0
    position: Position = "none"
    # The residual block this layer stands in: its own add, an add around several layers, a concatenation, or none.
    skip: Skip = "none"
    # Layers on the longest chain inside that block (1 = own, 2 = BasicBlock, 3 = Bottleneck).
    span: int = 0
    # What values the input can take: nonneg after ReLU, lowneg after SiLU / GELU / Hardswish, else any.
    input_sign: InputSign = "any"
    # The projection on the shortcut path of a residual block.
    downsample: bool = False
    # Part of a squeeze-and-excitation style gate: its output only multiplies another tensor.
    gate: bool = False
    # Class names (or "F.relu", "add") of what directly feeds this layer and of what directly reads it.
    preceded_by: tuple[str, ...] = ()
    followed_by: tuple[str, ...] = ()
    # Path of the norm that reads the output ("F.batch_norm" if functional), None where there is none.
    norm_after: str | None = None
    # Class names of the modules around it, outermost first.
    inside: tuple[str, ...] = ()
    # Class names along the MRO up to nn.Module, for `subclasses: true`.
    bases: tuple[str, ...] = ()
    # How often the forward pass calls it. 0: only called in training mode or not at all.
    calls: int = 1
    # A fact that forbids binarizing it ("shared weight", "functional"), None where nothing does.
    obstacle: str | None = None
    # How this layer was seen: a verified symbolic trace, a concrete recording, or a walk over modules.
    capture: Literal["symbolic", "tape", "walk"] = "tape"

    @property
    def depthwise(self) -> bool:
        """Whether every filter reads one input channel."""
        return self.groups > 1 and self.groups == self.in_channels
