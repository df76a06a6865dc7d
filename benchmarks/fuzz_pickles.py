"""Mutated files of `torch.save`: whatever they hold, an error of ours comes out, or nothing.

    python benchmarks/fuzz_pickles.py --count 5000 --seed 0

`cases` gives the files of a seed, without end, and `read` reads one in every way that the product does: as a model, its
shapes alone, weights for an architecture, the structure of a saved folder, a checkpoint. Each batch runs in a process of
its own, so that a signal is counted like an error. A case that takes over ten seconds of the processor is a fault too.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickletools
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from binarize.checkpoint.structure import FORMAT, load_structure
from binarize.errors import BinarizeError
from binarize.sources import load, load_pickle_safely

BATCH, SECONDS = 50, 10.0
MEMORY = 6 << 30

NAMES = """torch._utils._rebuild_tensor_v2 torch._utils._rebuild_tensor_v3 torch._utils._rebuild_parameter
torch._utils._rebuild_parameter_with_state torch._tensor._rebuild_from_type_v2 torch._utils._rebuild_qtensor
torch._utils._rebuild_meta_tensor_no_storage torch._utils._rebuild_wrapper_subclass torch.FloatStorage torch.BoolStorage
torch.Tensor torch.Size torch.device torch.float32 torch.strided torch.nn.parameter.Parameter collections.OrderedDict
collections.Counter functools.partial argparse.Namespace builtins.set builtins.complex builtins.getattr builtins.eval
posix.mkdir _codecs.encode numpy.dtype numpy.ndarray numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar
pathlib.PosixPath torch.nn.modules.linear.Linear torch.nn.modules.conv.Conv2d torch.nn.modules.container.Sequential
torch.nn.modules.rnn.LSTM torch.nn.modules.activation.MultiheadAttention torch.nn.parallel.data_parallel.DataParallel
torch.nn.utils.weight_norm.WeightNorm torch.nn.utils.spectral_norm.SpectralNorm torch.nn.modules.module._WrappedHook
torch.nn.functional.relu torchvision.ops.boxes.box_iou torchvision.models.resnet.ResNet nowhere.Thing"""
TEXTS = """weight bias training forward train to state_dict named_modules _apply _modules _parameters _buffers
_forward_hooks _forward_pre_hooks _compiled_call_impl __class__ __dict__ __deepcopy__ _metadata module model arch args
format tied binarize cpu latin1 f4 O8 V8 < storage 0 kernel_size padding"""
ODD_TEXTS = ("", "a.b", "\x1b]0;x\x07", "\u00e9", "x" * 5000, "../../x", '1"); x("')
NUMBERS = [0, 1, -1, 2, 3, 255, 1 << 15, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63), 1 << 200]


def _models() -> Iterator[tuple[str, object]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 3, 8, 8))
    yield "module", net
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        norms = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.utils.spectral_norm(nn.Linear(4, 2)))
    yield "norms", norms.eval()
    yield "recurrent", nn.ModuleDict({"a": nn.LSTM(3, 4), "b": nn.MultiheadAttention(4, 2)})
    yield "state dict", net.state_dict()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    beside = {
        "args": argparse.Namespace(lr=0.1, model="resnet18"),
        "best": np.float64(1),
        "all": np.arange(6.0),
    }
    yield "checkpoint", {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, **beside}
    empty = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(2, 2)).to("meta")
    yield "structure", {"format": FORMAT, "module": empty, "tied": []}


def _saved(content: object, *, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def honest() -> dict[str, bytes]:
    """The files that are mutated."""
    models = dict(_models())
    files = {name: _saved(content) for name, content in models.items()}
    return files | {
        "old state dict": _saved(models["state dict"], old=True),
        "old module": _saved(models["module"], old=True),
    }


def cases(seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was done, the file), the same for the same seed."""
    rng = random.Random(seed)
    files = honest()
    pool = [
        piece for content in files.values() if content[:2] == b"PK" for piece in _pieces(_pickle_of(content))
    ]
    kinds: list[tuple[str, Callable[[bytes, random.Random], bytes]]] = [
        ("bytes", _bytes),
        ("slices", _slices),
        ("pickle bytes", lambda content, rng: _with_pickle(content, _bytes(_pickle_of(content), rng))),
        (
            "instructions",
            lambda content, rng: _with_pickle(content, _instructions(_pickle_of(content), pool, rng)),
        ),
        ("values", lambda content, rng: _with_pickle(content, _values(_pickle_of(content), rng))),
        ("values", lambda content, rng: _with_pickle(content, _values(_pickle_of(content), rng))),
        ("program", lambda content, rng: _with_pickle(content, program(rng))),
        ("records", _records),
    ]
    while True:
        name, change = rng.choice(kinds)
        of = rng.choice([key for key in files if name in ("bytes", "slices") or not key.startswith("old")])
        yield f"{name} of {of}", change(files[of], rng)


