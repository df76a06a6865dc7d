"""A converted model read from disk: bit-equal, and without running code from any file.

    model.safetensors   latent float weights, one entry per tensor, tied tensors once
    binarize.json       format version, source, resolved plan, seed, versions, command line, fingerprint
    structure.pt        the float model without data, only where no named builder makes it again
    rules.yaml          the effective rule set, re-runnable
    report.json, report.md, report.html (where jinja2 is installed)

Reloading rebuilds the float model, replays the plan's edits and loads the tensors strictly; no rule is matched again.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from binarize.checkpoint.fingerprint import machine, output_digest
from binarize.checkpoint.float_model import STRUCTURE, WEIGHTS, float_model
from binarize.checkpoint.record import RECORD, read_json, read_record
from binarize.conversion.conversion import Conversion, remember
from binarize.conversion.source_record import SourceRecord
from binarize.errors import (
    CheckError,
    RewriteError,
    RuleError,
    SourceError,
    UntrustedSourceError,
    UsageError,
    did_you_mean,
)
from binarize.inputs.seen import Seen
from binarize.modules.float_check import bare
from binarize.modules.tensors import is_permuted, set_as_saved, tensor_digest, tensors_of
from binarize.passes.rewrite import rewrite
from binarize.planning.plan import Plan
from binarize.report.report import Report
from binarize.rules.rule_set import RuleSet
from binarize.schemes.part import may_be_named
from binarize.schemes.scheme import PART_SLOTS
from binarize.sources.user_code import code_digest
from binarize.trust import Word, quoted, trusting

__all__ = ["load", "read_record", "read_report", "rebuild"]


# What the commands write under names of their own about one model: gone where another takes its place.
_REPLACED = (
    RECORD, WEIGHTS, STRUCTURE, "rules.yaml", "report.json", "report.md", "report.html", "packed.safetensors",
    "finetune.json", "metrics.csv", "unreadable.txt", "checkpoints",
)  # fmt: skip


def load(
    folder: str | Path,
    *,
    model: nn.Module | None = None,
    source: str | None = None,
    trust: Sequence[Word] = (),
) -> nn.Module:
    """The model that `save` wrote, with every tensor bit-equal.

    Where the float model's class is the user's own, give the float model (it is copied, its weights do not matter) or a
    `source` that makes it, such as "file.py:make_model". `trust` names the modules of your own whose parts the model has:
    none is imported because a file says so.

    Raises: SourceError, where the folder is not one of ours, is damaged, or the float model is needed; CheckError, where
    the rebuilt model is not the one that was saved.
    """
    path = Path(folder)
    with trusting(*trust):
        record = read_record(path)
        rebuilt, plan, skeleton = rebuild(path, record, model=model, source=source)
        rules = RuleSet.from_json(record["rules"])
        report = read_report(path)
    origin = SourceRecord.from_json(record["source"])
    _load_tensors(rebuilt, path / WEIGHTS, record)
    _set_flags(rebuilt, path / RECORD, record)
    if source is not None:
        origin = origin.named_anew(source, code_digest(source))
    conversion = Conversion(
        plan,
        origin,
        rules,
        report,
        skeleton,
        record["seed"],
        record["command"],
        Seen.from_json(record["seen"]),
        None if model is None else weakref.ref(bare(model)),
        source,
    )
    remember(rebuilt, conversion)
    _check_output(rebuilt, origin, record)
    return rebuilt


def rebuild(
    folder: str | Path,
    record: Mapping[str, Any],
    *,
    model: nn.Module | None = None,
    source: str | None = None,
) -> tuple[nn.Module, Plan, nn.Module | None]:
    """(a saved model before its tensors are loaded, its plan, the float model without data if no builder makes it).

    `record` is what `read_record` read; `model` and `source` are those of `load`. Raises: what `load` does.
    """
    path = Path(folder)
    plan = Plan.from_json(record["plan"])
    _refuse_foreign_parts(plan, path)
    origin = SourceRecord.from_json(record["source"])
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        rebuilt = float_model(path, origin, model, source)
        skeleton = Conversion.skeleton_of(rebuilt, origin.builder)
        _replay(rebuilt, plan)
    return rebuilt, plan, skeleton


def read_report(folder: str | Path) -> Report:
    """The report of a saved model, without loading the model.

    Raises: SourceError, where the folder is not one of ours, or damaged.
    """
    path = Path(folder)
    read_record(path)
    return Report.from_json(read_json(path / "report.json"))


def _refuse_foreign_parts(plan: Plan, folder: Path) -> None:
    """Raises: UntrustedSourceError, where the plan names a part that is not ours, torch's, or covered by the user's word.

    That its module happens to be imported already is no word: whoever wrote the file may have counted on it.
    """
    parts = [getattr(scheme, slot) for scheme in plan.schemes.values() for slot in PART_SLOTS]
    parts += [part for edit in plan.edits for part in edit.parts()]
    for name in (name for part in parts if part is not None for name in part.names()):
        if not may_be_named(name):
            module = name.rpartition(".")[0]
            raise UntrustedSourceError(
                f"{folder}: uses {quoted(name)}, which is no part of binarize or torch.nn\n"
                f"  where you trust it, say so: --trust {module} (trust=[{module!r}])"
            )


def _replay(model: nn.Module, plan: Plan) -> None:
    """Carry the plan out on a float model that may be another one than it was made for."""
    try:
        rewrite(model, plan)
    except (RewriteError, RuleError, UsageError) as error:
        raise CheckError(
            f"the saved plan does not fit {type(model).__name__}: {error}\n"
            "  it has to be the float model that was converted, in the versions that binarize.json names"
        ) from error


def _load_tensors(model: nn.Module, path: Path, record: Mapping[str, Any]) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path}: damaged or missing: {error}") from error
    if tensor_digest(tensors) != record["fingerprint"]["tensors"]:
        raise CheckError(f"{path}: its tensors are not the ones that were saved (sha256 differs)")
    own = tensors_of(model)
    tied = {name: group[0] for group in record["tied"] for name in group[1:]}
    absent = {
        name: value
        for name in own.keys() - tensors.keys()
        for ending, value in dict(record["absent"]).items()
        if name.endswith(ending)
    }
    for name, strides in record["strides"].items():
        if name not in tensors or not is_permuted(tensors[name].shape, strides):
            raise CheckError(
                f"{path}: {name}: expected a tensor that fills its memory with the strides {strides[:8]} of {RECORD}"
            )
    missing = sorted(name for name in own if tied.get(name, name) not in tensors and name not in absent)
    unexpected = sorted(name for name in tensors if name not in own)
    shapes = sorted(name for name in own if name in tensors and own[name].shape != tensors[name].shape)
    if missing or unexpected or shapes:
        raise CheckError(
            f"{path}: does not fit the rebuilt model: missing {missing[:3]}, unexpected {unexpected[:3]}, "
            f"of another shape {shapes[:3]}\n  the float model's code is another version; see binarize.json: versions"
        )
    with torch.no_grad():
        for name, value in own.items():
            if name in tensors:
                set_as_saved(value, tensors[name], record["strides"].get(name, tensors[name].stride()))
            elif name in absent:
                value.fill_(absent[name])


def _set_flags(model: nn.Module, where: Path, record: Mapping[str, Any]) -> None:
    """Which modules train and which parameters do not, as they were saved."""
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for key, names, own in (("modes", record["modes"], modules), ("frozen", record["frozen"], parameters)):
        for name in names:
            if name not in own:
                raise CheckError(
                    f"{where}: {key}: the rebuilt model has no {name!r}{did_you_mean(name, own)}\n"
                    "  it has to be the float model that was converted, in the versions that binarize.json names"
                )
    for name, training in record["modes"].items():
        modules[name].training = training
    frozen = set(record["frozen"])
    for name, parameter in parameters.items():
        # Only numbers with a fraction have gradients.
        parameter.requires_grad_(name not in frozen and parameter.is_floating_point())


def _check_output(model: nn.Module, origin: SourceRecord, record: Mapping[str, Any]) -> None:
    """The reloaded model must compute what the saved one did; on another machine the last digits may differ."""
    fingerprint = record["fingerprint"]
    if fingerprint["output"] is None or fingerprint["machine"] != machine():
        return
    if output_digest(model, origin) != fingerprint["output"]:
        raise CheckError(
            "the reloaded model computes something else than the saved one did on the same seeded input"
        )
