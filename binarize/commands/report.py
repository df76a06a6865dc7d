"""`binarize report`: show a report again, in another format, or compare two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarize.atomic import whole_file
from binarize.commands import options
from binarize.commands.command import command
from binarize.commands.screen import Screen
from binarize.errors import SourceError, UsageError, did_you_mean
from binarize.file_name import is_file, is_folder

if TYPE_CHECKING:
    from binarize.report.model import Report

__all__ = ["report"]

_FORMATS = ("term", "json", "md", "html")


@command
def report(
    screen: Screen,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A converted model's folder, or report.json.")
    ],
    other: Annotated[Path | None, typer.Argument(metavar="DIR2", help="Show what differs here.")] = None,
    form: Annotated[str, typer.Option("--format", "-f", help=" | ".join(_FORMATS))] = "term",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to a file instead.")] = None,
    all_rows: options.AllRows = False,
    force: options.Force = False,
) -> None:
    """Show a report again, in another format, or compare two."""
    form = "json" if screen.json else form
    if form not in _FORMATS:
        raise UsageError(f'--format "{form}" is none of {", ".join(_FORMATS)}{did_you_mean(form, _FORMATS)}')
    first = read_report(folder)
    if other is not None:
        if form in ("md", "html"):
            raise UsageError(f"two reports are compared as term or json, not as {form}")
        _show_difference(screen, first, read_report(other))
        return
    if form == "term" and out is None:
        from binarize.report.terminal import render

        screen.show(render(first, all_rows=all_rows))
        return
    text = _written(first, form)
    if out is None:
        screen.write(text)
        return
    force = screen.hold(out).written or force
    if out.exists() and not force:
        raise UsageError(f"{out} exists; --force overwrites it")
    with whole_file(out, follow=True) as draft:
        draft.write_text(text, encoding="utf-8")
    screen.note(f"wrote {out}")


def read_report(path: Path) -> Report:
    """The report in a folder, or in a report.json itself.

    Raises: SourceError where there is none.
    """
    from binarize.record import read_json
    from binarize.report.model import Report

    file = path / "report.json" if is_folder(path) else path
    if not is_file(file):
        raise SourceError(
            f"{path}: no report.json here; `binarize convert` writes one into the folder it makes"
        )
    data = read_json(file)
    if not isinstance(data, dict):
        raise SourceError(f"{file}: expected a report, found a JSON {type(data).__name__}")
    return Report.from_json(data)


def _written(report: Report, form: str) -> str:
    if form == "json":
        return json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n"
    if form == "md":
        from binarize.report.markdown import to_markdown

        return to_markdown(report)
    if form == "html":
        from binarize.report.html import to_html

        return to_html(report)
    raise UsageError("--out takes --format json, md or html")


def _show_difference(screen: Screen, before: Report, after: Report) -> None:
    from binarize.report.difference import diff

    difference = diff(before, after)
    screen.document(difference.to_json())
    if not screen.json:
        from binarize.report.terminal import render_difference

        screen.show(render_difference(difference))
