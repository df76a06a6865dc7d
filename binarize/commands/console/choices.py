"""What the words of several commands stand for in the library."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from binarize.commands.console.screen import Screen
from binarize.errors import CaptureError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from binarize.conversion.planned import PlannedConversion
    from binarize.inputs.arguments import Arguments
    from binarize.report.report import Report
    from binarize.rules.rule_set import RuleSet
    from binarize.sources import Source

__all__ = [
    "Choice",
    "Model",
    "make_plan",
    "parse_shape",
    "program",
    "report_of",
    "rule_set",
    "rule_source",
    "was_done",
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
    from binarize.rules.load import load_rule_set

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
    from binarize.rules.text import RuleText

    return [RuleText(sys.stdin.read(), "<stdin>") if name == "-" else name for name in files] or None


def make_plan(screen: Screen, model: Model, rules: RuleSet, seed: int = 0) -> PlannedConversion:
    """Loads the model, captures it and decides about each layer, saying so on the screen."""
    shape = parse_shape(model.input_shape) or tuple(rules.defaults.get("input_shape", ())) or None
    with screen.stage("importing"), _without_collector():
        from binarize import sources
        from binarize.conversion.convert import plan

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


def was_done(target: Path) -> str:
    """What a command says that is typed again after it was killed with all written."""
    return f"wrote {target}: this command was killed after it had done so, and nothing is left to do"


def program() -> str:
    """What to type to run this program again: its name, or its path where the shell would not find it."""
    if shutil.which("binarize"):
        return "binarize"
    path = shlex.quote(sys.argv[0])
    return path if os.access(sys.argv[0], os.X_OK) else f"{shlex.quote(sys.executable)} {path}"


def report_of(model: nn.Module) -> Report:
    """The report that a converted model carries."""
    from binarize.conversion.conversion import conversion_of

    conversion = conversion_of(model)
    assert conversion is not None, "only converted models come here"
    return conversion.report


def parse_shape(texts: Sequence[str] | None) -> tuple[int, ...] | Arguments | None:
    """`["1,3,224,224"]` as the shape of whatever the model takes, several or named ones as its arguments.

    Raises: UsageError for anything that is no list of positive numbers.
    """
    if not texts:
        return None
    from binarize.inputs.arguments import TensorKind, parse_arguments

    arguments = parse_arguments(texts)
    alone = arguments.args[0] if len(texts) == 1 and arguments.args else None
    return alone.shape if isinstance(alone, TensorKind) and alone == TensorKind(alone.shape) else arguments
