"""A progress bar that takes its line away before anything else is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["Bar"]


class Bar:
    """One line on a terminal; nothing where there is none."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._progress: Progress | None = None

    def at(self, done: int, total: int, text: str) -> None:
        """Draw it; the first call after `clear` begins anew."""
        if self._console is None:
            return
        if self._progress is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
                # Results go where they belong, also where that is a file.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._progress.add_task(text, total=total)
            self._progress.start()
        task = self._progress.task_ids[0]
        self._progress.update(task, completed=done, total=total, description=text)

    def clear(self) -> None:
        """Take it away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
