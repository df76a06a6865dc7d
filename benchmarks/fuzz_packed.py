"""Packed files changed at random: each is read and run once, or refused with an error of the project.

    python benchmarks/fuzz_packed.py --count 5000 [--start 0] [--children 2]

`cases` gives the same files for the same seed. The index is changed and sealed anew, as whoever edits a file would do;
so are tables and metadata, and bytes are turned without sealing. Each child runs a share of the seeds under a limit of
memory; what a child says and how it ends is counted.
"""

from __future__ import annotations

import argparse
import collections
import copy
import functools
import io
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

import binarize
from binarize.errors import BinarizeError
from binarize.packed.file import FORMAT, _digest
from binarize.packed.freeze import frozen_record

_PER_SEED = 20
_MOST_BYTES = 6 << 30
_SLOW_SECONDS = 10
_SCHEMES = ("adabin", "reactnet", "bnn", "binaryconnect")
_ODD: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 64, 255, 256, 4096, 1 << 16, 1 << 24, 1 << 31, (1 << 31) - 1, 1 << 62, 1 << 63, 1 << 80, 0.5,
    -0.0, 1e38, 1e308, None, True, False, "", "x", "zeros", "each", "__class__", "\x1b[31m", [], {}, [0], [1, 1],
    [1 << 20, 1 << 20], {"node": 1}, {"node": 2}, {"tuple": [1]}, {"float": "nan"}, {"dtype": "int64"},
)  # fmt: skip


class _Net(nn.Module):
    """Layers of many kinds, and a graph of modules, functions, methods and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.a, self.b = (
            nn.Conv2d(16, 16, 3, padding=1, stride=2),
            nn.Conv2d(16, 32, 3, padding=2, dilation=2),
        )
        self.pool, self.gain = nn.MaxPool2d(2), nn.Parameter(torch.ones(32))
        self.hidden, self.fc = nn.Linear(32, 64), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.stem(x)))
        y = self.pool(torch.relu(self.a(y)))
        y = torch.cat([self.b(y), y, y], 1)[:, :32]
        y = (y.view(y.shape[0], 32, -1).mean(2) * self.gain).clamp(-3.0, 3.0)
        return self.fc(torch.relu(self.hidden(y)))


@functools.cache
def _good(scheme: str) -> bytes:
    torch.manual_seed(0)
    binary = binarize.convert(_Net().eval(), scheme, example_input=torch.randn(4, 3, 8, 8), calibrate=False)
    with tempfile.TemporaryDirectory() as folder:
        saved = binarize.save(binary, Path(folder) / "net")
        path = binarize.pack(saved, model=_Net()).path
        # What torch imports when a graph first runs is there, then, before children are forked.
        read(path)
        return path.read_bytes()


def cases(seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was changed, a file), without end, the same for the same seed."""
    rng = random.Random(seed)
    for scheme in _SCHEMES:
        _good(scheme)
    for number in itertools.count():
        scheme = rng.choice(_SCHEMES)
        kind = rng.choice((_index, _index, _index, _tables, _metadata, _bytes))
        yield f"{seed}.{number} {scheme} {kind.__name__.strip('_')}", kind(rng, _good(scheme))


def read(path: str | Path) -> None:
    """Read a packed file that stands alone, and run it once on inputs of its recorded shapes."""
    model = binarize.load_packed(path)
    record = frozen_record(model)
    shapes = () if record is None else record.input_shapes
    with torch.no_grad():
        model(*(torch.zeros(shape) for shape in shapes))


def _opened(content: bytes) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    tensors = load(content)
    index: dict[str, Any] = json.loads(zlib.decompress(tensors.pop("index").numpy().tobytes()))
    return index, tensors


def _sealed(index: Any, tensors: dict[str, torch.Tensor], **texts: str) -> bytes:
    text = zlib.compress(json.dumps(index).encode())
    whole = {**tensors, "index": torch.frombuffer(bytearray(text), dtype=torch.uint8)}
    return save(whole, {"format": FORMAT, "sha256": _digest(FORMAT, whole), **texts})


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from _places(inner, (*at, key))


