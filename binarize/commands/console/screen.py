"""Where a command's output goes: results for people, notes beside them, one JSON document for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from binarize.commands.console.bar import Bar
from binarize.disk.claim import Claim, claimed
from binarize.shown_text import json_shown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Screen"]

# Columns when the output is no terminal and COLUMNS says nothing: what a log shows without wrapping.
_WIDTH = 120


@dataclass(frozen=True)
class Screen:
    """The output of one command.

    With `json`, stdout carries one JSON document and everything for people goes to stderr.
    """

    json: bool = False
    plain: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    # Where the document goes. While a command runs with `json`, sys.stdout is stderr, whoever prints to it.
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    # What each stage took so far.
    seconds: dict[str, float] = field(default_factory=dict)
    # The command, and what tells it from the same command with other words or from elsewhere.
    command: str = ""
    words: str = ""
    # What ends with the command.
    ending: ExitStack = field(default_factory=ExitStack)

    def hold(self, target: Path, *, parents: bool = False) -> Claim:
        """Keep what is written to from other processes, until the command ends; what is known of the same one killed.

        With `parents` the folders above are made.

        Raises: UsageError, where another process writes it.
        """
        return self.ending.enter_context(claimed(target, self.command, self.words, parents=parents))

    def show(self, what: RenderableType) -> None:
        """A result."""
        self._results.print(what, crop=False)

    def note(self, text: str) -> None:
        """Something good to know, not part of the result."""
        if not self.quiet:
            self._notes.print(text, style="dim")

    def next(self, command: str) -> None:
        """What may be typed next, on one line however long it is."""
        if not self.quiet:
            self._notes.print(f"next: {command}", style="dim", soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        self._labelled("warning", "bold yellow", text)

    def error(self, text: str) -> None:
        """Why the command stops."""
        self._labelled("error", "bold red", text)

    def document(self, data: object) -> None:
        """The JSON document on stdout, for `--json` alone."""
        if self.json:
            self.write(json_shown(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)) + "\n")

    def write(self, text: str) -> None:
        """A result to be read by programs, as it is."""
        self.stdout.write(text)
        self.stdout.flush()

    @property
    def animated(self) -> bool:
        """Whether something may move: on a terminal, unless plain or quiet is asked for."""
        return self._notes.is_terminal and not (self.plain or self.quiet)

    def bar(self) -> Bar:
        """A progress bar beside the notes; `clear` it before printing."""
        return Bar(self._notes if self.animated else None)

    @contextmanager
    def stage(self, doing: str) -> Iterator[None]:
        """Says what is being done: a spinner on a terminal, a line with its seconds if verbose."""
        started = time.perf_counter()
        if self.animated:
            with self._notes.status(doing):
                yield
        else:
            yield
        self.seconds[doing] = time.perf_counter() - started
        if self.verbose:
            self._notes.print(f"{self.seconds[doing]:6.2f} s  {doing}", style="dim")

    def _labelled(self, label: str, style: str, text: str) -> None:
        from rich.text import Text

        # Messages may point at a column of a file: no wrapping, so that the caret stays where it points.
        self._notes.print(Text.assemble((label, style), "  ", text), soft_wrap=True)

    @cached_property
    def _results(self) -> Console:
        return self._notes if self.json else self._console(to_stderr=False)

    @cached_property
    def _notes(self) -> Console:
        return self._console(to_stderr=True)

    def _console(self, *, to_stderr: bool) -> Console:
        from binarize.report.drawing.console import PlainConsole

        stream = sys.stderr if to_stderr else sys.stdout
        narrow = stream.isatty() or "COLUMNS" in os.environ
        return PlainConsole(
            stderr=to_stderr,
            highlight=False,
            markup=False,
            emoji=False,
            no_color=self.plain or None,
            force_terminal=False if self.plain else None,
            width=None if narrow else _WIDTH,
        )
