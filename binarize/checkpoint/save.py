"""A converted model written to disk, whole or not at all."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from binarize.calibration.result import is_fitted
from binarize.checkpoint.float_model import STRUCTURE, WEIGHTS
from binarize.checkpoint.load import _REPLACED
from binarize.checkpoint.migrations import FORMAT
from binarize.checkpoint.record import RECORD, make_record
from binarize.checkpoint.structure import save_structure
from binarize.conversion.conversion import Conversion, conversion_of
from binarize.disk.atomic import check_place, whole_folder
from binarize.disk.file_name import check_name
from binarize.disk.leftovers import is_empty
from binarize.disk.replacement import recover
from binarize.disk.tensor_file import save_tensors
from binarize.errors import UsageError, way
from binarize.modules.float_check import bare
from binarize.modules.tensors import unique_tensors
from binarize.report.drawing.html import to_html
from binarize.report.drawing.markdown import to_markdown
from binarize.report.words import next_commands

__all__ = ["replace_model", "save"]


REPORTS = ("json", "md", "html")


def save(
    model: nn.Module, folder: str | Path, *, force: bool = False, reports: Collection[str] = REPORTS
) -> Path:
    """Write a converted model (trained since or not) to a folder, all of it or nothing.

    `reports` names the forms of the report that are written beside report.json, which always is: "md", "html" (that
    one where jinja2 is installed). Returns the folder.

    Raises: UsageError, where the model is not converted, or the folder exists and `force` does not allow to replace it;
    OSError, where the disk refuses.
    """
    model = bare(model)
    conversion = _conversion_to_save(model)
    target = Path(folder)
    check_place(target)
    recover(target)
    _check_target(target, force)
    # A folder may hold the user's own files too: those stay.
    with whole_folder(target, keep=True, but=_REPLACED) as draft:
        _write(model, conversion, draft)
        _write_reports(conversion, draft, target, reports)
    return target


def replace_model(model: nn.Module, folder: str | Path, *, beside: Mapping[str, str] | None = None) -> None:
    """Put a converted model in the place of the one in a folder, beside all other files, all of it or nothing.

    `beside` are texts that are written in the same step: name of the file -> what it holds.

    Raises: UsageError, where the model is not converted; OSError, where the disk refuses.
    """
    conversion, target = _conversion_to_save(model), Path(folder)
    with whole_folder(target, keep=True) as draft:
        _write(model, conversion, draft)
        _write_reports(conversion, draft, target, REPORTS)
        for name, text in (beside or {}).items():
            (draft / name).write_text(text, "utf-8")


def _conversion_to_save(model: nn.Module) -> Conversion:
    conversion = conversion_of(model)
    if conversion is None:
        raise UsageError(
            "save: this model was not made by binarize.convert; torch.save writes any other model"
        )
    return conversion


def _write(model: nn.Module, conversion: Conversion, folder: Path) -> None:
    texts = {"format": "pt", "binarize": str(FORMAT)}
    save_tensors(unique_tensors(model), folder / WEIGHTS, texts)
    if conversion.skeleton is not None:
        save_structure(conversion.skeleton, folder / STRUCTURE)
    (folder / RECORD).write_text(json.dumps(make_record(model, conversion), indent=1), "utf-8")
    (folder / "rules.yaml").write_text(conversion.rules.to_yaml(), "utf-8")


def _write_reports(conversion: Conversion, folder: Path, target: Path, forms: Collection[str]) -> None:
    """The report with what only now is known: the sizes of the files, and the commands that go on from here."""
    report = conversion.report
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    commands = next_commands(
        target,
        calibrated=is_fitted(conversion.plan),
        trained=report.training is not None,
        seen=conversion.seen,
        source=conversion.source_to_say,
        trust_pickle=conversion.source.trusted_pickle,
    )
    report = replace(report, files=files, next_commands=commands)
    (folder / "report.json").write_text(json.dumps(report.to_json(), indent=1), "utf-8")
    if "md" in forms:
        (folder / "report.md").write_text(to_markdown(report), "utf-8")
    if "html" in forms and importlib.util.find_spec("jinja2") is not None:
        (folder / "report.html").write_text(to_html(report), "utf-8")


def _check_target(target: Path, force: bool) -> None:
    check_name(target)
    if not target.exists() and not target.is_symlink():
        return
    ours = (target / RECORD).is_file()
    if is_empty(target) or (ours and force):
        return
    if ours:
        raise UsageError(
            f"{target} exists already; {way('--force replaces it, -o names another', 'force=True replaces it; or another')} "
            "folder"
        )
    what = "a folder with other files" if target.is_dir() else "a file"
    raise UsageError(f"{target} is {what} and is not overwritten; name another folder{way(' (-o)', '')}")
