"""A name with literal arguments, as in `Net(10, pretrained=False)`: read, never evaluated."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from binarize.errors import UsageError

__all__ = ["Call", "parse_call"]


@dataclass(frozen=True)
class Call:
    """A name with literal arguments."""

    name: str
    args: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()


def parse_call(text: str) -> Call:
    """`Net(10, pretrained=False)` as a Call; a bare name is a call without arguments.

    Raises: UsageError for anything but literals.
    """
    head = text.partition("(")[0].strip()
    if "(" not in text:
        return Call(head)
    wanted = f"arguments must be literals, as in {head}(num_classes=10)"
    try:
        tree = ast.parse(f"_{text[len(text.partition('(')[0]) :]}", mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise ValueError("not a call")
        args = tuple(ast.literal_eval(arg) for arg in tree.args)
        keywords = tuple((keyword.arg or "", ast.literal_eval(keyword.value)) for keyword in tree.keywords)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise UsageError(f"{text}: {wanted}") from error
    if any(not name for name, _ in keywords):
        raise UsageError(f"{text}: {wanted}, without **")
    return Call(head, args, keywords)
