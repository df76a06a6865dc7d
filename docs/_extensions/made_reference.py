"""A Sphinx extension: writes reference pages from the code itself before a build reads them.

docs/reference/commands.md    every command with every option, from the command line's own parser
docs/reference/python.md      every public name, with its signature and docstring
docs/reference/rules.md       every key of rule files and recipes, from their JSON Schema
docs/reference/schemes.md     a card for each scheme: its parts, what they say of themselves, forward and gradient drawn
docs/reference/exit-codes.md  the errors with their exit codes, from the module that defines them
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import drawn
import typer.main
from torch import nn

import binarize
from binarize import errors
from binarize.cli import app
from binarize.rules.files import builtin_rule_sets
from binarize.rules.load import load_rule_set
from binarize.rules.schema import json_schema
from binarize.schemes.part import Part
from binarize.schemes.scheme import Scheme

FOLDER = Path(__file__).parents[1] / "reference"


def setup(sphinx: Any) -> dict[str, bool]:
    sphinx.connect("builder-inited", lambda _: write(FOLDER))
    return {"parallel_read_safe": True}


def write(folder: Path) -> None:
    """All pages; a page that would not change is left alone, so that Sphinx does not read it again."""
    pages = {
        "commands": commands(),
        "python": public_names(),
        "rules": rule_keys(),
        "schemes": scheme_cards(),
        "exit-codes": exit_codes(),
    }
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        path, text = folder / f"{name}.md", text.rstrip("\n") + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def cell(text: str) -> str:
    """As a cell of a table of Markdown; what looks like a tag is shown as it is."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *([cell(one) for one in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# Commands.


def commands() -> str:
    root: Any = typer.main.get_command(app)
    parts = [
        "# Commands",
        "`binarize COMMAND --help` prints the same. Every command takes `--json`, `--plain`, `--quiet`, "
        "`--verbose` and `--debug`.",
    ]
    for name, command in root.commands.items():
        if not command.hidden:
            parts += command_page(f"binarize {name}", command)
    return "\n\n".join(parts)


def command_page(words: str, command: Any) -> list[str]:
    parts = [f"## {words}", (command.help or "").strip()]
    taken = [one for one in command.params if one.name != "help" and not getattr(one, "hidden", False)]
    if taken:
        parts.append(table(("option", "what it is", "default"), [option_row(one) for one in taken]))
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            parts += command_page(f"{words} {name}", inner)
    return parts


def option_row(option: Any) -> tuple[str, str, str]:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.param_type_name == "argument":
        names = str(option.metavar or option.name).strip("{}")
    elif not getattr(option, "is_flag", False):
        names = f"{names} {option.metavar or option.display_type(None).strip('<>').upper()}"
    default = option.default
    said = "" if default in (None, False, (), []) or callable(default) else f"`{default}`"
    return f"`{names}`", getattr(option, "help", "") or "", "required" if option.required else said


# Python.


def public_names() -> str:
    parts = ["# Python", "Every public name of `binarize`. Each is imported when it is first used."]
    for name in sorted(binarize.__all__, key=str.lower):
        parts += [f"## {name}", *described(getattr(binarize, name), name)]
    return "\n\n".join(parts)


def described(value: Any, name: str) -> list[str]:
    if inspect.ismodule(value):
        return [docstring(value), *(f"- `{one}`" for one in value.__all__)]
    if not callable(value):
        return [f"`{value!r}`"]
    parts = [f"```python\n{signature(value, name)}\n```", docstring(value)]
    if inspect.isclass(value):
        for inner, member in vars(value).items():
            known = inspect.isfunction(member) or isinstance(member, (property, classmethod))
            if not inner.startswith("_") and known and member.__doc__:
                parts.append(f"**{name}.{inner}** {docstring(member)}")
    return parts


