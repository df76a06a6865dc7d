"""What benchmarks/zoo.py asks of one model, in the order of the cost of asking."""

from __future__ import annotations

import gc
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import model_laws
import torch
import zoo_cases
from torch import nn
from zoo_cases import Case
from zoo_sets import ENDS

import binarize
from binarize.analysis.analyse import analyse
from binarize.capture import capture
from binarize.conversion.planned import PlannedConversion
from binarize.modules.copies import shadow
from binarize.sources import load

__all__ = ["examine", "warm_up"]

SCHEME, SHORTCUTS = "adabin", "every"
Tell = Callable[[str, Any], None]


def warm_up(packages: Sequence[str]) -> None:
    """Import once what every model needs, so that forked processes find it there."""
    for package in ("torchvision", "timm", "sklearn.datasets", *packages):
        import_module(package)
    tiny = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(3)))
    binarize.convert(tiny, SCHEME, overrides=["tiny.use=adabin"], example_input=torch.zeros(1, 3, 9, 9))
    zoo_cases.nets.pictures(1)
    # What is imported stays: collections in the forked processes need not walk through it.
    gc.collect()
    gc.freeze()


def examine(model: str, checks: Sequence[str], meta: bool, tell: Tell) -> None:
    """Hold one model to the checks; `tell` hears of each, and of what is measured, as soon as it is known."""
    examined = _Meta(model) if meta else _Real(model)
    for check in checks:
        tell("doing", check)
        try:
            tell(check, getattr(examined, check)(tell))
        except Exception as error:  # the table must name whatever breaks
            tell(check, reason(error))
            if check in ("plan", "convert"):
                return
        gc.collect()


def reason(error: BaseException) -> str:
    """The exception in one line, and where it was raised."""
    text = str(error).strip().splitlines()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text[0] if text else ''} ({Path(frame.filename).name}:{frame.lineno})"


class _Meta:
    """A plan without the model's data, at the input that the library gives."""

    def __init__(self, spec: str) -> None:
        self.spec = spec

    def plan(self, tell: Tell) -> str:
        source = load(self.spec, meta=True)
        tell("shape", source.input_shape)
        planned = binarize.plan(source, SCHEME)
        return _told_of(planned, tell)


class _Real:
    """A conversion at the smallest input."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.case: Case = zoo_cases.case(spec)
        self.fingerprint = model_laws.fingerprint(self.case.model)
        self.planned: PlannedConversion
        self.bnn: nn.Module
        # The size of the float model's gradients.
        self.theirs: dict[str, float | None] | Exception

    def plan(self, tell: Tell) -> str:
        tell("shape", self.case.shape)
        self.planned = binarize.plan(
            self.case.source, SCHEME, shortcuts=SHORTCUTS, example_input=self.case.example
        )
        return _told_of(self.planned, tell)

    def reported(self, tell: Tell) -> str:
        trains = self.planned.analysis.graph.training is not None or self.case.training != self.case.arguments
        training = self.case.training if trains else None
        return model_laws.reported(self.case.model, self.planned.plan, self.case.arguments, training)

    def ends(self, tell: Tell) -> str:
        wanted = json.loads(ENDS.read_text("utf-8")).get(self.spec)
        for position in ("first", "last") if wanted else ():
            layers = [d.layer for d in self.planned.decisions]
            found = sorted(layer.name for layer in layers if layer.position == position)
            if found != sorted(wanted[position]):
                return f"{position} is {', '.join(found)} and not {', '.join(sorted(wanted[position]))}"
        return "ok"

    def time(self, tell: Tell) -> str:
        """Processor time of recording and analysing against that of a forward pass where it is recorded."""
        args, kwargs = self.case.arguments
        meta = self.planned.analysis.graph.level == "meta"
        # What a model has computed and keeps (YOLO's anchors) has to hold data there too.
        model = shadow(self.case.model, meta=meta)
        if meta:
            args, kwargs = torch.utils._pytree.tree_map_only(
                torch.Tensor, lambda t: t.to("meta"), (args, kwargs)
            )
        with torch.no_grad():
            forward = _seconds(lambda: model(*args, **kwargs), 3)
        ours = _seconds(lambda: analyse(capture(self.case.model, *self.case.arguments)), 2)
        tell("ratio", round(ours / forward, 2))
        tell("capture", round(ours, 3))
        return "ok"

    def kept(self, tell: Tell) -> str:
        return model_laws.keeps_all(
            self.case.model, self.planned.plan, self.case.arguments, self.case.training
        )

    def convert(self, tell: Tell) -> str:
        # Before there are two of them: a giant, what it keeps for its backward pass and a second giant fill the memory.
        try:
            self.theirs = model_laws.first_step(self.case.model, self.case.training)
        except Exception as error:  # told where gradients are asked for
            self.theirs = error
        started = time.process_time()
        self.bnn = self.planned.apply()
        tell("converted", round(time.process_time() - started, 1))
        return "ok"

    def shapes(self, tell: Tell) -> str:
        sizes = self.planned.analysis.graph.level == "meta"
        return model_laws.same_shapes(self.case.model, self.bnn, self.case.arguments, sizes=sizes)

    def original(self, tell: Tell) -> str:
        return "ok" if model_laws.fingerprint(self.case.model) == self.fingerprint else "the model changed"

    def alive(self, tell: Tell) -> str:
        return model_laws.alive(self.bnn, self.case.arguments)

    def saved(self, tell: Tell) -> str:
        with tempfile.TemporaryDirectory() as folder:
            given = None if self.case.named else self.case.model
            return model_laws.saved(self.bnn, self.case.arguments, Path(folder), given)

    def gradients(self, tell: Tell) -> str:
        if isinstance(self.theirs, Exception):
            raise self.theirs
        # The last check.
        self.case.model.to("meta")
        return model_laws.compare_gradients(self.theirs, model_laws.first_step(self.bnn, self.case.training))


def _told_of(planned: PlannedConversion, tell: Tell) -> str:
    plan = planned.plan
    tell("layers", len(plan.decisions))
    tell("binary", len(plan.binarized))
    tell("level", plan.capture["level"])
    tell("closed", plan.capture["containers"])
    tell("notes", plan.capture["notes"])
    return "ok" if plan.decisions else "no layers"


def _seconds(action: Callable[[], object], rounds: int) -> float:
    """The best of some rounds, after one that warms up."""
    action()
    found = []
    for _ in range(rounds):
        started = time.process_time()
        action()
        found.append(time.process_time() - started)
    return min(found)
