"""A torch.fx graph as the Python source of a method, built as a syntax tree.

Names that a model brings along (of children, arguments, keywords, methods) become identifiers where they are some, and
text in quotes everywhere else. So no name can become code, whatever characters it has. torch.fx itself prints names as
they are.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.fx.graph import CodeGen, PythonCode

from binarize.capture.expressions import Expressions, Globals, Names, is_identifier
from binarize.errors import RewriteError

__all__ = ["Code", "EscapedCode", "Guard", "code_of"]


@dataclass(frozen=True)
class Code:
    """The source of some functions, and the objects that stand under its global names."""

    source: str
    names: Globals


@dataclass(frozen=True)
class Guard:
    """What has to be asked ahead of some steps: `check(target, args, kwargs)` with the values that the step is given."""

    concerns: Callable[[torch.fx.Node], bool]
    check: Callable[[Any, Any, Any], None]


def code_of(
    functions: Mapping[str, torch.fx.Graph], owner: nn.Module | None = None, guard: Guard | None = None
) -> Code:
    """The functions of these names that run these graphs on `self`.

    The same graphs give the same text. With an `owner`, everything that the graphs read of `self` must be there. With a
    `guard`, the text asks it; the graphs do not name it.

    Raises: RewriteError, where a target is not there, or a name is none that Python knows.
    """
    locals_of = {name: _local_names(name, graph) for name, graph in functions.items()}
    taken = set().union(*(names.taken for names in locals_of.values()), functions)
    expressions = Expressions(Names(taken))
    body = [
        _Function(name, locals_of[name], expressions, owner, guard).tree(graph)
        for name, graph in functions.items()
    ]
    tree = ast.Module([*_wraps(functions, expressions), *body], [])
    source = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    # The text is what is kept and compiled again elsewhere: it must say what the tree says.
    if ast.dump(ast.parse(source)) != ast.dump(tree):
        raise RewriteError("a forward cannot be written as Python source")
    return Code(source, dict(expressions.globals))


class EscapedCode(CodeGen):
    """Lets a torch.fx.GraphModule have its forward made here: `graph.set_codegen(EscapedCode())`."""

    def __init__(self, guard: Guard | None = None) -> None:
        super().__init__()
        self.guard = guard

    def _gen_python_code(self, nodes: Any, root_module: str, namespace: Any, **options: Any) -> PythonCode:
        code = code_of({"forward": nodes.graph}, guard=self.guard)
        found = {name: torch if kind == "module" else value for name, (kind, value) in code.names.items()}
        return PythonCode(code.source, found, _lineno_map={})


def _local_names(function: str, graph: torch.fx.Graph) -> Names:
    """Reserves the arguments' own names, then one for every step."""
    if not is_identifier(function):
        raise RewriteError(f"{function!r} is no name of a method")
    arguments = [_argument(node) for node in graph.nodes if node.op == "placeholder"]
    if len(set(arguments)) < len(arguments):
        raise RewriteError(f"{function} has two arguments of one name")
    names = Names(set(arguments))
    names.root = names.new("self")
    for node in graph.nodes:
        if node.op == "placeholder":
            names.known[node] = _argument(node)
        else:
            names.known[node] = names.new(node.name)
    return names


def _argument(node: torch.fx.Node) -> str:
    name = str(node.target).lstrip("*")
    if not is_identifier(name):
        raise RewriteError(f"{name!r} is no name of an argument")
    return name


def _wraps(functions: Mapping[str, torch.fx.Graph], expressions: Expressions) -> Iterator[ast.stmt]:
    """Functions that torch.fx must not look into when it traces the new forward, as it did not before."""
    done: set[Any] = set()
    for graph in functions.values():
        for node in graph.nodes:
            if node.op == "call_function" and node.meta.get("is_wrapped") and node.target not in done:
                done.add(node.target)
                name = expressions.held(node.target)
                wrap = expressions.held(torch.fx.wrap)
                yield ast.Expr(ast.Call(_load(wrap), [ast.Constant(name)], []))


