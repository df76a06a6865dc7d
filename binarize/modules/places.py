"""A module put at each place where another one stands: as a child, and in what functions of the model hold.

A lambda that a model makes of its layers (`self.run = lambda x: conv(x)`) holds them in a cell of its own, which neither
`copy.deepcopy` nor a swap of children reaches.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from binarize.modules.hooks import HOOK_TABLES

__all__ = ["rebind", "set_everywhere"]

# What a module holds of itself; its attributes are the rest.
_TABLES = frozenset(vars(nn.Module())) - {*HOOK_TABLES}
# Lists of functions inside lists of functions are looked into so far.
_DEPTH = 4


def set_everywhere(root: nn.Module, path: str, new: nn.Module) -> list[str]:
    """Put `new` at `path` and at every other path of the module that stands there now; returns these paths.

    Functions, lists and dictionaries among the attributes of the model's modules that hold it hold `new` afterwards.
    """
    old = root.get_submodule(path)
    paths = [other for other, module in root.named_modules(remove_duplicate=False) if module is old]
    for other in paths:
        parent, _, name = other.rpartition(".")
        root.get_submodule(parent)._modules[name] = new
    rebind(root, {id(old): new})
    return paths


def rebind(root: nn.Module, others: Mapping[int, Any]) -> None:
    """Let functions and lists among the attributes and hooks of a model's modules hold other modules and parameters.

    `others`: id of what they hold now -> what takes its place.
    """
    for part in root.modules():
        for name, value in list(vars(part).items()):
            if name in HOOK_TABLES:
                for key, hook in value.items():
                    value[key] = _bound(hook, others, _DEPTH)
            elif name not in _TABLES:
                bound = _bound(value, others, _DEPTH)
                if bound is not value:
                    part.__dict__[name] = bound


def _bound(value: Any, others: Mapping[int, Any], depth: int) -> Any:
    """The same value with the others in place of what it holds; itself, where it holds none of them."""
    if isinstance(value, (nn.Module, Tensor)):
        return others.get(id(value), value)
    if not depth:
        return value
    if isinstance(value, types.FunctionType):
        return _function(value, others, depth - 1)
    if type(value) is types.MethodType:
        owner = _bound(value.__self__, others, depth - 1)
        return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
    if type(value) is functools.partial:
        function, *args = _bound([value.func, *value.args], others, depth - 1)
        kwargs = _bound(value.keywords, others, depth - 1)
        same = function is value.func and kwargs is value.keywords and _same(args, value.args)
        return value if same else functools.partial(function, *args, **kwargs)
    if type(value) in (list, tuple):
        items = [_bound(one, others, depth - 1) for one in value]
        return value if _same(items, value) else type(value)(items)
    if type(value) is dict:
        found = {key: _bound(one, others, depth - 1) for key, one in value.items()}
        return value if _same(found.values(), value.values()) else found
    return value


def _same(mine: Any, its: Any) -> bool:
    return all(a is b for a, b in zip(mine, its))


def _function(function: types.FunctionType, others: Mapping[int, Any], depth: int) -> types.FunctionType:
    """The function with cells and defaults that hold the others."""
    cells = [_cell(cell, others, depth) for cell in function.__closure__ or ()]
    defaults = _bound(function.__defaults__, others, depth)
    keywords = _bound(function.__kwdefaults__, others, depth)
    same = _same(cells, function.__closure__ or ()) and keywords is function.__kwdefaults__
    if same and defaults is function.__defaults__:
        return function
    code, names = function.__code__, function.__globals__
    made = types.FunctionType(code, names, function.__name__, defaults, tuple(cells) or None)
    made.__kwdefaults__ = keywords
    functools.update_wrapper(made, function)
    return made


def _cell(cell: types.CellType, others: Mapping[int, Any], depth: int) -> types.CellType:
    try:
        held = cell.cell_contents
    except ValueError:  # a variable that was never set
        return cell
    bound = _bound(held, others, depth)
    return cell if bound is held else types.CellType(bound)
