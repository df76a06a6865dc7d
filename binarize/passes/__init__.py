"""The plan's edits carried out: on modules at their paths (swap, norm, nonlinearity) and on traced containers.

generated.py     a module's `forward` replaced by generated code, its object kept
moments.py       means and variances per channel that a model's parameters promise for its values
nonlinearity.py  activations in front of a sign give way to the scheme's nonlinearity, or go
norm.py          BatchNorm for layers that none follows
rewrite.py       carry a plan out on a copy of the model
shortcut.py      real values around binary layers, added in a container's graph
swap.py          put a binary layer in place of a float one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.fx
from torch import nn

from binarize.passes.nonlinearity import attach_module, replace_activation, replace_module
from binarize.passes.shortcut import add_shortcut, add_value, replace_operand
from binarize.passes.swap import swap_layer

__all__ = ["GRAPH_PASSES", "MODULE_PASSES", "attach_module", "replace_module", "swap_layer"]

# op of an edit -> (container's graph, container, container path, arguments of the edit) edited in place
GRAPH_PASSES: Mapping[str, Callable[[torch.fx.Graph, nn.Module, str, Mapping[str, Any]], None]] = {
    "add_shortcut": add_shortcut,
    "add_value": add_value,
    "replace_operand": replace_operand,
    "replace_activation": replace_activation,
}

# op of an edit -> (root, path, arguments) changed in place; "swap" also takes the schemes and has its own call
MODULE_PASSES: Mapping[str, Callable[[nn.Module, str, Mapping[str, Any]], None]] = {
    "replace": replace_module,
    "attach": attach_module,
}
