"""Modules by the names they had when models were pickled, and programs written, that people still have.

A pickle names the module of each class. Where a module has moved, a stand-in answers for its old name and hands on what
the new ones hold. Saved folders and packed files name no module.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

__all__ = ["FORMER", "answer_for_former_names"]

# Old name -> where what it held is now.
FORMER: Mapping[str, tuple[str, ...]] = {
    "binarize.channels": ("binarize.layers.shortcuts",),
    "binarize.cost": ("binarize.planning.cost",),
    "binarize.demo_data": ("binarize.demo",),
    "binarize.demo_data.digits": ("binarize.demo.digits",),
    "binarize.foreign_layers": ("binarize.layers.foreign",),
    "binarize.generated": ("binarize.passes.generated",),
    "binarize.packed.float_conv": ("binarize.packed.fused.float_conv",),
    # Programs that read a .pt2 file import it for its operators, which `binarize.packed` registers.
    "binarize.packed.ops": ("binarize.kernels.operators",),
    "binarize.parts": ("binarize.schemes.part", "binarize.schemes.shipped"),
    "binarize.plan": ("binarize.planning.plan",),
    "binarize.report.model": ("binarize.report.report", "binarize.report.data"),
    "binarize.rule_set": ("binarize.rules.rule_set",),
    "binarize.rule_text": ("binarize.rules.text",),
    "binarize.scheme": ("binarize.schemes.scheme",),
    "binarize.seen": ("binarize.inputs.seen",),
    "binarize.shortcuts": ("binarize.layers.shortcuts",),
    "binarize.sources.examples": ("binarize.inputs.arguments",),
    "binarize.window_attention": ("binarize.attention.windows",),
}


class _Former(ModuleType):
    """Imports nothing before it is asked for a name."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for place in FORMER[self.__name__]:
                module = importlib.import_module(place)
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def answer_for_former_names() -> None:
    """Put the stand-ins where an import looks first, so that none is set as an attribute of its package.

    `binarize.plan` stays the function.
    """
    for name in FORMER:
        sys.modules.setdefault(name, _Former(name))
