"""Options that several commands take, the same words everywhere, and what they stand for in the library."""

from __future__ import annotations

import atexit
import gc
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from binarize.commands import complete
from binarize.commands.screen import Screen
from binarize.errors import CaptureError, UsageError
from binarize.file_name import is_there
from binarize.trust import trusting, trusting_pickles

if TYPE_CHECKING:
    from torch import nn

    from binarize.convert import PlannedConversion
    from binarize.report.model import Report
    from binarize.rules import RuleSet
    from binarize.sources import Source
    from binarize.sources.examples import Arguments

__all__ = [
    "Choice",
    "Model",
    "make_plan",
    "next_command",
    "parse_shape",
    "program",
    "report_of",
    "rule_set",
    "rule_source",
    "shortcut_mode",
]

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
    list[str] | None,
    typer.Option(
        "--input-shape",
        "-i",
        metavar="N,C,H,W",
        help="Default: what the model says. Repeatable, one an input; by name and of a type: ids=1,16:int64.",
        rich_help_panel=_MODEL,
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


def _trusting_pickles(context: typer.Context, said: bool) -> bool:
    """The user's word, for as long as this command runs."""
    if said:
        context.with_resource(trusting_pickles())
    return said


TrustSource = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Let the float model's file run code.",
        callback=_trusting_pickles,
        rich_help_panel=_MODEL,
    ),
]


def _trusting(context: typer.Context, words: list[str] | None) -> list[str] | None:
    """The user's word, for as long as this command runs."""
    for word in words or ():
        if (os.sep in word or word.endswith(".py")) and not is_there(word):
            raise typer.BadParameter(f"{word}: no such file; expected a module, a Python file or a folder")
    context.with_resource(trusting(*words or ()))
    return words


Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE|FILE",
        help="Code of your own that files here may name; repeatable.",
        callback=_trusting,
        rich_help_panel=_MODEL,
    ),
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

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Default: ./<name>-<scheme>", rich_help_panel=_WRITE),
]
Emit = Annotated[
    list[str] | None,
    typer.Option(metavar="folder|pt", help="A folder, a pickled module; repeatable.", rich_help_panel=_WRITE),
]
Reports = Annotated[
    str, typer.Option("--report", metavar="FORMATS", help="Of term,json,md,html.", rich_help_panel=_WRITE)
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


@dataclass(frozen=True)
class Model:
    """What the options say about the model and how it is loaded."""

    src: str
    arch: str | None = None
    input_shape: Sequence[str] | None = None
    weights: str | None = None
    num_classes: int | None = None
    trust_pickle: bool = False
    device: str = "cpu"
    # Leave the parameter data out, where that is possible.
    meta: bool = False


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


def make_plan(screen: Screen, model: Model, rules: RuleSet, seed: int = 0) -> PlannedConversion:
    """Loads the model, captures it and decides about each layer, saying so on the screen."""
    shape = parse_shape(model.input_shape) or tuple(rules.defaults.get("input_shape", ())) or None
    # At the end nothing is searched for circles: the process is about to give back all of its memory.
    atexit.register(gc.freeze)
    with screen.stage("importing"), _without_collector():
        from binarize import sources
        from binarize.convert import plan

    def read(meta: bool) -> Source:
        with screen.stage("reading"), _without_collector():
            return sources.load(
                model.src,
                arch=model.arch,
                weights=model.weights,
                num_classes=model.num_classes,
                input_shape=shape,
                trust_pickle=model.trust_pickle,
                device=model.device,
                meta=meta,
            )

    source = read(model.meta)
    for note in source.notes:
        screen.note(f"{model.src}: {note}")
    try:
        with screen.stage("capturing"):
            planned = plan(source, rules=rules, seed=seed)
        retry = model.meta and planned.walked
    except CaptureError:
        if not model.meta:
            raise
        retry = True
    if retry:
        # Without data the model cannot run where its code looks at values, as detectors do.
        source = read(meta=False)
        with screen.stage("capturing"):
            planned = plan(source, rules=rules, seed=seed)
    with screen.stage("planning"):
        assert planned.plan
    return planned


@contextmanager
def _without_collector() -> Iterator[None]:
    """Imports make hundreds of thousands of objects that stay: looking for garbage among them takes a fifth longer."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def program() -> str:
    """What to type to run this program again: its name, or its path where the shell would not find it."""
    if shutil.which("binarize"):
        return "binarize"
    path = shlex.quote(sys.argv[0])
    return path if os.access(sys.argv[0], os.X_OK) else f"{shlex.quote(sys.executable)} {path}"


def next_command(verb: str, folder: Path, model: nn.Module) -> str:
    """A command that goes on with a folder, with the data that its model was fitted on and the source it needs."""
    from binarize.conversion import conversion_of
    from binarize.report import next_steps

    conversion = conversion_of(model)
    assert conversion is not None, "only converted models come here"
    data = conversion.seen.to_open(labelled=verb == "finetune")
    return next_steps.next_command(
        verb,
        folder,
        program(),
        data=data,
        source=conversion.source_to_say,
        trust_pickle=conversion.source.trusted_pickle,
    )


def report_of(model: nn.Module) -> Report:
    """The report that a converted model carries."""
    from binarize.conversion import conversion_of

    conversion = conversion_of(model)
    assert conversion is not None, "only converted models come here"
    return conversion.report


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


def parse_shape(texts: Sequence[str] | None) -> tuple[int, ...] | Arguments | None:
    """`["1,3,224,224"]` as the shape of whatever the model takes, several or named ones as its arguments.

    Raises: UsageError for anything that is no list of positive numbers.
    """
    if not texts:
        return None
    from binarize.sources.examples import TensorKind, parse_arguments

    arguments = parse_arguments(texts)
    alone = arguments.args[0] if len(texts) == 1 and arguments.args else None
    return alone.shape if isinstance(alone, TensorKind) and alone == TensorKind(alone.shape) else arguments