def read(path: Path) -> None:
    """Reads a file in every way; errors of ours are what may come out."""
    for way in (
        load_pickle_safely,
        load_structure,
        lambda path: load(str(path)),
        lambda path: load(str(path), meta=True),
        lambda path: load(str(path), arch="torchvision:squeezenet1_1"),
    ):
        try:
            way(path)
        except BinarizeError as error:
            str(error).encode()


def _pickle_of(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read("archive/data.pkl")


def _with_pickle(content: bytes, pickled: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    return _archive([*{**records, "archive/data.pkl": pickled}.items()])


def _archive(records: list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", kind) as archive:
        warnings.simplefilter("ignore")  # of two records with one name
        for name, record in records:
            archive.writestr(name, record)
    return file.getvalue()


def _bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _slices(content: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    return rng.choice([content[:a], content[:a] + content[b:], content[:b] + content[a:], content[a:]])


def _records(content: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    place = rng.randrange(len(records))
    name, record = records[place]
    other = rng.choice(records)
    records[place] = rng.choice(
        [
            (name, record[:-1]),
            (name, record * 2),
            (name, other[1]),
            (other[0], record),
            ("b" + name, record),
            (name, b""),
        ]
    )
    return _archive(records, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def _pieces(pickled: bytes) -> list[bytes]:
    """The instructions of a pickle."""
    places = [place for _, _, place in pickletools.genops(pickled)]
    return [pickled[a:b] for a, b in zip(places, [*places[1:], len(pickled)])]


def _instructions(pickled: bytes, pool: list[bytes], rng: random.Random) -> bytes:
    pieces = _pieces(pickled)
    for _ in range(rng.randint(1, 4)):
        a, b = rng.randrange(len(pieces)), rng.randrange(len(pieces))
        span = rng.randint(1, 12)
        change = rng.randrange(5)
        if change == 0:
            del pieces[a : a + span]
        elif change == 1:
            pieces[a:a] = pieces[b : b + span]
        elif change == 2:
            pieces[a], pieces[b] = pieces[b], pieces[a]
        elif change == 3:
            pieces[a] = rng.choice(pool)
        else:
            pieces[a] = _atom(rng)
        pieces = pieces or [b"N"]
    return b"".join(pieces)


def _values(pickled: bytes, rng: random.Random) -> bytes:
    """The same program with other texts, numbers and names in it."""
    pieces = _pieces(pickled)
    for _ in range(rng.randint(1, 3)):
        places = [
            n
            for n, piece in enumerate(pieces)
            if piece[:1] in (b"X", b"K", b"M", b"J", b"c", b"G", b"\x88", b"\x89")
        ]
        place = rng.choice(places)
        same = {b"X": _text, b"c": _name, b"K": _number, b"M": _number, b"J": _number}.get(
            pieces[place][:1], _atom
        )
        pieces[place] = (same if rng.random() < 0.8 else _atom)(rng)
    return b"".join(pieces)


def _text(rng: random.Random) -> bytes:
    value = rng.choice([*TEXTS.split(), *ODD_TEXTS]).encode()
    return b"X" + struct.pack("<I", len(value)) + value


def _number(rng: random.Random) -> bytes:
    value = rng.choice(NUMBERS).to_bytes(32, "little", signed=True)
    return b"\x8a" + bytes([len(value)]) + value


def _name(rng: random.Random) -> bytes:
    module, _, attribute = rng.choice(NAMES.split()).rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def _atom(rng: random.Random) -> bytes:
    return rng.choice(
        [_text, _number, _name, lambda _: b"N", lambda _: b"\x88", lambda _: b")", lambda _: b"}"]
    )(rng)


def program(rng: random.Random) -> bytes:
    """A pickle of random instructions that mostly find on the stack what they take."""
    depth, out, puts = 0, [b"\x80\x02"], 0
    for _ in range(rng.choice([5, 20, 60, 300])):
        takes = rng.choice(
            ["put", "atom", "atom", "call", "new", "tuple", "list", "dict", "state", "item", "storage", "get"]
        )
        if takes == "get" and puts:
            out.append(b"h%c" % rng.randrange(puts))
        elif takes == "put" and depth and puts < 256:
            out.append(b"q%c" % puts)
            puts += 1
            continue
        elif takes == "call":
            out.append(_name(rng) + b"(" + b"".join(_atom(rng) for _ in range(rng.randrange(6))) + b"tR")
        elif takes == "new":
            out.append(_name(rng) + b")\x81")
        elif takes == "tuple" and depth > 1:
            out.append(rng.choice([b"\x85", b"\x86"]))
            depth -= out[-1] == b"\x86"
            continue
        elif takes == "list":
            out.append(b"](" + b"".join(_atom(rng) for _ in range(rng.randrange(4))) + b"e")
        elif takes == "dict":
            out.append(b"}(" + b"".join(_text(rng) + _atom(rng) for _ in range(rng.randrange(4))) + b"u")
        elif takes == "state" and depth > 1:
            out.append(b"b")
            depth -= 1
            continue
        elif takes == "item" and depth > 2:
            out.append(b"s")
            depth -= 2
            continue
        elif takes == "storage":
            out.append(
                b"(X\x07\x00\x00\x00storage" + _name(rng) + _text(rng) + _text(rng) + _number(rng) + b"tQ"
            )
        else:
            out.append(_atom(rng))
        depth += 1
    return b"".join([*out, b"t" if rng.random() < 0.1 else b"0" * (depth - 1), b"."])


def _child(batch: list[tuple[int, str, bytes]], write: int) -> None:
    """Reads each file and says how it ended."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number, name, content in batch:
            os.write(write, f"{json.dumps([number, name, 'ended the process'])}\n".encode())
            path = Path(folder) / "net.pt"
            path.write_bytes(content)
            begun, found = time.process_time(), "right"
            try:
                read(path)
            except BaseException as error:  # every other error is a finding
                found = f"{type(error).__name__}: {str(error)[:120]}"
            if time.process_time() - begun > SECONDS:
                found = f"took {time.process_time() - begun:.0f} s"
            left = [entry for entry in os.listdir(folder) if entry != "net.pt"]
            os.write(
                write, f"{json.dumps([number, name, found if not left else f'wrote {left}'])}\n".encode()
            )
    os._exit(0)


def run(seed: int, count: int, first: int = 0) -> Counter[str]:
    """How so many cases ended; what is a finding is printed with its number."""
    counts: Counter[str] = Counter()
    waiting = ((number, *case) for number, case in enumerate(cases(seed)))
    waiting = islice(waiting, first, first + count)
    while batch := list(islice(waiting, BATCH)):
        while batch:
            ends, status = _run(batch)
            for number, (name, found) in ends.items():
                if found == "ended the process":
                    found = f"signal or exit {status}"
                counts[found.partition(":")[0]] += 1
                if found != "right":
                    print(f"{number} {name}: {found}", flush=True)
            batch = [case for case in batch if case[0] not in ends]
    return counts


def _run(batch: list[tuple[int, str, bytes]]) -> tuple[dict[int, tuple[str, str]], int]:
    ends: dict[int, tuple[str, str]] = {}
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(batch, writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        for line in lines:
            number, name, found = json.loads(line)
            ends[number] = (name, found)
    _, status = os.waitpid(child, 0)
    return ends, os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--first", type=int, default=0, help="the case to begin with, to go on or to repeat one"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = run(given.seed, given.count, given.first)
    print(dict(found))
    sys.exit(any(name != "right" for name in found))
