"""The one call: float model -> plan -> binary model, checked and reported.

    convert(model, "adabin", add_shortcuts=True, example_input=images)

is `plan(...)` followed by `.apply()`. The model given is never touched: not its weights, buffers, flags or hooks.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.analysis import Analysis
from binarize.binarizers.binaryconnect import StochasticSign
from binarize.calibration.batches import as_batches
from binarize.calibration.result import Calibration, with_thresholds
from binarize.calibration.starts import set_starts
from binarize.capture.shadow import HOOK_TABLES, part_of_model, silenced_hooks
from binarize.checks import compare_outputs, same_top1, undisturbed
from binarize.conversion import Conversion, SourceRecord, remember
from binarize.errors import BinarizeError, CheckError, UsageError, refuse_warnings
from binarize.float_twin import MARK, float_mark
from binarize.float_weights import float_names
from binarize.liveness import Images, arguments_of, call, evaluating, looks_like_noise, measure_liveness
from binarize.plan import Decision, Plan
from binarize.planner import make_plan
from binarize.report.live import MeasuredOn
from binarize.report.model import Agreement, Check, Report, make_report
from binarize.rewrite import copy_model, rewrite
from binarize.rules import Rule, RuleSet, load_rule_set
from binarize.sources import Source, load
from binarize.sources.examples import Arguments, parse_arguments
from binarize.trust import Word, trusting
from binarize.walk import analysed

__all__ = ["PlannedConversion", "PlannedLayer", "convert", "plan"]


def convert(
    model: nn.Module | str,
    scheme: str | None = None,
    *,
    rules: Any = None,
    add_shortcuts: bool | None = None,
    shortcuts: str | None = None,
    keep: Sequence[str] = (),
    binarize: Sequence[str] = (),
    overrides: Sequence[str] = (),
    keep_first: int = 1,
    keep_last: int = 1,
    example_input: Any = None,
    input_shape: Sequence[int] | Sequence[Sequence[int] | str] | None = None,
    calibrate: Any = None,
    inplace: bool = False,
    strict: bool = False,
    seed: int = 0,
    trust: Sequence[Word] = (),
    **source: Any,
) -> nn.Module:
    """A binary model: an ordinary trainable module of the same class, with the float weights under the same names.

    `model`          a module, or anything `binarize.load_source` names ("torchvision:vgg11", "vgg11.pt")
    `scheme`         a shipped rule set ("adabin" where neither this nor `rules` is given)
    `rules`          a name, path, dict, list of rules, or a function layer -> decision; see `load_rule_set`
    `add_shortcuts`  True: where the graph has none ("missing"); False: none ("never")
    `shortcuts`      "never", "missing" or "every": for every binarized layer, whatever its scheme says
    `example_input`  a tensor, a tuple of arguments, a dict of keyword arguments, or both: ((x,), {"mask": mask}).
                     Real images calibrate the thresholds and BatchNorm statistics as well; noise only tells shapes
    `input_shape`    the shape of made-up noise instead, or one for each input, those by name with "mask=1,16:int64"
    `calibrate`      batches of images for that instead; False: not at all
    `inplace`        rewrite the model given instead of a copy
    `strict`         raise StrictError where there is anything to warn of
    `trust`          modules of your own that a rule file may name for parts; a dict of rules needs no such word
    `source`         arch, weights, num_classes, trust_pickle, device for a named source

    The result carries `.report`. Raises: the errors of binarize.errors.
    """
    planned = plan(
        model,
        scheme,
        rules=rules,
        add_shortcuts=add_shortcuts,
        shortcuts=shortcuts,
        keep=keep,
        binarize=binarize,
        overrides=overrides,
        keep_first=keep_first,
        keep_last=keep_last,
        example_input=example_input,
        input_shape=input_shape,
        seed=seed,
        trust=trust,
        **source,
    )
    return planned.apply(calibrate=calibrate, inplace=inplace, strict=strict)


def plan(
    model: nn.Module | str | Source,
    scheme: str | None = None,
    *,
    rules: Any = None,
    add_shortcuts: bool | None = None,
    shortcuts: str | None = None,
    keep: Sequence[str] = (),
    binarize: Sequence[str] = (),
    overrides: Sequence[str] = (),
    keep_first: int = 1,
    keep_last: int = 1,
    example_input: Any = None,
    input_shape: Sequence[int] | Sequence[Sequence[int] | str] | None = None,
    seed: int = 0,
    trust: Sequence[Word] = (),
    **source: Any,
) -> PlannedConversion:
    """What `convert` with the same arguments would do and why. The model's weights are not read.

    Example:
        >>> planned = binarize.plan(model, "adabin")
        >>> planned["features.3"].keep("sensitive")
        >>> bnn = planned.apply()
    """
    if isinstance(rules, RuleSet):
        rule_set = rules
    else:
        with trusting(*trust):
            rule_set = load_rule_set(
                scheme,
                rules,
                keep=keep,
                binarize=binarize,
                overrides=overrides,
                shortcuts=_shortcut_mode(add_shortcuts, shortcuts),
                keep_first=keep_first,
                keep_last=keep_last,
            )
    shape = input_shape if input_shape is not None else rule_set.defaults.get("input_shape")
    given = None if example_input is None else arguments_of(example_input)
    loaded = model if isinstance(model, Source) else load(model, input_shape=_shape(shape, given), **source)
    images: Images | None = given
    if images is None and loaded.example_input is not None:
        images = (loaded.example_input, dict(loaded.example_keywords))
    with undisturbed(loaded.module):
        analysis = analysed(loaded, images, asked_for=given is not None or loaded.input_shape_from == "given")
    return PlannedConversion(
        loaded, rule_set, analysis, images or ((), {}), given is not None, seed, trust=tuple(trust)
    )


@dataclass(repr=False)
class PlannedConversion:
    """A plan that can still be changed, and carried out."""

    source: Source
    rules: RuleSet
    analysis: Analysis
    images: Images
    # Whether the user gave the images; a made-up example only tells shapes.
    images_given: bool
    seed: int = 0
    command: str | None = None
    # What the user's word covered when it was planned: carrying it out is part of that.
    trust: tuple[Word, ...] = ()
    _plan: Plan | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"PlannedConversion({self.rules.name} on {self.source.spec})"

    def __str__(self) -> str:
        return str(self.report)

    @property
    def plan(self) -> Plan:
        """The plan as the rules are now."""
        if self._plan is None:
            with undisturbed(self.source.module), trusting(*self.trust, *self.rules.modules):
                plan = make_plan(self.analysis, self.rules, self.source.spec)
                self._plan = replace(plan, capture={**plan.capture, "source": list(self.source.notes)})
        return self._plan

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One decision per layer, in execution order."""
        return self.plan.decisions

    @property
    def report(self) -> Report:
        """The report on the plan, with nothing measured yet."""
        return make_report(self.plan, command=self.command)

    @cached_property
    def noise(self) -> str | None:
        """Why the example input is no image to calibrate on, None where it may be one."""
        return looks_like_noise([self.images])

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return self.plan.to_json()

    def __getitem__(self, name: str) -> PlannedLayer:
        return PlannedLayer(self, self.plan[name].layer.name)

    def add_rule(self, rule: Rule) -> None:
        """Append a rule: it decides the layers that it matches."""
        self.rules = replace(self.rules, rules=(*self.rules.rules, rule))
        self._plan = None

    def apply(self, *, calibrate: Any = None, inplace: bool = False, strict: bool = False) -> nn.Module:
        """Carry the plan out on a copy of the model (on the model itself with `inplace`).

        Raises: UsageError, CheckError, StrictError; the model given is then unchanged (unless `inplace`).
        """
        with undisturbed(self.source.module), trusting(*self.trust, *self.rules.modules):
            return self._apply(calibrate, inplace, strict)

    def _apply(self, calibrate: Any, inplace: bool, strict: bool) -> nn.Module:
        plan = self.plan
        refuse_warnings(strict, plan.complaints)
        float_model = self.source.module
        if any(parameter.is_meta for parameter in float_model.parameters()):
            raise UsageError(
                "the model has no weights (it lies on the meta device): load it with them to convert it"
            )
        calibration_data = self._calibration_data(calibrate)
        skeleton = Conversion.skeleton_of(float_model, self.source.builder)
        model = float_model if inplace else copy_model(float_model)
        expected = self._answer(model)
        names = list(float_model.state_dict())
        made = None if self.source.num_classes is not None else float_mark(float_model, names)
        torch.manual_seed(self.seed)
        hashes = rewrite(model, plan)
        moved = float_names(model)
        if not any(isinstance(module, StochasticSign) for module in model.modules()):
            mark = float_mark(model, [moved.get(name, name) for name in names])
            plan = replace(plan, capture={**plan.capture, MARK: mark})
        plan = replace(plan, warnings=(*plan.warnings, *_unheard_hooks(model, plan)))
        calibration = self._calibrate(model, calibration_data)
        plan = self._settled(model, plan, hashes, calibration, calibrate)
        report = self._report(model, plan, expected, calibration_data)
        failed = [check for check in report.checks if not check.passed]
        if failed:
            raise CheckError(
                "\n".join(f"self-check failed: {check.name}: {check.detail}" for check in failed)
            )
        refuse_warnings(strict, report.warnings)
        record = SourceRecord.of(self.source, self.images, made)
        # A function among the rules has no file form; what it said about these layers has.
        rules = self.rules.bind(self.analysis.layers)
        original = None if inplace else weakref.ref(float_model)
        conversion = Conversion(
            plan, record, rules, report, skeleton, self.seed, self.command, original=original, said=True
        )
        remember(model, conversion)
        return model

    def _calibration_data(self, calibrate: Any) -> list[Images] | None:
        """The batches to calibrate on; None where there are none worth it."""
        if calibrate is False:
            return None
        if calibrate is not None and calibrate is not True:
            return as_batches(calibrate)
        if self.walked or not self.images_given or self.noise is not None:
            return None
        return [self.images]

    def _calibrate(self, model: nn.Module, data: list[Images] | None) -> Calibration | None:
        if data is None:
            return None
        try:
            with silenced_hooks(model):
                return set_starts(model, data)
        except BinarizeError:
            raise
        except Exception as error:  # a model that was never run may raise anything
            if not self.walked:
                raise
            raise UsageError(
                f"the model does not run on the calibration data: {type(error).__name__}: {error}"
            ) from error

    def _settled(
        self,
        model: nn.Module,
        plan: Plan,
        hashes: Mapping[str, str],
        calibration: Calibration | None,
        asked: Any,
    ) -> Plan:
        """The plan with what only carrying it out could tell: sources, and where the thresholds come from."""
        plan = replace(plan, capture={**plan.capture, "sources": dict(hashes)})
        if calibration is not None:
            return with_thresholds(plan, model, calibration)
        if asked is False:
            state = "none: not asked for"
        elif not self.images_given:
            state = "none: no images were given"
        else:
            state = f"none: the example input is {self.noise}"
        return replace(plan, capture={**plan.capture, "calibration": state})

    def _answer(self, model: nn.Module) -> Any:
        """What the model gives for the images; None where it does not run on any."""
        if self.walked:
            return None
        with silenced_hooks(model), evaluating(model), torch.no_grad():
            return call(model, self.images)

    @property
    def walked(self) -> bool:
        """Whether the model was never run, so that all that is known of it is the list of its modules."""
        return self.analysis.graph.level == "walk"

    def _report(self, model: nn.Module, plan: Plan, expected: Any, data: list[Images] | None) -> Report:
        if self.walked:
            return make_report(plan, command=self.command)
        with silenced_hooks(model), evaluating(model), torch.no_grad():
            output = call(model, self.images)
            checks: list[Check] = compare_outputs(
                expected, output, fixed_sizes=self.analysis.graph.level == "meta"
            )
            agreement: Agreement | None = None
            measured_on = self._measured_on(data)
            live = measure_liveness(model, data or [self.images])
            if self.images_given and self.noise is None:
                agreement = same_top1(expected, output)
            if agreement is not None and data is not None:
                agreement = replace(agreement, fitted=True)
        return make_report(
            plan,
            live=live,
            measured_on=measured_on,
            agreement=agreement,
            checks=checks,
            command=self.command,
        )

    def _measured_on(self, data: list[Images] | None) -> MeasuredOn:
        if data is not None:
            return "calibration images"
        if not self.images_given:
            return "made-up noise"
        return "example images" if self.noise is None else "noise"


