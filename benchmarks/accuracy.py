"""Accuracies on Fashion-MNIST and MNIST, each row by one command: python benchmarks/accuracy.py ROW [--seed N]

Everything goes through `binarize.convert`, `finetune` and `evaluate`, on one thread, in bf16 autocast unless the row says
otherwise; the final evaluation is in float32, once, on the test images. A row that needs a float network trains it first,
once a seed. A killed run goes on where it was when the same command is given again. Results are lines of
benchmarks/results/accuracy.jsonl; --table prints them all, --list the rows, --depth FILE.svg what shortcuts bring to plain
networks of several depths; --page docs/accuracy.md writes the tables of that page anew, from these results, those of
calibration.py and, with --study FOLDER, of `binarize study examples/studies/schemes.yaml`.

The data: `apt-get install dataset-fashion-mnist`, and the four original IDX files of MNIST in a folder (--mnist).

Choices are made with --trial, which judges by 5,000 training images that are held out and leaves the test images alone;
with it --set, --epochs, --images, --scheme, --shortcuts and --rules change a row:

    python benchmarks/accuracy.py fashion-w1a1 --trial --images 20000 --epochs 5 --set label_smoothing=0.1
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from accuracy_depth import depth_table, draw_depth
from accuracy_page import update_page
from accuracy_rows import ROWS, Row
from accuracy_table import table
from networks import SIDES, make
from torch import Tensor, nn

import binarize
from binarize.rules.text import parse_value
from binarize.training.data import Preprocessing, open_data
from binarize.training.data.seeds import generator
from binarize.training.records.folder import TrainingFolder

# Training images on which choices are made.
HELD_OUT = 5000
EXAMPLES = 512
# Mean and deviation of the training pixels, in 0..1.
PIXELS = {"fashion": (0.2860, 0.3530), "mnist": (0.1307, 0.3081)}


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(1)
    if arguments.all:
        runner = Runner(arguments)
        for name in (name for name in ROWS if fnmatch(name, arguments.all)):
            say(runner.run(name, ROWS[name], arguments.seed))
        return 0
    if arguments.list or (
        arguments.row is None and not (arguments.table or arguments.depth or arguments.page)
    ):
        print("\n".join(f"{name:44s} {row.describe()}" for name, row in ROWS.items()))
        return 0
    if arguments.depth is not None:
        found = [line for line in stored(arguments.results) if _is_current(line)]
        print(depth_table(found))
        draw_depth(found, arguments.depth)
        return 0
    if arguments.page is not None:
        found = [line for line in stored(arguments.results) if _is_current(line)]
        calibrations = stored(arguments.results, "calibration.jsonl")
        print(
            f"{arguments.page}: {', '.join(update_page(arguments.page, found, calibrations, arguments.study))}"
        )
        return 0
    if arguments.table:
        print(table([line for line in stored(arguments.results) if _is_current(line)]))
        return 0
    if arguments.row not in ROWS:
        print(f"no row {arguments.row}; --list shows all", file=sys.stderr)
        return 2
    row = _changed(ROWS[arguments.row], arguments)
    say(Runner(arguments).run(arguments.row, row, arguments.seed))
    return 0


def say(result: Mapping[str, Any]) -> None:
    """Print a result in one line."""
    print(
        f"{result['name']}  seed {result['seed']}  top-1 {100 * result['top1']:.2f} % of {result['on']}"
        + (f" (float {100 * result['float']:.2f} %)" if result.get("float") else "")
        + f"  {result['minutes']:.1f} minutes, {result['cpu_epoch']:.1f} processor seconds an epoch",
        flush=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="print the recorded results")
    parser.add_argument(
        "--depth", type=Path, metavar="SVG", help="print what shortcuts bring by depth, and draw it"
    )
    parser.add_argument("--page", type=Path, metavar="MD", help="write the tables of this page anew")
    parser.add_argument(
        "--study", type=Path, metavar="FOLDER", help="the study of the page's table of schemes"
    )
    parser.add_argument("--all", metavar="GLOB", help="all rows of such names, one after another")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--mnist", type=Path, default=Path("data/mnist"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--trial", action="store_true", help="judge by held-out training images")
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--scheme")
    parser.add_argument("--shortcuts")
    parser.add_argument("--rules", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    return parser.parse_args()


def _changed(row: Row, arguments: argparse.Namespace) -> Row:
    given = {key: getattr(arguments, key) for key in ("images", "epochs", "scheme", "shortcuts")}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if arguments.scheme is not None:
        changes["rules"] = None
    if arguments.rules is not None:
        changes["rules"] = str(arguments.rules.absolute())
    recipe = {}
    for text in arguments.changes:
        key, _, value = text.partition("=")
        recipe[key] = parse_value(value, f"--set {key}")
    if (changes or recipe) and not arguments.trial:
        raise SystemExit("a changed row is no row of the table: give --trial too")
    return replace(row, **changes, recipe={**row.recipe, **recipe})


class Runner:
    """Carries out rows with the data at hand."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.paths = {"fashion": arguments.fashion, "mnist": arguments.mnist}
        self.trial = bool(arguments.trial)
        self.results: Path = arguments.results

    def run(self, name: str, row: Row, seed: int) -> dict[str, Any]:
        """The result of a row: the recorded one, or a new one that is then recorded."""
        key = {"name": name, "seed": seed, "trial": self.trial, "row": _plain(row)}
        for line in stored(self.results):
            same = all(line.get(field) == value for field, value in key.items() if field != "row")
            if same and _of_row(line["row"]) == key["row"]:
                return line
        started = time.process_time()
        train, held = self._images(row)
        preprocessing = _preprocessing(row)
        teacher: nn.Module | None = None
        source: dict[str, Any] = {}
        if not row.is_float:
            source = self.run(row.source_name, row.source(), seed)
            teacher = make(row.network, seed)
            _load_weights(teacher, self._folder(row.source_name, row.source(), seed))
        folder = self._folder(name, row, seed)
        resume = _resumable(folder, key["row"])
        model = self._model(row, seed, teacher, train[0], preprocessing)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _row_file(folder).write_text(json.dumps(key["row"]), "utf-8")
        begun = time.process_time()
        trained = binarize.finetune(
            model,
            train,
            validation=held if self.trial else False,
            epochs=row.epochs,
            recipe=dict(row.recipe),
            teacher=[teacher] if teacher is not None and row.teaches else "none",
            preprocessing=preprocessing,
            out=folder,
            resume=resume,
            force=not resume,
            seed=seed,
            device="cpu",
            precision=row.precision,
            channels_last=True,
        )
        spent = time.process_time() - begun
        images = held if self.trial else self._test(row)
        found = binarize.evaluate(trained, images, preprocessing=preprocessing)
        assert found.model is not None
        rows = _metrics(folder)
        result = {
            **key,
            "top1": found.model.top1,
            "loss": found.model.loss,
            "on": f"{found.images:,} {'held-out training' if self.trial else 'test'} images",
            "float": source.get("top1"),
            "classes": [score.share for score in found.model.classes],
            "curve": [float(line["loss"]) for line in rows],
            "minutes": sum(float(line["seconds"]) for line in rows) / 60,
            # A resumed run does not know what was spent before.
            "cpu_epoch": float("nan") if resume else spent / len(rows),
            "cpu": time.process_time() - started,
            "resumed": resume,
        }
        record(self.results, result)
        return result

    def _images(self, row: Row) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(training images and labels, those held out); with 55,000 images or fewer none is in both."""
        images, labels = self._open(row, "train")
        order = torch.randperm(len(images), generator=generator(0, len(images)))
        held, rest = order[:HELD_OUT], order[HELD_OUT:]
        count = row.images or len(images)
        chosen = rest[:count] if self.trial or count <= len(rest) else order
        return (images[chosen], labels[chosen]), (images[held], labels[held])

    def _test(self, row: Row) -> tuple[Tensor, Tensor]:
        return self._open(row, "validation")

    def _open(self, row: Row, split: str) -> tuple[Tensor, Tensor]:
        data = open_data(f"idx:{self.paths[row.data]}", split)
        assert data is not None
        dataset: Any = data.dataset
        return dataset.images, dataset.labels

    def _folder(self, name: str, row: Row, seed: int) -> Path:
        text = json.dumps(asdict(row), sort_keys=True)
        mark = f"-{abs(hash_of(text)) % 16**6:06x}" if self.trial else ""
        return self.results / "accuracy" / f"{name}-{seed}{mark}"

    def _model(
        self,
        row: Row,
        seed: int,
        teacher: nn.Module | None,
        images: Tensor,
        preprocessing: Preprocessing,
    ) -> nn.Module:
        from binarize.training.data.tensors import TensorImages, normalized

        if teacher is None:
            return make(row.network, seed)
        start = teacher if row.start == "float" else make(row.network, seed)

        def first(count: int) -> Tensor:
            few = TensorImages(images[:count], None).fitted(preprocessing)
            return normalized(few.images, preprocessing)

        model = binarize.convert(
            start,
            row.scheme if row.rules is None else None,
            rules=None if row.rules is None else Path(__file__).parent / row.rules,
            shortcuts=row.shortcuts,
            overrides=list(row.overrides),
            keep_first=row.keep_ends,
            keep_last=row.keep_ends,
            example_input=first(EXAMPLES),
            seed=seed,
        )
        if row.calibrated:
            binarize.calibrate(model, first(row.calibrated), teacher, steps=row.steps)
        return model


def hash_of(text: str) -> int:
    """A number for a text, the same in every process."""
    import zlib

    return zlib.crc32(text.encode())


def _preprocessing(row: Row) -> Preprocessing:
    side = SIDES.get(row.network, 28)
    mean, std = PIXELS[row.data]
    return Preprocessing((1, side, side), (mean,), (std,), origin="mean and deviation of the training pixels")


def _row_file(folder: Path) -> Path:
    """Which row a training folder is of."""
    return folder.with_name(f"{folder.name}.json")


def _resumable(folder: Path, row: Mapping[str, Any]) -> bool:
    """Whether the folder holds an unfinished training of this very row."""
    training, path = TrainingFolder(folder), _row_file(folder)
    same = path.is_file() and _of_row(json.loads(path.read_text("utf-8"))) == row
    return same and training.checkpoint.is_file() and not training.record().get("finished")


def _load_weights(model: nn.Module, folder: Path) -> None:
    from safetensors.torch import load_model

    load_model(model, str(folder / "model.safetensors"))


def _metrics(folder: Path) -> list[Mapping[str, str]]:
    import csv

    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _is_current(line: Mapping[str, Any]) -> bool:
    """Whether a result is of a row as it is now: a row that was changed since has another."""
    sources = {row.source_name: row.source() for row in ROWS.values()}
    row = {**sources, **ROWS}.get(line["name"])
    return row is not None and _plain(row) == _of_row(line["row"])


def _of_row(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded row with the fields that rows did not have then, as they are by default."""
    return {**_plain(Row()), **recorded}


def _plain(row: Row) -> dict[str, Any]:
    """A row as JSON gives it back."""
    data: dict[str, Any] = json.loads(json.dumps(asdict(row)))
    return data


def stored(folder: Path, name: str = "accuracy.jsonl") -> list[dict[str, Any]]:
    """The results recorded in a folder."""
    path = folder / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def record(folder: Path, result: Mapping[str, Any]) -> None:
    """Append a result to those of the folder."""
    folder.mkdir(exist_ok=True)
    with (folder / "accuracy.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
