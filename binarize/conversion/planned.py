"""A conversion that is planned and not carried out yet."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from binarize.analysis.analyse import Analysis
from binarize.calibration.result import Calibration, with_thresholds
from binarize.calibration.thresholds import set_starts
from binarize.conversion.checked.checks import compare_outputs, same_top1
from binarize.conversion.checked.hooks import unheard_hooks
from binarize.conversion.checked.liveness import measure_liveness
from binarize.conversion.checked.two_values import watched_values
from binarize.conversion.conversion import Conversion, remember
from binarize.conversion.float_twin import float_mark, mark_of
from binarize.conversion.measured import one_sided_layers
from binarize.conversion.planned_layer import PlannedLayer
from binarize.conversion.source_record import SourceRecord
from binarize.errors import BinarizeError, CheckError, UsageError, refuse_warnings
from binarize.inputs.arguments import Images, call
from binarize.inputs.batches import as_batches
from binarize.inputs.noise import looks_like_noise
from binarize.modules.copies import copy_model
from binarize.modules.hooks import silenced_hooks
from binarize.modules.modes import evaluating, undisturbed
from binarize.passes.rewrite import rewrite
from binarize.passes.swap import add_thresholds
from binarize.planning.make import make_plan
from binarize.planning.plan import Decision, Plan
from binarize.planning.record.capture import Calibrated, CalibrationState, ShapesFrom
from binarize.report.data import Agreement
from binarize.report.live import MeasuredOn
from binarize.report.report import Report, make_report
from binarize.rules.bind import bind
from binarize.rules.rule_set import Rule, RuleSet
from binarize.sources import Source
from binarize.trust import Word, trusting

__all__ = ["PlannedConversion"]


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
                self._plan = self._made()
        return self._plan

    def _made(self, one_sided: Collection[str] = ()) -> Plan:
        plan = make_plan(self.analysis, self.rules, self.source.spec, one_sided)
        shapes = ShapesFrom.EXAMPLE if self.images_given else ShapesFrom(self.source.input_shape_from)
        return replace(plan, capture=replace(plan.capture, source_notes=self.source.notes, shapes=shapes))

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

    def apply(self, *, calibrate: object = None, inplace: bool = False, strict: bool = False) -> nn.Module:
        """Carry the plan out on a copy of the model (on the model itself with `inplace`).

        Raises: UsageError, CheckError, StrictError; the model given is then unchanged (unless `inplace`).
        """
        with undisturbed(self.source.module), trusting(*self.trust, *self.rules.modules):
            return self._apply(calibrate, inplace, strict)

    def _apply(self, calibrate: object, inplace: bool, strict: bool) -> nn.Module:
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
        marked = mark_of(model, names)
        calibration = self._calibrate(model, calibration_data)
        if calibration_data is not None and (found := one_sided_layers(model, plan, calibration_data)):
            before, plan = plan, self._made(found)
            add_thresholds(model, before, plan)
            calibration = self._calibrate(model, calibration_data)
        plan = replace(
            plan,
            capture=replace(plan.capture, float_weights=marked),
            warnings=(*plan.warnings, *unheard_hooks(model, plan)),
        )
        plan = self._settled(model, plan, hashes, calibration, calibrate)
        report = self._report(model, plan, expected, calibration_data)
        failed = [check for check in report.checks if not check.passed]
        if failed:
            raise CheckError("\n".join(f"self-check failed: {one.name}: {one.detail}" for one in failed))
        refuse_warnings(strict, report.warnings)
        record = SourceRecord.of(self.source, self.images, made)
        # A function among the rules has no file form; what it said about these layers has.
        rules = bind(self.rules, self.analysis.layers)
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
            return as_batches(calibrate, len(self.images[0]) or None)
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
        asked: object,
    ) -> Plan:
        """The plan with what only carrying it out could tell: sources, and where the thresholds come from."""
        plan = replace(plan, capture=replace(plan.capture, sources=dict(hashes)))
        if calibration is not None:
            return with_thresholds(plan, model, calibration)
        if asked is False:
            found = Calibrated(CalibrationState.NOT_ASKED)
        elif not self.images_given:
            found = Calibrated(CalibrationState.NO_IMAGES)
        elif self.walked:
            found = Calibrated(CalibrationState.NOT_RUN)
        else:
            found = Calibrated(CalibrationState.NOISE, noise=self.noise)
        return replace(plan, capture=replace(plan.capture, calibration=found))

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

    def _report(self, model: nn.Module, plan: Plan, expected: object, data: list[Images] | None) -> Report:
        if self.walked:
            return make_report(plan, command=self.command)
        with silenced_hooks(model), evaluating(model), torch.no_grad():
            with watched_values(model) as not_binary:
                output = call(model, self.images)
            plan = replace(plan, warnings=(*plan.warnings, *not_binary))
            checks = compare_outputs(expected, output, fixed_sizes=self.analysis.graph.level == "meta")
            agreement: Agreement | None = None
            live = measure_liveness(model, data or [self.images])
            if self.images_given and self.noise is None:
                agreement = same_top1(expected, output)
            if agreement is not None and data is not None:
                agreement = replace(agreement, fitted=True)
        return make_report(
            plan,
            live=live,
            measured_on=self._measured_on(data),
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