class PlannedLayer:
    """One layer of a plan: its decision, and the two ways to change it."""

    def __init__(self, planned: PlannedConversion, name: str) -> None:
        self._planned = planned
        self.name = name

    @property
    def decision(self) -> Decision:
        """The decision as the rules are now."""
        return self._planned.plan[self.name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.decision, name)

    def keep(self, why: str) -> None:
        """Leave this layer float."""
        self._append(load_rule_set(None, None, keep=[self.name]), why)

    def binarize(self, scheme: str | None = None, why: str = "asked for") -> None:
        """Binarize this layer (with another scheme, if one is named)."""
        rules = load_rule_set(scheme or self._planned.rules.name, None, binarize=[self.name])
        missing = {
            name: item for name, item in rules.schemes.items() if name not in self._planned.rules.schemes
        }
        if missing:
            schemes = {**self._planned.rules.schemes, **missing}
            self._planned.rules = replace(self._planned.rules, schemes=schemes)
        self._append(rules, why)

    def _append(self, rules: RuleSet, why: str) -> None:
        self._planned.add_rule(replace(rules.rules[-1], why=why, where="the plan"))

    def __repr__(self) -> str:
        return f"<{self.name}: {self.decision.action}, {self.decision.why}>"


def _unheard_hooks(model: nn.Module, plan: Plan) -> list[str]:
    """A warning for the user's hooks on modules whose forward became part of the forward around them."""
    warnings = []
    for edit in plan.edits:
        if edit.op != "open":
            continue
        prefix = f"{edit.container}." if edit.container else ""
        silent = []
        for path in (prefix + child for child in edit.args["opened"]):
            tables = [getattr(model.get_submodule(path), name) for name in HOOK_TABLES]
            if any(not part_of_model(hook) for table in tables for hook in table.values()):
                silent.append(path)
        if silent:
            around = edit.container or "the model"
            warnings.append(
                f"{', '.join(silent)}: its hooks fire no more, since its forward is part of that of {around}"
            )
    return warnings


