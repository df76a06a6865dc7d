"""pytorch-lightning's Trainer as we use it: its loop, devices and precision; our metrics, checkpoints and words."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from lightning_fabric.plugins import TorchCheckpointIO

from binarize.disk.atomic import whole_file
from binarize.disk.seal import is_sealed, save_sealed
from binarize.errors import SourceError, UsageError, did_you_mean, way
from binarize.schemes.recipe import Recipe
from binarize.sources import load_pickle_safely

__all__ = ["LOGGERS", "PRECISIONS", "Machine", "make_loggers", "make_trainer", "quiet"]

# What --precision takes -> what the trainer calls it.
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
# Logger -> the package that it needs. metrics.csv is always written.
LOGGERS = {"csv": "", "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


@dataclass(frozen=True)
class Machine:
    """On what a training runs."""

    # "auto", "cpu", "cuda" or "gpu", "mps".
    device: str = "auto"
    # Processes on each node, and nodes; under torchrun it says both.
    devices: int = 1
    nodes: int = 1
    precision: str = "32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(
                f'precision "{self.precision}" is none of {", ".join(PRECISIONS)}{did_you_mean(self.precision, PRECISIONS)}'
            )

    @classmethod
    def here(cls, device: str = "auto", devices: int = 1, nodes: int = 1, precision: str = "32") -> Machine:
        """The same, with the processes that torchrun has started."""
        if "LOCAL_WORLD_SIZE" in os.environ and "WORLD_SIZE" in os.environ:
            devices = int(os.environ["LOCAL_WORLD_SIZE"])
            nodes = int(os.environ["WORLD_SIZE"]) // devices
        return cls({"cuda": "gpu"}.get(device, device), devices, nodes, precision)

    @property
    def world(self) -> int:
        """All processes."""
        return self.devices * self.nodes


class SealedCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written whole, beside the one before, and that carry their digest.

    The trainer's own writer makes a draft in the system's temporary folder, where a killed process leaves it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Replace the file. Raises: OSError, where the disk refuses."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(Path(path)) as draft:
            save_sealed(checkpoint, draft)

    def load_checkpoint(self, path: str | Path, *arguments: object, **options: object) -> dict[str, Any]:
        """What the file holds, read without torch's unpickler.

        Raises: CheckError, where its digest is another; SourceError, where it is damaged otherwise.
        """
        is_sealed(Path(path))
        found = load_pickle_safely(path)
        if not isinstance(found, dict):
            raise SourceError(f"{path}: no checkpoint of a training")
        return found


def make_trainer(
    machine: Machine,
    recipe: Recipe,
    callbacks: Sequence[lightning.Callback],
    *,
    loggers: Sequence[Any] = (),
    validate: bool = True,
    progress: bool = False,
    folder: Path | None = None,
) -> lightning.Trainer:
    """A trainer for one stage. Raises: UsageError for devices that are not there."""
    try:
        return lightning.Trainer(
            accelerator=machine.device,
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy="ddp" if machine.world > 1 else "auto",
            precision=PRECISIONS[machine.precision],  # type: ignore[arg-type]
            max_epochs=recipe.epochs,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip_gradients or None,
            logger=list(loggers) or False,
            callbacks=[*callbacks, *_progress(progress)],
            plugins=[SealedCheckpoints()],
            default_root_dir=folder,
            limit_val_batches=1.0 if validate else 0,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            # Our loaders divide the images among the processes themselves.
            use_distributed_sampler=False,
        )
    except (lightning.utilities.exceptions.MisconfigurationException, ValueError) as error:
        raise UsageError(f"device {machine.device} x {machine.devices}: {error}") from error


def _progress(wanted: bool) -> list[lightning.Callback]:
    if not wanted:
        return []
    from pytorch_lightning.callbacks import RichProgressBar

    return [RichProgressBar(leave=False)]


def make_loggers(names: Sequence[str], folder: Path | None) -> list[Any]:
    """Loggers by name, writing below the folder. Raises: UsageError for an unknown one or a missing package."""
    found: list[Any] = []
    for name in names:
        if name not in LOGGERS:
            raise UsageError(
                f'no logger "{name}" (known are {", ".join(LOGGERS)}){did_you_mean(name, LOGGERS)}'
            )
        package = LOGGERS[name]
        if package and importlib.util.find_spec(package) is None:
            raise UsageError(f"the logger {name} needs the package {package}: pip install {package}")
        if name == "csv":
            continue
        if folder is None:
            raise UsageError(f"the logger {name} needs a folder to write to ({way('-o', 'out=...')})")
        from pytorch_lightning import loggers

        if name == "tensorboard":
            found.append(loggers.TensorBoardLogger(folder, name="tensorboard", version=""))
        elif name == "wandb":
            found.append(loggers.WandbLogger(save_dir=folder, project="binarize", name=folder.name))
        else:
            found.append(loggers.MLFlowLogger(folder.name, tracking_uri=f"file:{folder / 'mlruns'}"))
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, the trainer's own messages and hints are left out; its errors are not."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for package in ("pytorch_lightning", "lightning_fabric", "torchmetrics"):
                warnings.filterwarnings("ignore", module=package)
            yield
    finally:
        logger.setLevel(level)
