"""Exported files side by side: python benchmarks/export.py [--format FORMAT ...] [--scheme NAME ...] [MODEL|DIR ...]

For each torchvision model with random weights (its norms have the statistics of noise), converted by each scheme, or
for each saved folder: the size of the file next to what its numbers take at least and to the float model's ONNX file;
how the exporter's own check ended; and one thread's time for one image, next to ONNX Runtime's for the float model
(medians of rounds that take turns). No accuracy is claimed.

What is done already is read back from results/export.jsonl (delete the line to do it again).
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

MODELS = ("resnet18", "vgg11", "mobilenet_v2", "densenet121")
CLASSES, ROUNDS = 1000, 15
RESULTS = Path(__file__).parent / "results" / "export.jsonl"
Run = Callable[[], Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL|DIR")
    parser.add_argument("--format", nargs="+", default=list(RUNNERS), choices=list(RUNNERS))
    parser.add_argument("--scheme", nargs="+", default=["bireal"])
    parser.add_argument("--side", type=int, default=224, help="of the images")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)

    import torch

    torch.set_num_threads(1)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    done = {result["name"]: result for result in map(json.loads, lines)}
    print(HEAD)
    for model in arguments.models:
        folder = Path(model).is_dir()
        for scheme in ["saved"] if folder else arguments.scheme:
            missing = []
            for format in arguments.format:
                name = f"{Path(model).name} {scheme} {format}" + ("" if folder else f" {arguments.side}")
                if name in done:
                    print(row(done[name]), flush=True)
                else:
                    missing.append((name, format))
            if not missing:
                continue
            case = saved(Path(model)) if folder else made(model, scheme, arguments.side)
            for name, format in missing:
                done[name] = {"name": name, **measure(*case, format)}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(done[name]) + "\n")
                print(row(done[name]), flush=True)
    return 0


def made(name: str, scheme: str, side: int) -> tuple[Any, Any, Any]:
    """(the float model, the packed one, an example) of a torchvision model."""
    import torch
    import torchvision

    import binarize
    from benchmarks.packed import settle
    from binarize.exporters.prepare import prepared

    torch.manual_seed(0)
    source = torchvision.models.get_model(name, weights=None, num_classes=CLASSES).eval()
    example = torch.randn(1, 3, side, side)
    binary = binarize.convert(source, scheme, example_input=example)
    settle(binary)
    return (source, *prepared(binary, example, None))


def saved(folder: Path) -> tuple[None, Any, Any]:
    """The same of a saved folder, whose float model nobody knows."""
    from binarize.exporters.prepare import prepared

    return (None, *prepared(folder, None, None))


def measure(source: Any, packed: Any, example: Any, format: str) -> dict[str, Any]:
    """One row."""
    from binarize.errors import BinarizeError
    from binarize.exporters.export import FORMATS, writer_of
    from binarize.exporters.theory import constants_in_theory

    writer = writer_of(format)
    with tempfile.TemporaryDirectory() as folder:
        path, plain = Path(folder) / f"net{FORMATS[format]}", Path(folder) / "float.onnx"
        started = time.perf_counter()
        try:
            facts = dict(writer.write(packed, example, path).facts)
        except BinarizeError as error:
            return {"refused": str(error)}
        seconds = time.perf_counter() - started
        files = [file for file in Path(folder).iterdir() if file != plain]
        result = {"bytes": sum(file.stat().st_size for file in files), "theory": constants_in_theory(packed)}
        runs: dict[str, Run] = {}
        start = RUNNERS[format]
        if start is not None:
            runs["ms"] = start(path, example)
        if source is not None:
            write_float(source, example, plain)
            result["float_bytes"] = plain.stat().st_size
            runs["float_ms"] = run_onnx(plain, example)
        return {**facts, **result, **times(runs), "seconds": round(seconds, 1)}


def write_float(source: Any, example: Any, path: Path) -> None:
    """The float model as torch.onnx writes it."""
    import torch

    program = torch.onnx.export(source, example[0], kwargs=dict(example[1]), dynamo=True, verbose=False)
    program.save(path)


def run_onnx(path: Path, example: Any) -> Run:
    """One image through ONNX Runtime on one thread."""
    from binarize.exporters.onnx.check import open_file, run

    session, one = open_file(path), first_row(example)
    return lambda: run(session, one)


def run_pt2(path: Path, example: Any) -> Run:
    """One image through the packed kernels, called by the program."""
    import torch

    from binarize.exporters.program import answers

    module, one = torch.export.load(path).module(), first_row(example)
    return lambda: answers(module, one)


def run_openvino(path: Path, example: Any) -> Run:
    """One image through OpenVINO in float32 on one thread."""
    from binarize.exporters.openvino.check import open_file
    from binarize.exporters.program import tensors_of

    compiled, one = open_file(path, first_row(example)), [x.numpy() for x in tensors_of(first_row(example))]
    return lambda: compiled(one)


def first_row(example: Any) -> Any:
    """A batch of one."""
    from binarize.exporters.program import with_rows

    return with_rows(example, 1, seed=0)


# Format -> what makes a run of a file; None where nothing here runs it.
RUNNERS: Mapping[str, Callable[[Path, Any], Run] | None] = {
    "onnx": run_onnx,
    "qonnx": None,
    "pt2": run_pt2,
    "openvino": run_openvino,
}


def times(runs: Mapping[str, Run]) -> dict[str, float]:
    """Milliseconds of each run, by the clock of this process alone: other programs may hold the processor."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            started = time.process_time()
            run()
            taken[name].append(1e3 * (time.process_time() - started))
    # The first round warms up.
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


HEAD = (
    f"{'model, scheme, format':38} {'file':>11} {'theory':>11} {'over':>7} {'float':>12} {'same class':>10} "
    f"{'difference':>10} {'ms':>7} {'float':>7}"
)


def row(result: Mapping[str, Any]) -> str:
    """One line of the table."""
    if "refused" in result:
        return f"{result['name']:38} refused: {result['refused']}"
    over = f"{100 * (result['bytes'] / result['theory'] - 1):.1f} %"
    same = "-" if result.get("same_class") is None else f"{result['same_class']} of {result['inputs']}"
    difference = f"{result['largest_difference']:.1e}" if "largest_difference" in result else "-"
    columns = [
        f"{result['name']:38} {result['bytes']:>11,} {result['theory']:>11,} {over:>7}",
        f"{result['float_bytes']:>12,}" if "float_bytes" in result else f"{'-':>12}",
        f"{same:>10} {difference:>10}",
        *(f"{result[key]:>7.1f}" if key in result else f"{'-':>7}" for key in ("ms", "float_ms")),
    ]
    return " ".join(columns)


if __name__ == "__main__":
    sys.exit(main())
