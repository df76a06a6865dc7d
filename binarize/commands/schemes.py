"""`binarize schemes ...`: the shipped schemes, what one is made of, and what two of them have apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from binarize.commands.console import complete
from binarize.commands.console.command import command
from binarize.commands.console.curve import curve
from binarize.commands.console.screen import Screen
from binarize.commands.console.table import grid
from binarize.errors import UsageError, did_you_mean
from binarize.schemes.card import Card, cards, settings

if TYPE_CHECKING:
    from binarize.schemes.scheme import Scheme

__all__ = ["schemes_app"]

schemes_app = typer.Typer()

Name = Annotated[str, typer.Argument(help="The scheme.", autocompletion=complete.schemes)]


@schemes_app.callback(invoke_without_command=True)
@command
def schemes(screen: Screen, context: typer.Context) -> None:
    """The schemes, and what one is made of."""
    if context.invoked_subcommand is not None:
        return
    table = grid("scheme", "weights", "inputs", "between", "shortcut", "paper", whole=5)
    found = _shipped()
    for scheme in found.values():
        parts = [part.name if part else "float" for part in (scheme.weight, scheme.input)]
        between = scheme.nonlinearity.name if scheme.nonlinearity else "-"
        table.add_row(scheme.name, *parts, between, scheme.shortcut, scheme.paper)
    screen.show(table)
    screen.document({name: scheme.to_json() for name, scheme in found.items()})


@schemes_app.command("show")
@command
def show_scheme(screen: Screen, name: Name) -> None:
    """One scheme: the formula, gradient, start and source of each part, drawn, and how it is trained."""
    from rich.text import Text

    scheme = _named(name)
    screen.show(Text(f"{name}: {scheme.description}\n{scheme.paper}\n"))
    for card in cards(scheme):
        screen.show(Text("\n".join(_drawn(card))))
    table = grid("set to", "value", whole=1)
    for key, value in settings(scheme).items():
        if key not in ("paper", "description"):
            table.add_row(key, value)
    screen.show(table)
    screen.document({"name": name, **scheme.to_json()})


@schemes_app.command("compare")
@command
def compare_schemes(screen: Screen, first: Name, second: Name) -> None:
    """What two schemes have apart: their keys side by side, and the curves of the parts that differ."""
    from rich.text import Text

    both = [_named(name) for name in (first, second)]
    a, b = (settings(scheme) for scheme in both)
    differing = [key for key in (*a, *(key for key in b if key not in a)) if a.get(key) != b.get(key)]
    table = grid("", first, second, whole=1)
    for key in differing:
        table.add_row(key, a.get(key, "-"), b.get(key, "-"))
    if differing:
        screen.show(table)
    else:
        screen.show(f"{first} and {second} are the same")
    for name, scheme in zip((first, second), both):
        for card in cards(scheme):
            if card.slot in differing and card.values:
                lines = [f"{name}, {card.slot}: {card.part.name}", *_curves(card)]
                screen.show(Text("\n".join(lines)))
    document = {key: [scheme.to_json().get(key) for scheme in both] for key in differing}
    screen.document({"schemes": [first, second], "differ": document})


def _shipped() -> dict[str, Scheme]:
    from binarize.rules.files import builtin_rule_sets
    from binarize.rules.load import load_rule_set

    return {
        scheme.name: scheme for each in builtin_rule_sets() for scheme in load_rule_set(each).schemes.values()
    }


def _named(name: str) -> Scheme:
    found = _shipped()
    if name not in found:
        known = ", ".join(sorted(found))
        raise UsageError(f'no scheme "{name}" (shipped are {known}){did_you_mean(name, found)}')
    return found[name]


def _drawn(card: Card) -> list[str]:
    """A part in words and, where it maps numbers to numbers, as curves."""
    title = f"{card.slot}: {card.part.name}"
    lines = [title, *(f"  {line}".rstrip() for line in card.text.splitlines()), ""]
    return [*lines, *_curves(card), ""] if card.values else lines


def _curves(card: Card) -> list[str]:
    """Forward and gradient side by side."""
    left = curve(card.values, title="forward, from -2 to 2")
    right = curve(card.slopes, title="its derivative in the backward pass")
    width = max(map(len, left)) + 3
    return [f"  {a:{width}}{b}".rstrip() for a, b in zip(left, right)]
