"""`binarize.calibrate`: a converted model fitted to its float model on unlabelled images, without any training run.

    1. layer by layer, each with the binary inputs it will really have: thresholds and levels of the input, signs of the
       filters, BatchNorm statistics, scale and shift by least squares to the float model's output there; where asked
       for, some hundred steps of Adam on the layer
    2. the float classifier refitted to the float model's output
    3. where asked for, some hundred steps of Adam on all layers together

Without a float model thresholds, levels and BatchNorm statistics are set, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset

from binarize.calibration.closed_form import Fit
from binarize.calibration.progress import Progress, Tick, Watch
from binarize.calibration.result import Calibration, is_fitted, with_thresholds
from binarize.calibration.steps import Fitting, Steps
from binarize.calibration.thresholds import check_calibration, set_starts
from binarize.checkpoint.fingerprint import machine
from binarize.conversion.checked.liveness import measure_liveness
from binarize.conversion.conversion import arguments_taken, conversion_of, remember
from binarize.conversion.float_twin import float_twin
from binarize.errors import BinarizeError, UsageError, did_you_mean, way
from binarize.inputs.arguments import Images
from binarize.inputs.batches import as_batches
from binarize.inputs.seen import DataUse
from binarize.modules.float_check import bare
from binarize.modules.hooks import silenced_hooks
from binarize.modules.modes import evaluating, undisturbed
from binarize.modules.tensors import tensor_digest, tensors_of
from binarize.report.data import Agreement
from binarize.report.report import make_report
from binarize.training.data import Preprocessing, preprocessing_of
from binarize.training.data.opened import needs_preprocessing, on_device, open_images
from binarize.training.teachers.find import find_teachers
from binarize.training.teachers.fitted import check_fits, fit_to, is_comparable
from binarize.version import versions

__all__ = ["Calibration", "calibrate", "record_calibration"]


_FITS = ("least-squares", "variance")


def calibrate(
    model: nn.Module,
    data: Any,
    float_model: nn.Module | str | None = None,
    *,
    fit: Fit = "least-squares",
    signs: bool = True,
    steps: int = 0,
    joint_steps: int | None = None,
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    root: str | Path = "data",
    download: bool = False,
    batch_size: int = 250,
    noise: bool = False,
    seed: int = 0,
    tick: Tick = lambda name, done, of: None,
    progress: str | Path | None = None,
) -> Calibration:
    """Fit a converted model to its float model on unlabelled images, in place; the same seed gives the same model.

    `data`         a batch (N, ...) or several, labels ignored; a name such as "digits", "idx:PATH" or a folder; a Dataset
    `float_model`  None: the model that was converted, if it is at hand or the weights are still its; "none"; or a model
    `fit`          "least-squares" or "variance", the rule for scale and shift of a channel
    `signs`        whether the signs of each filter are searched for too
    `steps`        of Adam on each layer
    `joint_steps`  of Adam on all layers together at the end; None: twice `steps`
    `limit`        so many images of named data alone, drawn with `seed`
    `noise`        whether generated noise is taken for images; with it real images leave half the channels constant
    `progress`     a file that keeps what the steps have trained: after an interruption the same call goes on from there.
                   Remove it when the model is saved

    Raises: UsageError where there is no data, it is noise, or it does not fit the model.

    Example:
        >>> binarize.calibrate(bnn, images, steps=100).agreement        # doctest: +SKIP
    """
    if fit not in _FITS:
        raise UsageError(f'fit="{fit}" is none of {", ".join(_FITS)}{did_you_mean(str(fit), _FITS)}')
    model = bare(model)
    if isinstance(data, (str, os.PathLike, Dataset)):
        if preprocessing is None and needs_preprocessing(data):
            preprocessing = preprocessing_of(model)
        batches, opened, unreadable = open_images(
            model, data, limit, preprocessing, root=root, download=download, batch_size=batch_size, seed=seed
        )
    else:
        batches, opened, unreadable = as_batches(data, arguments_taken(model)), None, ()
    check_calibration(model, batches, noise=noise)
    reference, words = _reference(model, float_model)
    if reference is not None:
        check_fits(model, reference, words)
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model))
        for module in (model, *([reference] if reference is not None else [])):
            stack.enter_context(silenced_hooks(module))
            stack.enter_context(evaluating(module))
        torch.manual_seed(seed)
        batches = [on_device(model, images) for images in batches]
        if reference is None:
            _refuse_undoing(model, float_model, words)
            found = set_starts(model, batches, noise=noise)
            found = replace(found, why_none=words)
        else:
            joint = joint_steps
            if joint is None:
                joint = 2 * steps if is_comparable(reference, batches[0]) else 0
            how = Fitting(fit, signs, Steps(steps) if steps else None, seed)
            kept = Progress()
            if progress is not None and (steps or joint):
                kept = Progress(Path(progress), f"{_digests(model, reference, batches)} {_key(how, joint)}")
            found = fit_to(model, reference, batches, how, joint, Watch(tick, kept))
            found = replace(found, reference=words)
        name = None if opened is None else opened.name
        found = replace(found, data=name, unreadable=unreadable)
        record_calibration(model, found, batches, noise=noise)
        use = DataUse(
            "calibrate",
            name or "images in memory",
            found.images,
            labelled=opened is None or opened.labelled,
            by_name=isinstance(data, (str, os.PathLike)),
            root=str(root),
        )
        _remember_use(model, use, preprocessing if name is not None else None)
    return found


def _reference(model: nn.Module, asked: nn.Module | str | None) -> tuple[nn.Module | None, str]:
    """(the float model, what it is) or (None, why there is none). Only where nobody asked may it be missing."""
    if isinstance(asked, nn.Module):
        asked = bare(asked)
        if asked is model:
            raise UsageError("the model cannot be its own float model; give the one that was converted")
        return asked, type(asked).__name__
    if asked == "none":
        return None, "not asked for"
    if asked is None or asked == "source":
        twin = float_twin(model)
        if twin is not None:
            return twin, "the weights as converted"
    try:
        teachers = find_teachers(model, asked or "source")
    except BinarizeError as error:
        if asked is not None:
            raise
        return None, str(error).splitlines()[0]
    if not teachers.teachers:
        if asked is not None:
            raise UsageError(f"calibrate: there is no float model to fit to: {teachers.why_none}")
        return None, teachers.why_none
    return teachers.teachers[0].model, str(teachers)


def _key(how: Fitting, joint: int) -> tuple[object, ...]:
    """The options that the result depends on."""
    steps = 0 if how.steps is None else how.steps.count
    return how.fit, how.signs, steps, joint, how.seed, torch.get_num_threads()


def _digests(model: nn.Module, reference: nn.Module, batches: list[Images]) -> str:
    """What is calibrated, to what, on which images, by which code: all that the result depends on but the options."""
    leaves = pytree.tree_leaves(batches)
    images = {str(i): leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    digests = [tensor_digest(tensors) for tensors in (tensors_of(model), tensors_of(reference), images)]
    conversion = conversion_of(model)
    plan = None if conversion is None else conversion.plan.to_json()
    # Schemes that start from the same tensors differ in their plans; modules say in words what they are.
    words = json.dumps([plan, str(model), str(reference), machine(), versions()], default=str)
    return " ".join([*digests, hashlib.sha256(words.encode()).hexdigest()])


def _refuse_undoing(model: nn.Module, asked: nn.Module | str | None, why: str) -> None:
    """New thresholds without new scales would ruin what was fitted to them; whoever asks for that may have it."""
    conversion = conversion_of(model)
    if asked is None and conversion is not None and is_fitted(conversion.plan):
        raise UsageError(
            f"the model was fitted to its float model before, which is needed to fit it anew: {why}\n"
            f"  name it: {way('--float SRC', 'float_model=...')}; or none, to set thresholds and statistics alone"
        )


def record_calibration(
    model: nn.Module,
    found: Calibration,
    batches: list[Images],
    *,
    noise: bool = False,
) -> None:
    """Let the model's plan and report say where its thresholds come from, and what its binary inputs see now."""
    conversion = conversion_of(model)
    if conversion is None:
        return
    plan = with_thresholds(conversion.plan, model, found)
    before = conversion.report
    agreement = before.agreement
    if found.agreement is not None:
        agreement = Agreement(found.agreement, found.settled_on, fitted=True)
    live = measure_liveness(model, batches)
    report = make_report(
        plan,
        live=live,
        measured_on="noise" if noise else "calibration images",
        agreement=agreement,
        checks=before.checks,
        files=before.files,
        command=before.command,
    )
    # A training that came before is what the report no longer tells of: the weights are others now.
    remember(model, replace(conversion, plan=plan, report=report))


def _remember_use(model: nn.Module, use: DataUse, shown: Preprocessing | None) -> None:
    """Let the model remember which images it was fitted to, and how they were shown to it."""
    conversion = conversion_of(model)
    if conversion is None:
        return
    seen = conversion.seen.showing(shown, "calibrate").using(use)
    remember(model, replace(conversion, seen=seen))
