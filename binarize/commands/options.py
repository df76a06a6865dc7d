"""Options that several commands take, the same words everywhere, and what they stand for in the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from binarize.commands import complete
from binarize.errors import UsageError

if TYPE_CHECKING:
    from binarize.rules import RuleSet

__all__ = ["Choice", "parse_shape", "rule_set", "rule_source"]

_MODEL, _DECIDE, _WRITE = "Model", "What is decided", "What is written"

Src = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="vgg11.pt, torchvision:vgg11, timm:resnet18, file.py:make_model, a.safetensors with --arch.",
        autocompletion=complete.models,
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        help="The architecture of a file of weights: torchvision:vgg11.",
        autocompletion=complete.models,
        rich_help_panel=_MODEL,
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-shape", "-i", metavar="N,C,H,W", help="Default: what the model says.", rich_help_panel=_MODEL
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(metavar="TAG|none", help="Download these weights.", rich_help_panel=_MODEL),
]
NumClasses = Annotated[int | None, typer.Option(min=1, help="A new float head.", rich_help_panel=_MODEL)]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Load a file that may run code.", rich_help_panel=_MODEL)
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=_MODEL)]
Seed = Annotated[int, typer.Option(help="Of everything that is random.", rich_help_panel=_MODEL)]

SchemeName = Annotated[
    str | None,
    typer.Option(
        "--scheme",
        "-s",
        metavar="NAME",
        help="A shipped scheme; default: what --rules says, else adabin.",
        autocompletion=complete.schemes,
        rich_help_panel=_DECIDE,
    ),
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rules",
        "-r",
        metavar="FILE",
        help="A rule file, - for standard input; repeatable, later ones win.",
        rich_help_panel=_DECIDE,
    ),
]
AddShortcuts = Annotated[
    bool | None,
    typer.Option(
        "--add-shortcuts/--no-shortcuts",
        help="Shortcuts where the model has none, or nowhere; default: the scheme's choice.",
        rich_help_panel=_DECIDE,
    ),
]
Shortcuts = Annotated[
    str | None,
    typer.Option(metavar="never|missing|every", help="The same, with all choices.", rich_help_panel=_DECIDE),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Layers that stay float; repeatable.", rich_help_panel=_DECIDE),
]
Binarize = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB", help="Layers to binarize whatever the rules say; repeatable.", rich_help_panel=_DECIDE
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="id.field=VALUE", help="Any field of a rule; repeatable.", rich_help_panel=_DECIDE
    ),
]
KeepFirst = Annotated[
    int, typer.Option(min=0, help="So many first layers stay float.", rich_help_panel=_DECIDE)
]
KeepLast = Annotated[
    int, typer.Option(min=0, help="So many last layers stay float.", rich_help_panel=_DECIDE)
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Warnings and unmatched patterns are errors.", rich_help_panel=_DECIDE),
]

Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.", rich_help_panel=_WRITE)]
AllRows = Annotated[
    bool, typer.Option("--all", help="Show every row: fold nothing.", rich_help_panel="Output")
]


@dataclass(frozen=True)
class Choice:
    """What the options say about which layers become binary, and how."""

    scheme: str | None = None
    rules: Sequence[str] | None = None
    shortcuts: str | None = None
    keep: Sequence[str] | None = None
    binarize: Sequence[str] | None = None
    overrides: Sequence[str] | None = None
    keep_first: int = 1
    keep_last: int = 1


def rule_set(choice: Choice) -> RuleSet:
    """The effective rule set."""
    from binarize.rules import load_rule_set

    return load_rule_set(
        choice.scheme,
        rule_source(choice.rules or ()),
        keep=choice.keep or (),
        binarize=choice.binarize or (),
        overrides=choice.overrides or (),
        shortcuts=choice.shortcuts,
        keep_first=choice.keep_first,
        keep_last=choice.keep_last,
    )


def rule_source(files: Sequence[str]) -> Any:
    """What `load_rule_set(rules=...)` takes for the named files; "-" is standard input."""
    from binarize.rule_text import RuleText

    return [RuleText(sys.stdin.read(), "<stdin>") if name == "-" else name for name in files] or None


def shortcut_mode(add_shortcuts: bool | None, shortcuts: str | None) -> str | None:
    """`--add-shortcuts` is short for `--shortcuts missing`, `--no-shortcuts` for `--shortcuts never`.

    Raises: UsageError where the two contradict each other.
    """
    if add_shortcuts is None:
        return shortcuts
    short = "missing" if add_shortcuts else "never"
    if shortcuts not in (None, short):
        flag = "--add-shortcuts" if add_shortcuts else "--no-shortcuts"
        raise UsageError(f"{flag} means --shortcuts {short}, but --shortcuts {shortcuts} is given too")
    return short


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """`"1,3,224,224"` as a shape.

    Raises: UsageError for anything that is no list of positive numbers.
    """
    if text is None:
        return None
    words = text.replace("x", ",").split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f'--input-shape "{text}": expected positive numbers such as 1,3,224,224')
    return tuple(int(word) for word in words)
