"""Makes the table of architectures:  python -m binarize.sources.index.make [OUT] [--work FILE]

Builds every model of the installed torchvision and timm without data, with two other numbers of classes as well, to see
which tensors are the head; and those that hold the same tensors with random weights, to see whether they compute the
same. That may take an hour; what is done already stands in the work file, and running it again goes on.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from binarize.sources import architectures
from binarize.sources.index.fingerprints import Shapes, body_hash, names_hash, shapes_of, sketch
from binarize.sources.index.table import SHIPPED, Entry, Index, write_index
from binarize.sources.index.twins import compute_the_same
from binarize.sources.libraries.known import known_names

__all__ = ["default_classes", "heads_of", "main", "make_index"]

LIBRARIES = ("torchvision", "timm")
# Of what published weights ask for without a trace of it in the tensors, or with other tensors than the default.
VARIANTS = (
    "torchvision:googlenet(aux_logits=False)",
    "torchvision:googlenet(aux_logits=False, transform_input=True)",
    "torchvision:googlenet(transform_input=True)",
    "torchvision:inception_v3(aux_logits=False)",
    "torchvision:inception_v3(aux_logits=False, transform_input=True)",
    "torchvision:inception_v3(transform_input=True)",
    "torchvision:deeplabv3_mobilenet_v3_large(aux_loss=True)",
    "torchvision:deeplabv3_resnet101(aux_loss=True)",
    "torchvision:deeplabv3_resnet50(aux_loss=True)",
    "torchvision:fcn_resnet101(aux_loss=True)",
    "torchvision:fcn_resnet50(aux_loss=True)",
)
# Two numbers of classes that no architecture has by default.
CLASSES = (7, 13)
# Above this many parameters two models do not fit into an ordinary memory side by side: they count as different.
MOST_PARAMETERS = 250_000_000
# The side of the images on which they are compared where they take it.
SMALL = 96


def main() -> None:
    """Makes the table, going on from what the work file has."""
    parser = argparse.ArgumentParser(description="make the table of architectures")
    parser.add_argument("out", nargs="?", type=Path, default=SHIPPED)
    parser.add_argument("--work", type=Path, default=Path("architectures.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = [f"{library}:{name}" for library in LIBRARIES for name in known_names(library)]
    index = make_index([*names, *VARIANTS], given.work)
    write_index(index, given.out)
    print(f"wrote {given.out}: {len(index.entries)} architectures, {given.out.stat().st_size} bytes")


def make_index(archs: Sequence[str], work: Path) -> Index:
    """The table over some architectures. What the work file has already is not done again."""
    done = _read(work)
    rows = {row["arch"]: row for row in done if "arch" in row}
    for arch in archs:
        if arch not in rows:
            rows[arch] = _row(arch)
            _append(work, rows[arch])
            print(f"{len(rows)} of {len(archs)}: {arch} {rows[arch].get('error', '')}", flush=True)
    known = [rows[arch] for arch in archs if "error" not in rows[arch]]
    compared = {tuple(row["pair"]): row["same"] for row in done if "pair" in row}
    same_as = {row["arch"]: row["arch"] for row in known}
    for pair in _pairs(known, same_as):
        if pair not in compared:
            compared[pair] = _same(rows[pair[0]], rows[pair[1]])
            _append(work, {"pair": pair, "same": compared[pair]})
            print(f"{pair[0]} and {pair[1]}: {compared[pair]}", flush=True)
        if compared[pair] and _normalization(pair[0]) == _normalization(pair[1]):
            same_as[pair[1]] = pair[0]
    entries = [
        Entry(
            row["arch"],
            row["names"],
            row["body"],
            tuple(row["heads"]),
            row["classes"],
            tuple(row["sketch"]),
            same_as[row["arch"]],
        )
        for row in known
    ]
    versions = {library: importlib.metadata.version(library) for library in LIBRARIES}
    return Index(versions, tuple(entries))


def _row(arch: str) -> dict[str, Any]:
    """What one architecture adds to the table, or why it cannot be built."""
    try:
        built = architectures.build(arch, meta=True)
    except Exception as error:  # a builder that needs another library, or a broken one
        return {"arch": arch, "error": f"{type(error).__name__}: {error}"[:200]}
    shapes = shapes_of(built.module.state_dict())
    parameters = sum(parameter.numel() for parameter in built.module.parameters())
    seven, thirteen = (_with_classes(arch, built.module, number) for number in CLASSES)
    heads = heads_of(seven, thirteen)
    named = seven if heads else shapes
    return {
        "arch": arch,
        "names": names_hash(named),
        "body": body_hash(named, heads),
        "heads": list(heads),
        "classes": default_classes(shapes, heads),
        "sketch": sketch(shapes),
        "input": built.input_shape,
        "inputs": built.inputs,
        "parameters": parameters,
    }


def _with_classes(arch: str, module: nn.Module, number: int) -> Shapes:
    """Names and shapes with another number of classes; nothing where the architecture takes none."""
    try:
        if arch.startswith("timm:"):  # as `num_classes=` would, and a hundred times as fast
            with torch.device("meta"):
                module.reset_classifier(number)  # type: ignore[operator]
        else:
            module = architectures.build(arch, num_classes=number, meta=True).module
    except Exception:  # they say in their own ways that they do not
        return {}
    return shapes_of(module.state_dict())


def heads_of(seven: Shapes, thirteen: Shapes) -> dict[str, int]:
    """The tensors whose first axis counts the classes, and how many numbers each has a class (a box has four).

    The arguments are the shapes with 7 and with 13 classes. Nothing where more than that axis changes.
    """
    heads = {}
    for name, shape in seven.items():
        other = thirteen.get(name)
        if other == shape:
            continue
        each, rest = divmod(shape[0], CLASSES[0]) if shape else (0, 1)
        if rest or not each or other != (each * CLASSES[1], *shape[1:]):
            return {}
        heads[name] = each
    return heads if seven.keys() == thirteen.keys() else {}


def default_classes(shapes: Shapes, heads: Mapping[str, int]) -> int:
    """How many classes there are where nobody says; 0 where there is no head then, or none that counts them."""
    counts = {shapes[name][0] // each for name, each in heads.items() if name in shapes}
    return counts.pop() if len(counts) == 1 else 0


def _pairs(rows: Iterable[dict[str, Any]], same_as: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Architectures of two libraries with the same tensors, each beside the first of every function met so far.

    One library has two names for the same tensors because something differs, be it on oblong images alone.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        group = groups.setdefault((row["names"], row["body"]), [])
        for first in [arch for arch in group if same_as[arch] == arch]:
            if first.partition(":")[0] == row["arch"].partition(":")[0]:
                continue
            yield first, row["arch"]
            if same_as[row["arch"]] == first:
                break
        group.append(row["arch"])


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows' architectures compute the same, as far as that can be tried; made for other images, they do not."""
    if one["parameters"] > MOST_PARAMETERS or one["input"] is None or one["input"] != other["input"]:
        return False
    classes = CLASSES[0] if one["heads"] else None
    try:
        first, second = (architectures.build(row["arch"], num_classes=classes).module for row in (one, other))
        full = tuple(one["input"])
        try:  # most take other sizes as well, and tell as much of themselves on a small one
            return compute_the_same(first, second, (*full[:-2], SMALL, SMALL), one["inputs"])
        except (AssertionError, RuntimeError, ValueError):
            return compute_the_same(first, second, full, one["inputs"])
    except Exception as error:  # detectors ask for targets in training mode, for example
        print(f"{one['arch']} and {other['arch']}: {type(error).__name__}: {error}")
        return False
    finally:
        gc.collect()


def _normalization(arch: str) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation that its images are normalized by: what computes the same reads the same, too."""
    from timm import get_pretrained_cfg
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    library, name = arch.partition("(")[0].split(":")
    known = get_pretrained_cfg(name) if library == "timm" else None
    if known is None:  # what torchvision's models are trained with
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return tuple(known.mean), tuple(known.std)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.endswith("}")]


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
