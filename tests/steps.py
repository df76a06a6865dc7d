"""What a converted network, or a part of it, computes, one step a line: `conv1 = BinaryConv2d(x)`.

Written so that the blocks of a published network can be put beside it by hand. A binary layer shows what it runs itself
in front of its sign and behind its product, in that order; modules that change nothing are left out.
"""

from __future__ import annotations

import operator
from typing import Any

import torch.fx
from torch import nn

from binarize.layers.layer import BinaryLayer

__all__ = ["steps"]

_IDLE = (nn.Identity, nn.Dropout, nn.Flatten)


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, BinaryLayer) or not list(m.children()):
            return True
        return type(m).__module__.startswith("binarize.")


def steps(model: nn.Module, path: str = "") -> list[str]:
    """The steps of the module at a path."""
    part = model.get_submodule(path)
    graph = _Tracer().trace(part)
    shown: dict[torch.fx.Node, str] = {}
    lines: list[str] = []
    adds = 0
    for node in graph.nodes:
        inputs = [shown[one] for one in node.all_input_nodes if one in shown]
        if node.op == "placeholder":
            shown[node] = node.name
        elif node.op == "call_module":
            module = part.get_submodule(str(node.target))
            if isinstance(module, _IDLE):
                shown[node] = inputs[0]
                continue
            shown[node] = str(node.target)
            lines.append(f"{node.target} = {_kind(module)}({', '.join(inputs)})")
        elif node.target in (operator.add, operator.iadd, torch.add):
            adds += 1
            shown[node] = f"add{adds}"
            lines.append(f"add{adds} = {' + '.join(inputs)}")
        elif node.op != "output" and inputs:
            shown[node] = inputs[0]
    return lines


def _kind(module: Any) -> str:
    name = type(module).__name__
    if isinstance(module, BinaryLayer):
        if module.input_binarizer is None:
            name += "[weights]"
        inside = [module.norm]
        inside += [module.shortcut] if module.shortcut_inside else []
        inside += [module.activation] if module.activation_inside else []
        name = " > ".join([name, *(_kind(one) for one in inside if one is not None)])
        if isinstance(module.threshold, nn.modules.batchnorm._BatchNorm):
            name = f"{_kind(module.threshold)} > {name}"
    if getattr(module, "stride", 1) not in (1, (1,), (1, 1)) and hasattr(module, "kernel_size"):
        first = module.stride if isinstance(module.stride, int) else module.stride[0]
        return f"{name}/{first}"
    return name
