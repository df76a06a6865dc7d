"""`binarize rules ...`: look at rule sets, check them, begin one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarize.commands.console import choices, complete, options
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.commands.console.table import grid
from binarize.disk.atomic import whole_file
from binarize.errors import UsageError

if TYPE_CHECKING:
    from binarize.rules.rule_set import RuleSet

__all__ = ["rules_app"]

rules_app = typer.Typer(no_args_is_help=True, help="Rule sets: list, show, check, explain, begin one.")

Name = Annotated[
    str,
    typer.Argument(metavar="NAME|FILE", help="A shipped one, or a file.", autocompletion=complete.schemes),
]

# What `rules new` writes; {0} is the rule set to extend.
_STARTER = """\
# The last rule that matches a layer decides, and replaces the whole decision.
# `binarize rules validate FILE` checks this file, `binarize rules explain SRC LAYER -r FILE` shows who wins.
schema: 1
name: {name}
extends: {base}
rules:
  # A name covers everything below it; * stays within one step of the path, ** does not.
  - id: sensitive
    match: {{name: ["layer1.0.conv1"]}}
    use: keep
    why: say here why, it is shown in the report
  # More selectors: type, kind, position, kernel, stride, groups, params, has_skip, downsample, inside,
  # before, after; `binarize rules schema` lists all of them for an editor.
  - id: narrow
    match: {{kind: conv, out: "<64"}}
    use: keep
    why: few filters save little
"""


def _rule_set(name: str) -> RuleSet:
    """A shipped rule set by its name, or the one in a file."""
    from binarize.rules.load import load_rule_set

    return load_rule_set(rules=choices.rule_source([name]))


@rules_app.command("list")
@command
def list_rules(screen: Screen) -> None:
    """The shipped rule sets."""
    from binarize.rules.files import builtin_rule_sets
    from binarize.rules.load import load_rule_set

    sets = [load_rule_set(name) for name in builtin_rule_sets()]
    table = grid("name", "what it is", "paper")
    for rule_set in sets:
        table.add_row(rule_set.name, rule_set.description, rule_set.paper)
    screen.show(table)
    screen.document(
        [{"name": item.name, "description": item.description, "paper": item.paper} for item in sets]
    )


@rules_app.command("show")
@command
def show_rules(
    screen: Screen,
    name: Name,
    resolved: Annotated[bool, typer.Option("--resolved", help="With `extends` carried out.")] = False,
    trust: options.Trust = None,
) -> None:
    """One rule set as YAML, re-runnable with --rules."""
    from binarize.rules.files import builtin_rule_sets, rule_file

    rule_set = _rule_set(name)
    if resolved or name == "-":
        text = rule_set.to_yaml()
    else:
        text = (rule_file(name) if name in builtin_rule_sets() else Path(name)).read_text(encoding="utf-8")
    if screen.json:
        screen.document(rule_set.to_json())
    else:
        screen.write(text if text.endswith("\n") else f"{text}\n")


@rules_app.command("validate")
@command
def validate_rules(
    screen: Screen,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Rule files; - is standard input.")],
    trust: options.Trust = None,
) -> None:
    """Check rule files without looking at a model. Exit code 3 at the first one that is wrong."""
    checked = []
    for name in files:
        rule_set = _rule_set(name)
        checked.append({"file": name, "name": rule_set.name, "rules": len(rule_set.rules)})
        screen.show(f"{name}: {len(rule_set.rules)} rules, schemes {', '.join(rule_set.schemes)}")
    screen.document(checked)


@rules_app.command("explain")
@command
def explain_rules(
    screen: Screen,
    src: options.Src,
    layer: Annotated[str, typer.Argument(help="The layer's name, as in the plan.")],
    scheme: options.SchemeName = None,
    rules: options.Rules = None,
    keep: options.Keep = None,
    binarize: options.Binarize = None,
    overrides: options.Set = None,
    input_shape: options.InputShape = None,
    arch: options.Arch = None,
    trust_pickle: options.TrustPickle = False,
    trust: options.Trust = None,
) -> None:
    """Every rule that matches a layer, in order, and which of them decides."""
    choice = choices.Choice(scheme, rules, keep=keep, binarize=binarize, overrides=overrides)
    model = choices.Model(src, arch, input_shape, trust_pickle=trust_pickle, meta=True)
    planned = choices.make_plan(screen, model, choices.rule_set(choice))
    decision = planned[layer].decision
    table = grid("", "rule", "where", "says", "why")
    matching = planned.rules.matching(decision.layer)
    for rule in matching:
        table.add_row("→" if rule is matching[-1] else "", rule.id, rule.where, rule.use, rule.why)
    screen.show(table)
    outcome = f"{layer}: {decision.scheme if decision.binary else 'stays float'} ({decision.why})"
    screen.show(f"{outcome}; a guard decided: {decision.guard}" if decision.guard else outcome)
    screen.document(
        {
            "layer": layer,
            "matching": [{"id": rule.id, "where": rule.where, "use": rule.use} for rule in matching],
            "action": decision.action,
            "scheme": decision.scheme,
            "why": decision.why,
            "guard": decision.guard,
        }
    )


@rules_app.command("new")
@command
def new_rules(
    screen: Screen,
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    base: Annotated[
        str, typer.Option("--extends", help="The rule set to begin from.", autocompletion=complete.schemes)
    ] = "adabin",
    force: options.Force = False,
) -> None:
    """Write a commented rule file to begin with."""
    _rule_set(base)
    force = screen.hold(file).written or force
    if file.exists() and not force:
        raise UsageError(f"{file} exists; --force overwrites it")
    with whole_file(file, follow=True) as draft:
        draft.write_text(_STARTER.format(name=file.stem, base=base), encoding="utf-8")
    screen.show(f"wrote {file}")
    screen.next(f"{choices.program()} rules validate {shlex.quote(str(file))}")
    screen.document({"file": str(file)})


@rules_app.command("schema")
@command
def schema(screen: Screen) -> None:
    """The JSON Schema of rule files, for editors."""
    import json

    from binarize.rules.schema import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    screen.write(f"{text}\n")