def _inside(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


def _changed(rng: random.Random, index: Any) -> None:
    ways = list(_places(index))
    # A place in the graph or a layer as often as one of the many names beside them.
    head = rng.choice(("layers", "rest", "graph", "modules", "nodes", "about", "shapes"))
    near = [way for way in ways if head in way] or ways
    way = rng.choice(near)
    place, key = _inside(index, way[:-1]), way[-1]
    act = rng.randrange(6)
    if act == 0:
        del place[key]
    elif act == 1:
        place[key] = copy.deepcopy(_inside(index, rng.choice(near)))
    elif act == 2 and type(place[key]) is int:
        place[key] += rng.choice((-1, 1, 2, 1 << 8, 1 << 20))
    elif act == 3 and isinstance(place, list):
        place.insert(key, copy.deepcopy(_inside(index, rng.choice(near))))
    elif act == 4 and isinstance(place, dict):
        place[str(rng.choice(_ODD))[:20]] = place[key]
    else:
        place[key] = copy.deepcopy(rng.choice(_ODD))


def _index(rng: random.Random, content: bytes) -> bytes:
    index, tensors = _opened(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _changed(rng, index)
    return _sealed(index, tensors)


def _tables(rng: random.Random, content: bytes) -> bytes:
    index, tensors = _opened(content)
    name = rng.choice(sorted(tensors))
    table = tensors[name]
    change = rng.randrange(5)
    if change == 0:
        tensors[name] = table[: rng.randrange(table.numel() + 1)].clone()
    elif change == 1:
        tensors[name] = torch.cat([table, table[: rng.randrange(64)]])
    elif change == 2:
        tensors[name] = table.to(rng.choice((torch.uint8, torch.float32, torch.float64, torch.int64)))
    elif change == 3 and table.is_floating_point():
        table[rng.randrange(table.numel())] = rng.choice((float("nan"), float("inf"), -1e38, 0.0))
    else:
        tensors[rng.choice((*sorted(tensors), "rest.half", "rest.step", "rest.scale", "odd"))] = tensors.pop(
            name
        )
    return _sealed(index, tensors)


def _metadata(rng: random.Random, content: bytes) -> bytes:
    index, tensors = _opened(content)
    key, value = rng.choice(("format", "sha256", "other")), rng.choice(("", "x" * 5000, "binarize packed 2"))
    return _sealed(index, tensors, **{key: value})


def _bytes(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 16))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    cut = rng.choice((None, None, rng.randrange(len(changed))))
    return bytes(changed[:cut])


def _child(first: int, last: int, out: str) -> None:
    """Run the seeds and write a line for each case before and after it."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, open(out, "a", encoding="utf-8") as log:
        file = Path(folder) / "packed.safetensors"
        for seed in range(first, last):
            for name, content in itertools.islice(cases(seed), _PER_SEED):
                file.write_bytes(content)
                log.write(f"begin {name}\n")
                log.flush()
                started = time.perf_counter()
                said = _outcome(file)
                seconds = time.perf_counter() - started
                log.write(f"end {'slow ' if seconds > _SLOW_SECONDS else ''}{said}\n")


def _outcome(file: Path) -> str:
    stderr, sys.stderr = sys.stderr, io.StringIO()
    try:
        read(file)
    except BinarizeError as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"
    except Exception as error:  # what must not happen is what is counted
        return f"FOREIGN {type(error).__name__}: {str(error)[:300]!r}"
    finally:
        sys.stderr = stderr
    return "read and run"


def main() -> None:
    """Share the seeds out to children, and count how each case ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--child", nargs=3, metavar=("FIRST", "LAST", "LOG"))
    given = parser.parse_args()
    if given.child:
        _child(int(given.child[0]), int(given.child[1]), given.child[2])
        return
    seeds, counts = -(-given.count // _PER_SEED), collections.Counter[str]()
    share = -(-seeds // given.children)
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for k in range(given.children):
            first = given.start + k * share
            last, log = min(first + share, given.start + seeds), f"{folder}/{k}"
            words = [sys.executable, __file__, "--child", str(first), str(last), log]
            running.append((subprocess.Popen(words), log))
        for child, log in running:
            code = child.wait()
            lines = Path(log).read_text("utf-8").splitlines() if Path(log).exists() else []
            for before, line in itertools.pairwise(lines):
                if line.startswith("end "):
                    counts[line.removeprefix("end ").partition(":")[0]] += 1
                if "FOREIGN" in line or line.startswith("end slow"):
                    print(before, "|", line)
            if code:
                print(f"a child ended with {code} at {lines[-1] if lines else 'its start'}")
                counts[f"child ended with {code}"] += 1
    for outcome, count in counts.most_common():
        print(f"{count:6}  {outcome}")


if __name__ == "__main__":
    main()
