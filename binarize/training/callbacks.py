"""What goes on beside the training: rows of metrics, checkpoints, and signals that ask for an end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as lightning
from pytorch_lightning import Trainer

from binarize.disk.atomic import whole_file
from binarize.errors import CheckError, StoppedError, way
from binarize.training.loop.nonfinite import broken_parameter
from binarize.training.loop.task import FineTuning
from binarize.training.records.metrics import MetricsFile, Row

__all__ = ["Checkpoints", "Rows", "Signals"]


class Rows(lightning.Callback):
    """Writes each epoch's row to metrics.csv, to the loggers and to whoever listens; and the names of unreadable images."""

    def __init__(
        self,
        file: MetricsFile | None,
        listen: Callable[[Row], None] | None = None,
        tick: Callable[[int, int, int], None] | None = None,
    ) -> None:
        self.file, self.listen, self.tick = file, listen, tick
        self.rows: list[Row] = []
        self._named = 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        assert isinstance(module, FineTuning)
        if self.tick is not None and trainer.is_global_zero:
            self.tick(trainer.current_epoch + 1, batch_idx + 1, module.batches)

    def on_train_epoch_end(self, trainer: Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, FineTuning)
        row = module.epoch_row()
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        if self.file is not None:
            self.file.append(row)
            if len(module.unreadable) > self._named:
                self._named = len(module.unreadable)
                text = "".join(f"{line}\n" for line in module.unreadable)
                with whole_file(self.file.path.with_name("unreadable.txt")) as draft:
                    draft.write_text(text, encoding="utf-8")
        numbers = {key: value for key, value in row.items() if isinstance(value, (int, float))}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
        if self.listen is not None:
            self.listen(row)


class Signals:
    """Notes SIGINT and SIGTERM instead of dying of them; a second one ends the process as usual.

    Handlers can only be set in the main thread; elsewhere nothing is noted.
    """

    NOTED = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self._before = {number: signal.getsignal(number) for number in self.NOTED}
        return self

    def install(self) -> None:
        """From now on. The trainer sets a handler of its own around one that it finds, so that this is said again."""
        if threading.current_thread() is threading.main_thread():
            for number in self.NOTED:
                signal.signal(number, self._note)

    def __exit__(self, *error: object) -> None:
        """As it was at the entry."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: object) -> None:
        if self.received is not None:
            self.__exit__()
            signal.raise_signal(number)
            return
        self.received = signal.Signals(number)


class Checkpoints(lightning.Callback):
    """Saves after each epoch, every few minutes or steps, and when a signal asks for an end.

    A file is written beside its place and then renamed, so a killed process leaves the one before. Weights that are not
    finite are never saved.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        minutes: float = 5.0,
        steps: int | None = None,
        how_to_resume: str = "",
    ) -> None:
        self.path, self.minutes, self.steps, self.how_to_resume = path, minutes, steps, how_to_resume
        self.signals = Signals()
        self._saved = time.monotonic()

    def on_fit_start(self, trainer: Trainer, module: lightning.LightningModule) -> None:
        self.signals.install()
        self._saved = time.monotonic()

    def on_train_start(self, trainer: Trainer, module: lightning.LightningModule) -> None:
        # The trainer has set handlers of its own in between, by which it ends at some points without a word.
        self.signals.install()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        assert isinstance(module, FineTuning)
        stepped = (batch_idx + 1) % module.stage.recipe.accumulate == 0
        if not stepped or batch_idx + 1 >= module.batches:
            return  # the end of the epoch saves
        stop = _agreed(trainer, self.signals.received is not None)
        if stop or _agreed(trainer, self._due(trainer)):
            self._save(trainer, module)
        if stop:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: lightning.LightningModule) -> None:
        self._save(trainer, module)
        if _agreed(trainer, self.signals.received is not None):
            self._stop(trainer)

    def _due(self, trainer: Trainer) -> bool:
        if self.path is None:
            return False
        if self.steps is not None and trainer.global_step % self.steps == 0:
            return True
        return time.monotonic() - self._saved >= 60 * self.minutes

    def _save(self, trainer: Trainer, module: lightning.LightningModule) -> None:
        if self.path is None:
            return
        assert isinstance(module, FineTuning)
        if (name := broken_parameter(module.model)) is not None:
            raise CheckError(module._stopped(f"{name} is not finite"))
        trainer.save_checkpoint(self.path)
        module.last_checkpoint = str(self.path)
        self._saved = time.monotonic()

    def interrupted(self, when: str) -> NoReturn:
        """For an end at which nothing new can be saved: the trainer's own, or that of the processes that read images.

        Raises: StoppedError.
        """
        kept = self.path is not None and self.path.is_file()
        where = f"{self.path} is as it was" if kept else "nothing was saved"
        name = "SIGTERM" if self.signals.received is None else self.signals.received.name
        raise StoppedError(f"interrupted by {name} {when}; {where}{self._again()}")

    def _stop(self, trainer: Trainer) -> None:
        name = (
            self.signals.received.name if self.signals.received is not None else "a signal to another process"
        )
        where = (
            f"saved as {self.path}"
            if self.path is not None
            else f"nothing was saved: no folder was given ({way('-o', 'out=...')})"
        )
        raise StoppedError(
            f"interrupted by {name} after step {trainer.global_step} (epoch {trainer.current_epoch + 1}); {where}"
            f"{self._again()}"
        )

    def _again(self) -> str:
        """How to go on, where there is a folder to go on in."""
        return f"\n  {self.how_to_resume}" if self.path is not None and self.how_to_resume else ""


def _agreed(trainer: Trainer, mine: bool) -> bool:
    """Whether any process says so: all of them must do the same."""
    return bool(trainer.strategy.reduce_boolean_decision(mine, all=False)) if trainer.world_size > 1 else mine