def _shortcut_mode(add_shortcuts: bool | None, shortcuts: str | None) -> str | None:
    if add_shortcuts is not None and shortcuts is not None:
        raise UsageError(
            'give add_shortcuts or shortcuts, not both (add_shortcuts=True is shortcuts="missing")'
        )
    if shortcuts is not None and shortcuts not in ("never", "missing", "every"):
        raise UsageError(f'shortcuts={shortcuts!r}: expected "never", "missing" or "every"')
    if add_shortcuts is None:
        return shortcuts
    return "missing" if add_shortcuts else "never"


def _shape(
    shape: Sequence[int] | Sequence[Sequence[int] | str] | None, given: Images | None
) -> tuple[int, ...] | Arguments | None:
    if shape is not None and any(isinstance(item, Sequence) for item in shape):
        texts = (item if isinstance(item, str) else ",".join(map(str, item)) for item in shape)  # type: ignore[arg-type]
        return parse_arguments(list(texts))
    if shape is not None:
        return tuple(int(size) for size in shape)  # type: ignore[arg-type]
    # With an example at hand nobody needs to guess; the first tensor stands for it.
    for value in pytree.tree_leaves((given[0], dict(given[1]))) if given is not None else ():
        if isinstance(value, Tensor) and value.dim():
            return tuple(value.shape)
    return None
