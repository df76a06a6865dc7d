"""A module put at each place where another one stands."""

from __future__ import annotations

from torch import nn

__all__ = ["set_everywhere"]


def set_everywhere(root: nn.Module, path: str, new: nn.Module) -> list[str]:
    """Put `new` at `path` and at every other path of the module that stands there now; returns these paths."""
    old = root.get_submodule(path)
    paths = [other for other, module in root.named_modules(remove_duplicate=False) if module is old]
    for other in paths:
        parent, _, name = other.rpartition(".")
        root.get_submodule(parent)._modules[name] = new
    return paths
