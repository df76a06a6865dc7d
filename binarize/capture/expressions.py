"""Values, names and calls of a torch.fx graph as Python expressions, in the form of syntax trees."""

from __future__ import annotations

import ast
import enum
import keyword
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.fx
from torch.fx import Node

from binarize.errors import RewriteError

__all__ = ["Expressions", "Globals", "Names", "is_identifier"]

# Names in the source -> ("module", name) for torch, ("object", object) for all else.
Globals = dict[str, tuple[str, Any]]

_BINARY: dict[Callable[..., Any], ast.operator] = {
    operator.add: ast.Add(),
    operator.sub: ast.Sub(),
    operator.mul: ast.Mult(),
    operator.truediv: ast.Div(),
    operator.floordiv: ast.FloorDiv(),
    operator.mod: ast.Mod(),
    operator.pow: ast.Pow(),
    operator.matmul: ast.MatMult(),
    operator.lshift: ast.LShift(),
    operator.rshift: ast.RShift(),
    operator.and_: ast.BitAnd(),
    operator.or_: ast.BitOr(),
    operator.xor: ast.BitXor(),
}
_IN_PLACE: dict[Any, ast.operator] = {
    operator.iadd: ast.Add(),
    operator.isub: ast.Sub(),
    operator.imul: ast.Mult(),
    operator.itruediv: ast.Div(),
    operator.ifloordiv: ast.FloorDiv(),
    operator.imod: ast.Mod(),
    operator.ipow: ast.Pow(),
    operator.imatmul: ast.MatMult(),
    operator.ilshift: ast.LShift(),
    operator.irshift: ast.RShift(),
    operator.iand: ast.BitAnd(),
    operator.ior: ast.BitOr(),
    operator.ixor: ast.BitXor(),
}
_COMPARED: dict[Callable[..., Any], ast.cmpop] = {
    operator.eq: ast.Eq(),
    operator.ne: ast.NotEq(),
    operator.lt: ast.Lt(),
    operator.le: ast.LtE(),
    operator.gt: ast.Gt(),
    operator.ge: ast.GtE(),
}
_UNARY: dict[Callable[..., Any], ast.unaryop] = {
    operator.neg: ast.USub(),
    operator.pos: ast.UAdd(),
    operator.invert: ast.Invert(),
}
# Digits of an integer that stands in the source; Python itself reads no longer ones than 4300.
_MOST_DIGITS = 1000
_DEEPEST = 50


def is_identifier(name: object) -> bool:
    """Whether Python reads these characters as one name, and as this one."""
    return (
        isinstance(name, str)
        and name.isidentifier()
        and not keyword.iskeyword(name)
        and unicodedata.normalize("NFKC", name) == name
    )