def signature(value: Any, name: str) -> str:
    try:
        given = inspect.signature(value)
    except ValueError:
        return name
    lines = [f"    {one}," for one in map(str, given.parameters.values())]
    back = "" if given.return_annotation is inspect.Signature.empty else f" -> {given.return_annotation}"
    one_line = f"{name}{given}"
    return one_line if len(one_line) < 100 else "\n".join([f"{name}(", *lines, f"){back}"])


def docstring(value: Any) -> str:
    """A docstring as Markdown: paragraphs as they are, whatever is indented or laid out in columns as it stands."""
    paragraphs = (inspect.getdoc(value) or "").split("\n\n")
    return "\n\n".join(
        f"```text\n{one}\n```"
        if any(line.startswith(("  ", "`", ">>>")) and "  " in line for line in one.splitlines())
        else one.replace("<", "&lt;")
        for one in paragraphs
    )


# Rule files.


def rule_keys() -> str:
    schema = json_schema()
    parts = [
        "# Rule files and recipes",
        "`binarize rules new FILE` begins one, `binarize rules validate FILE` checks one without a model, and "
        "`binarize rules schema` prints the JSON Schema that this page is made of. "
        "[How to write rules](../how-to/rules.md) has examples.",
        "## The file",
        key_table(schema),
    ]
    for name, one in schema["definitions"].items():
        parts += [f"## {name}", key_table(one)]
    return "\n\n".join(parts)


def key_table(schema: Mapping[str, Any]) -> str:
    rows = [(f"`{key}`", kind(one), one.get("description", "")) for key, one in schema["properties"].items()]
    return table(("key", "value", "what it is"), rows)


def kind(schema: Mapping[str, Any]) -> str:
    """The type of a value, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(one) for one in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}" if "items" in schema else "list"
    known = schema.get("type", "anything")
    return " or ".join(known) if isinstance(known, list) else known


# Schemes.


def scheme_cards() -> str:
    schemes: dict[str, Scheme] = {}
    for name in builtin_rule_sets():
        for scheme in load_rule_set(name).schemes.values():
            schemes.setdefault(scheme.name, scheme)
    parts = [
        "# Schemes",
        "A scheme is a set of parts and a recipe. `binarize schemes` lists them, "
        "`binarize schemes show NAME` prints one, and `--set` or a rule file changes any part. "
        "The drawings show an input binarizer as it begins, and its gradient.",
    ]
    for scheme in schemes.values():
        parts += card(scheme)
    return "\n\n".join(parts)


def card(scheme: Scheme) -> list[str]:
    parts = [f"## {scheme.name}", scheme.description, scheme.paper]
    slots = {
        "weights": scheme.weight,
        "inputs": scheme.input,
        "scale": scheme.scale,
        "nonlinearity": scheme.nonlinearity,
    }
    rows = [
        (
            what,
            f"`{part.name}`" if isinstance(part, Part) else "none",
            first_line(part) if isinstance(part, Part) else "",
        )
        for what, part in slots.items()
    ]
    parts.append(table(("part", "class", "what it says of itself"), rows))
    parts.append(
        f"Shortcuts: `{scheme.shortcut}`. BatchNorm: `{scheme.norm}`. Trained by default with "
        + ", ".join(f"`{key}: {value}`" for key, value in scheme.training.items())
        + "."
    )
    picture = None if scheme.input is None else drawn.binarizer(scheme.input)
    return [one for one in (*parts, picture) if one]


def first_line(part: Part) -> str:
    made = type(part.build(channels=4, channel_dim=1, axis=0))
    return (inspect.getdoc(made) or "").partition("\n")[0] if made.__doc__ != nn.Module.__doc__ else ""


# Errors.


def exit_codes() -> str:
    tree = (errors.__doc__ or "").partition("\n\n")[2]
    figure, _, rest = tree.partition("\n\n")
    return f"# Exit codes\n\nEvery error of this library is one of these.\n\n```text\n{figure}\n```\n\n{rest}"
