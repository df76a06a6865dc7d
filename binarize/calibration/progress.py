"""What an interrupted calibration had worked out, so that the same calibration goes on from there.

Steps of Adam take nearly all of a calibration's time; thresholds, statistics and fits are the same when they are computed
again. So the file holds what each layer was trained to, and where the steps of all layers together stood. It is written
at most every few seconds, whole or not at all, with its digest, and read only by the calibration that wrote it: same
model, float model, images and options.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from binarize.disk.atomic import whole_file
from binarize.disk.seal import is_sealed, save_sealed
from binarize.errors import CheckError, SourceError
from binarize.sources import load_pickle_safely

__all__ = ["Progress", "Tick", "Watch"]

# Is told what was done, how many of it, and of how many.
Tick = Callable[[str, int, int], None]

_FORMAT = 1
# Between two writings at least, and so many times what the last one took.
SECONDS = 10.0
_SHARE = 20


class Progress:
    """The file, and what it holds.

    `path`  None: nothing is kept
    `key`   what tells one calibration from another; a file with another key is begun anew
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self.path, self.key = path, key
        self._layers: dict[str, dict[str, Any]] = {}
        self._joint: dict[str, Any] | None = None
        self._written, self._pause = time.monotonic(), SECONDS
        found = self._read()
        if found is not None:
            self._layers, self._joint = found["layers"], found.get("joint")

    def layer(
        self,
        name: str,
        parameters: Sequence[Tensor],
        generator: torch.Generator,
        train: Callable[[], tuple[float, float]],
    ) -> tuple[float, float]:
        """(error before, after) of a layer: `train` changes its parameters and draws from the generator, once ever."""
        kept = self._layers.get(name)
        if kept is not None and [value.shape for value in kept["parameters"]] == [
            p.shape for p in parameters
        ]:
            with torch.no_grad():
                for parameter, value in zip(parameters, kept["parameters"]):
                    parameter.copy_(value)
            generator.set_state(kept["generator"])
            return float(kept["errors"][0]), float(kept["errors"][1])
        errors = train()
        if self.path is not None:
            self._layers[name] = {
                "parameters": [parameter.detach().cpu().clone() for parameter in parameters],
                "generator": generator.get_state(),
                "errors": list(errors),
            }
            self._write()
        return errors

    def joint(self) -> dict[str, Any] | None:
        """What `keep_joint` was given last."""
        return self._joint

    def keep_joint(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep where the steps of all layers stand, if it is time to write again."""
        if self.path is not None and self._is_time():
            self._joint = state()
            self._write()

    def _is_time(self) -> bool:
        return time.monotonic() - self._written >= self._pause

    def _write(self) -> None:
        if self.path is None or not self._is_time():
            return
        begun = time.monotonic()
        record = {"format": _FORMAT, "key": self.key, "layers": self._layers, "joint": self._joint}
        try:
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self.path) as draft:
                save_sealed(record, draft)
        except OSError as error:
            warnings.warn(f"{self.path}: the calibration goes on without being kept: {error}", stacklevel=2)
            self.path = None
        self._written = time.monotonic()
        # A large model takes long to write; it may not take long from the work.
        self._pause = max(SECONDS, _SHARE * (self._written - begun)) if SECONDS else 0.0

    def _read(self) -> dict[str, Any] | None:
        """What the file holds for this calibration; None where it is another's. Nothing in it can run code.

        Raises: CheckError, where it is damaged.
        """
        if self.path is None or not self.path.is_file():
            return None
        try:
            if not is_sealed(self.path):
                return None  # of a version that wrote no digest
        except CheckError as error:
            raise CheckError(f"{error}\n  remove it, and the calibration begins anew") from error
        try:
            found = load_pickle_safely(self.path)
        except SourceError:  # what it held is worked out again
            return None
        return found if _is_progress(found, self.key) else None


def _tell_nobody(name: str, done: int, of: int) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """Who is told how far a calibration is, and what keeps what it has trained."""

    tick: Tick = _tell_nobody
    progress: Progress = field(default_factory=Progress)


def _is_progress(found: object, key: str) -> TypeGuard[dict[str, Any]]:
    """Whether a file holds what this calibration would have written."""
    if not isinstance(found, dict) or not isinstance(found.get("layers"), dict):
        return False
    said, joint = (found.get("format"), found.get("key")), found.get("joint")
    return (
        [type(value) for value in said] == [int, str]
        and said == (_FORMAT, key)
        and all(_is_layer(layer) for layer in found["layers"].values())
        and (joint is None or _is_joint(joint))
    )


def _is_layer(found: object) -> bool:
    return (
        isinstance(found, dict)
        and isinstance(found.get("parameters"), list)
        and all(_is_plain(value) for value in found["parameters"])
        and _are_numbers(found.get("errors"))
        and len(found["errors"]) == 2
        and _is_state(found.get("generator"))
    )


def _is_plain(found: object) -> bool:
    """Whether a parameter takes its numbers."""
    return (
        isinstance(found, Tensor)
        and found.device.type == "cpu"
        and found.layout == torch.strided
        and found.is_floating_point()
    )


def _is_joint(found: object) -> bool:
    return (
        isinstance(found, dict)
        and all(isinstance(found.get(name), dict) for name in ("model", "optimizer"))
        and _are_numbers(found.get("losses"))
        and _is_state(found.get("generator"))
    )


def _are_numbers(found: object) -> bool:
    return isinstance(found, list) and all(type(value) in (int, float) for value in found)


def _is_state(found: object) -> bool:
    """Whether a generator takes it."""
    try:
        torch.Generator().set_state(found)  # type: ignore[arg-type]
    except (RuntimeError, TypeError):
        return False
    return True