class Names:
    """Python names of which no two are equal."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self.known: dict[Node, str] = {}
        self.root = "self"

    def new(self, wish: str) -> str:
        """A name that is not taken yet, like the one wished for."""
        name = re.sub(r"[^0-9a-zA-Z_]+", "_", wish)
        if not name or name[0].isdigit() or keyword.iskeyword(name):
            name = f"_{name}"
        base, number = name, 0
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name


class Expressions:
    """Writes values down; what has no form of its own is held under a global name."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.globals: Globals = {}
        self._held: dict[int | tuple[str, object], str] = {}

    def value(self, value: object, nodes: Mapping[Node, str], deep: int = 0) -> ast.expr:
        """An argument. Raises: RewriteError, where it is nested too deep or is a step of another graph."""
        if deep > _DEEPEST:
            raise RewriteError("an argument is nested too deep")
        if isinstance(value, Node):
            if value not in nodes:
                raise RewriteError(f"{value.name} is no step of this graph")
            return _load(nodes[value])

        def each(values: Iterable[Any]) -> list[ast.expr]:
            return [self.value(one, nodes, deep + 1) for one in values]

        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return ast.Call(_load(self.held(type(value))), each(value), [])
        if isinstance(value, tuple):
            return ast.Tuple(each(value), ast.Load())
        if isinstance(value, list):
            return ast.List(each(value), ast.Load())
        if isinstance(value, dict):
            return ast.Dict(list(each(value.keys())), each(value.values()))
        if isinstance(value, (slice, range)):
            return ast.Call(_load(self.held(type(value))), each([value.start, value.stop, value.step]), [])
        return self._plain(value)

    def _plain(self, value: Any) -> ast.expr:
        if value is None or value is Ellipsis or type(value) in (bool, str, bytes):
            return ast.Constant(value)
        if type(value) is int and abs(value) < 10**_MOST_DIGITS:
            return _signed(ast.Constant(abs(value)), value < 0)
        if type(value) is float and not math.isnan(value):
            size = _load(self.held(math.inf, "inf")) if math.isinf(value) else ast.Constant(abs(value))
            return _signed(size, math.copysign(1, value) < 0)
        if type(value) is float:
            return _load(self.held(math.nan, "nan"))
        if isinstance(value, enum.Enum) and is_identifier(value.name):
            return ast.Attribute(_load(self.held(type(value))), value.name, ast.Load())
        if type(value) is torch.device:
            where: list[Any] = [value.type] if value.index is None else [value.type, value.index]
            return ast.Call(self._torch("device"), [ast.Constant(one) for one in where], [])
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            name = str(value).removeprefix("torch.")
            return self._torch(name) if getattr(torch, name, None) is value else _load(self.held(value))
        return self.function(value)

    def function(self, function: object) -> ast.expr:
        """A function or a class, those of torch by their path."""
        path = _path_in_torch(function)
        return _load(self.held(function)) if path is None else self._torch(path)

    def _torch(self, path: str) -> ast.expr:
        if ("module", "torch") not in self._held:
            name = self._held["module", "torch"] = self.names.new("torch")
            self.globals[name] = ("module", "torch")
        tree: ast.expr = _load(self._held["module", "torch"])
        for part in path.split("."):
            tree = ast.Attribute(tree, part, ast.Load())
        return tree

    def held(self, value: object, wish: str = "") -> str:
        """The global name of an object."""
        key = ("number", wish) if wish else id(value)
        if key not in self._held:
            name = self._held[key] = self.names.new(wish or _wish(value))
            self.globals[name] = ("object", value)
        return self._held[key]

    def attribute(self, of: ast.expr, name: str) -> ast.expr:
        """What stands under a name, whatever the name is."""
        if is_identifier(name):
            return ast.Attribute(of, name, ast.Load())
        return ast.Call(_load(self.held(getattr)), [of, ast.Constant(name)], [])

    def in_place(self, node: Node) -> ast.operator | None:
        """The operator of `a += b` and its kin; None for any other step."""
        plain = node.op == "call_function" and len(node.args) == 2 and not node.kwargs
        return _IN_PLACE.get(node.target) if plain else None

    def call(self, node: Node, nodes: Mapping[Node, str]) -> ast.expr:
        """A call of a function; of operators what one writes for them."""
        target = node.target
        args = [self.value(one, nodes) for one in node.args]
        if not node.kwargs and len(args) == 2:
            if target in _BINARY:
                return ast.BinOp(args[0], _BINARY[target], args[1])
            if target in _COMPARED:
                return ast.Compare(args[0], [_COMPARED[target]], [args[1]])
            if target is operator.getitem:
                return ast.Subscript(args[0], args[1], ast.Load())
            if target is getattr and isinstance(node.args[1], str):
                return self.attribute(args[0], node.args[1])
        if not node.kwargs and len(args) == 1 and target in _UNARY:
            return ast.UnaryOp(_UNARY[target], args[0])
        if not callable(target):
            raise RewriteError(f"{target!r} is no function")
        callee = _load(self.held(target)) if node.meta.get("is_wrapped") else self.function(target)
        return self.called(callee, node.args, node.kwargs, nodes)

    def called(
        self, callee: ast.expr, args: Iterable[Any], kwargs: Mapping[str, Any], nodes: Mapping[Node, str]
    ) -> ast.expr:
        """A call. Raises: RewriteError, where a keyword is no name."""
        for key in kwargs:
            if not is_identifier(key):
                raise RewriteError(f"{key!r} is no name of an argument")
        keywords = [ast.keyword(key, self.value(one, nodes)) for key, one in kwargs.items()]
        return ast.Call(callee, [self.value(one, nodes) for one in args], keywords)


def _load(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _signed(size: ast.expr, negative: bool) -> ast.expr:
    # A negative constant would be printed without brackets, and -1 ** x is another number than (-1) ** x.
    return ast.UnaryOp(ast.USub(), size) if negative else size


def _wish(value: object) -> str:
    """A telling name for an object."""
    home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(name, str):
        return type(value).__name__.lower()
    if not isinstance(home, str) or home == "builtins":
        return name
    return f"{home}_{name}".lstrip("_").replace("<locals>", "")


def _path_in_torch(function: object) -> str | None:
    """The path below `torch` at which exactly this function stands."""
    name, home = getattr(function, "__name__", None), getattr(function, "__module__", None)
    paths = []
    if isinstance(function, torch._ops.OpOverload):
        paths.append(f"ops.{function}")
    elif callable(function) and isinstance(name, str) and type(function).__module__ != "torch._ops":
        if isinstance(home, str) and home.startswith("torch."):
            paths.append(f"{home.removeprefix('torch.')}.{getattr(function, '__qualname__', name)}")
        paths += [f"nn.functional.{name}", name]
    return next((path for path in paths if _stands_at(path, function)), None)


def _stands_at(path: str, function: object) -> bool:
    place: Any = torch
    for part in path.split("."):
        if not is_identifier(part):
            return False
        place = getattr(place, part, None)
    return place is function