class _Function:
    """Writes one function."""

    def __init__(
        self,
        name: str,
        names: Names,
        expressions: Expressions,
        owner: nn.Module | None,
        guard: Guard | None,
    ) -> None:
        self.name, self.names, self.expressions, self.owner = name, names, expressions, owner
        self.guard = guard

    def tree(self, graph: torch.fx.Graph) -> ast.FunctionDef:
        """The function as a syntax tree; every value is let go behind its last use."""
        last_used: dict[torch.fx.Node, torch.fx.Node] = {}
        for node in reversed(graph.nodes):
            for read in node.all_input_nodes:
                last_used.setdefault(read, node)
        gone: dict[torch.fx.Node, list[str]] = {}
        for node, user in last_used.items():
            gone.setdefault(user, []).append(self.names.known[node])
        body: list[ast.stmt] = []
        for node in graph.nodes:
            if node.op == "placeholder":
                continue
            body += [*self.question(node), *self.step(node)]
            unread = [] if node.users or node.op == "output" else [self.names.known[node]]
            freed = [*gone.get(node, []), *unread]
            if freed and node.op != "output":
                body.append(ast.Assign([_store(name) for name in freed], ast.Constant(None)))
        return _definition(self.name, self.arguments(graph), body or [ast.Pass()])

    def arguments(self, graph: torch.fx.Graph) -> ast.arguments:
        """The signature; what has no default behind one that has is given by its keyword."""
        plain, plain_defaults = [ast.arg(self.names.root)], list[ast.expr]()
        named, named_defaults = list[ast.arg](), list[ast.expr | None]()
        several: dict[str, ast.arg] = {}
        for node in (node for node in graph.nodes if node.op == "placeholder"):
            stars = len(str(node.target)) - len(str(node.target).lstrip("*"))
            argument = ast.arg(self.names.known[node])
            if stars:
                several["kwarg" if stars > 1 else "vararg"] = argument
                continue
            default = self.value(node.args[0]) if node.args else None
            if named or several or (default is None and plain_defaults):
                named.append(argument)
                named_defaults.append(default)
            else:
                plain.append(argument)
                plain_defaults += [] if default is None else [default]
        return ast.arguments(
            posonlyargs=[],
            args=plain,
            vararg=several.get("vararg"),
            kwonlyargs=named,
            kw_defaults=named_defaults,
            kwarg=several.get("kwarg"),
            defaults=plain_defaults,
        )

    def value(self, value: object) -> ast.expr:
        return self.expressions.value(value, self.names.known)

    def question(self, node: torch.fx.Node) -> list[ast.stmt]:
        """The call of the guard's check ahead of a step that concerns it."""
        if self.guard is None or not self.guard.concerns(node):
            return []
        by_name = node.op == "call_method"
        target = ast.Constant(str(node.target)) if by_name else self.expressions.function(node.target)
        given = [target, self.value(tuple(node.args)), self.value(dict(node.kwargs))]
        return [ast.Expr(ast.Call(_load(self.expressions.held(self.guard.check)), given, []))]

    def step(self, node: torch.fx.Node) -> list[ast.stmt]:
        if node.op == "output":
            return [ast.Return(self.value(node.args[0]))]
        name = self.names.known[node]
        in_place = self.expressions.in_place(node)
        if in_place is not None:
            # The name of what is written to stays with what it was, which for a plain number is the old one.
            return [
                ast.Assign([_store(name)], self.value(node.args[0])),
                ast.AugAssign(_store(name), in_place, self.value(node.args[1])),
            ]
        return [ast.Assign([_store(name)], self.result(node))]

    def result(self, node: torch.fx.Node) -> ast.expr:
        if node.op == "call_function":
            return self.expressions.call(node, self.names.known)
        if node.op == "call_method":
            if not is_identifier(node.target) or not node.args:
                raise RewriteError(f"{node.target!r} is no name of a method")
            callee: ast.expr = ast.Attribute(self.value(node.args[0]), str(node.target), ast.Load())
            return self.expressions.called(callee, node.args[1:], node.kwargs, self.names.known)
        if node.op not in ("call_module", "get_attr"):
            raise RewriteError(f"a graph has no steps of the kind {node.op!r}")
        reached = self.reached(str(node.target), is_module=node.op == "call_module")
        if node.op == "get_attr":
            return reached
        return self.expressions.called(reached, node.args, node.kwargs, self.names.known)

    def reached(self, path: str, *, is_module: bool) -> ast.expr:
        """What stands at a path of `self`."""
        tree: ast.expr = _load(self.names.root)
        place = self.owner
        for part in path.split("."):
            tree = self.expressions.attribute(tree, part)
            if self.owner is not None:
                place = getattr(place, part, None)
                if place is None:
                    raise RewriteError(f"a forward reads {path!r}, which the module does not have")
        if self.owner is not None and is_module and not isinstance(place, nn.Module):
            raise RewriteError(f"a forward calls {path!r}, which is no module")
        return tree


def _load(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _store(name: str) -> ast.Name:
    return ast.Name(name, ast.Store())


def _definition(name: str, arguments: ast.arguments, body: list[ast.stmt]) -> ast.FunctionDef:
    # Built by parsing, since what a definition has beside these differs between versions of Python.
    (found,) = ast.parse("def name(): pass").body
    assert isinstance(found, ast.FunctionDef)
    found.name, found.args, found.body = name, arguments, body
    return found
