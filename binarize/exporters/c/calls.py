"""Steps -> lines of C: the call of each step, with its places in memory. One function here for each C function."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from torch import Tensor

from binarize.exporters.c.layers import rows_of_words
from binarize.exporters.c.steps import Step, Value
from binarize.exporters.c.tables import Tables, exact
from binarize.kernels.bits import WORD

__all__ = ["CALLS"]


def _at(value: Value) -> str:
    storage = value.storage
    if storage.pool in ("input", "output"):
        return storage.pool
    pool = "floats" if storage.pool == "floats" else "words"
    return f"{pool} + {storage.offset}" if storage.offset else pool


def _window(step: Step) -> str:
    image = step.image
    assert image is not None
    g = image.geometry
    top, _, left, _ = g.padding
    return (
        f"{{\n    .channels = {g.in_channels}, .height = {image.height}, .width = {image.width},\n"
        f"    .out_channels = {g.out_channels}, .out_height = {image.out_height}, .out_width = {image.out_width},\n"
        f"    .kernel_height = {g.kernel[0]}, .kernel_width = {g.kernel[1]}, "
        f".stride_y = {g.stride[0]}, .stride_x = {g.stride[1]},\n"
        f"    .dilation_y = {g.dilation[0]}, .dilation_x = {g.dilation[1]}, "
        f".top = {top}, .left = {left}, .groups = {g.groups}\n}}"
    )


_WINDOW_BYTES, _BINARY_BYTES = 4 * 15, 4 * (15 + 3 + 7)


def _window_of(step: Step, tables: Tables) -> str:
    return tables.struct("Window", "window", step, _window(step), _WINDOW_BYTES)


def _pack(step: Step, tables: Tables) -> list[str]:
    (x,), table = step.reads, step.tables["threshold"]
    image = x.pixels * -(-x.channels // WORD)
    calls = []
    for k, row in enumerate([None] if table is None else table):
        same = row is not None and bool((row == row[0]).all())
        if row is None or (same and float(row[0]) == 0):
            limits, each = "0", 0
        else:
            limits, each = tables.numbers("threshold", step, row[:1] if same else row), int(not same)
        offset = step.writes.storage.offset + k * image
        bits = f"words + {offset}" if offset else "words"
        calls.append(
            f"pack({_at(x)}, {x.channels}, {x.pixels}, {limits}, {each}, {bits}); /* {_said(step)} */"
        )
    return calls


def _binary(step: Step, tables: Tables) -> list[str]:
    lower, image = step.tables["lower"], step.image
    assert lower is not None and image is not None
    fused = step.function == "binary_bits"
    names = {
        "weight": tables.numbers("weight_bits", step, rows_of_words(lower.permute(0, 2, 3, 1))),
        "limit": tables.numbers("limit", step, step.tables["limit"]) if fused else "0",
        "flip": tables.numbers("flip", step, _flags(step.tables["flip"])) if fused else "0",
    }
    planes = 1
    for key in ("scale", "shift", "window_scale"):
        names[key] = "0" if fused else tables.numbers(key, step, step.tables[key])
    names["border"] = "0.0f" if fused else exact(np.float32(step.numbers["border"]))
    if not fused and step.tables["scale"] is not None:
        planes = len(step.tables["scale"])
    body = (
        f"{{\n    .window = {_indented(_window(step))},\n"
        f"    .outside = {int(step.numbers['outside'])}, .zero_one = {int(step.numbers['zero_one'])}, "
        f".planes = {planes},\n    "
        + ",\n    ".join(f".{key} = {value}" for key, value in names.items())
        + "\n}"
    )
    layer = tables.struct("Binary", "layer", step, body, _BINARY_BYTES)
    seen, mask = (f"words + {s.offset}" if s.offset else "words" for s in step.scratch)
    (x,) = step.reads
    return [f"{step.function}({layer}, {_at(x)}, {seen}, {mask}, {_at(step.writes)}); /* {_said(step)} */"]


def _flags(flip: Tensor | None) -> Tensor | None:
    return None if flip is None else rows_of_words(flip[None])


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def _conv(step: Step, tables: Tables) -> list[str]:
    (x,) = step.reads
    weight = tables.numbers("weight", step, step.tables["weight"])
    bias = tables.numbers("bias", step, step.tables["bias"])
    window = _window_of(step, tables)
    return [f"conv({window}, {_at(x)}, {weight}, {bias}, {_at(step.writes)}); /* {_said(step)} */"]


def _conv_signs(step: Step, tables: Tables) -> list[str]:
    (x,), lower = step.reads, step.tables["lower"]
    assert lower is not None
    weight = tables.numbers("weight_bits", step, rows_of_words(lower))
    scale, window_scale, shift = (
        tables.numbers(key, step, step.tables[key]) for key in ("scale", "window_scale", "shift")
    )
    pad = exact(np.float32(step.numbers["pad"]))
    window = _window_of(step, tables)
    given = f"{window}, {pad}, {_at(x)}, {weight}, {scale}, {window_scale}, {shift}, {_at(step.writes)}"
    return [f"conv_signs({given}); /* {_said(step)} */"]


def _pool(step: Step, tables: Tables) -> list[str]:
    divisor = f"{int(step.numbers['divisor'])}, " if "divisor" in step.numbers else ""
    given = f"{_window_of(step, tables)}, {divisor}{_at(step.reads[0])}, {_at(step.writes)}"
    return [f"{step.function}({given}); /* {_said(step)} */"]


def _mean(step: Step, tables: Tables) -> list[str]:
    sizes = ", ".join(str(int(step.numbers[key])) for key in ("outer", "count", "inner"))
    return [f"mean({_at(step.reads[0])}, {sizes}, {_at(step.writes)}); /* {_said(step)} */"]


def _cat(step: Step, tables: Tables) -> list[str]:
    calls, at = [], 0
    for x in step.reads:
        place = _at(step.writes) + (f" + {at}" if at else "")
        calls.append(f"copy({_at(x)}, {x.size}, {place}); /* {_said(step)} */")
        at += x.size
    return calls


def _affine(step: Step, tables: Tables) -> list[str]:
    (x,), given = step.reads, step.tables
    each = any(table is not None and table.numel() > 1 for table in given.values())
    names = [
        tables.numbers(
            key, step, None if given[key] is None else _spread(given[key], x.channels if each else 1)
        )
        for key in ("factor", "offset")
    ]
    sizes = f"{_at(x)}, {x.channels}, {x.pixels}"
    return [f"affine({sizes}, {', '.join(names)}, {int(each)}, {_at(step.writes)}); /* {_said(step)} */"]


def _prelu(step: Step, tables: Tables) -> list[str]:
    (x,), slope = step.reads, step.tables["slope"]
    assert slope is not None
    before, table, after = (
        tables.numbers(key, step, step.tables[key]) for key in ("before", "slope", "after")
    )
    given = f"{_at(x)}, {x.channels}, {x.pixels}, {before}, {table}, {int(slope.numel() > 1)}, {after}"
    return [f"prelu({given}, {_at(step.writes)}); /* {_said(step)} */"]


def _maxout(step: Step, tables: Tables) -> list[str]:
    (x,) = step.reads
    pos, neg = (tables.numbers(key, step, step.tables[key]) for key in ("pos", "neg"))
    sizes = f"{_at(x)}, {x.channels}, {x.pixels}"
    return [f"maxout({sizes}, {pos}, {neg}, {_at(step.writes)}); /* {_said(step)} */"]


def _clamp(step: Step, tables: Tables) -> list[str]:
    limits = "".join(f"{exact(np.float32(step.numbers[key]))}, " for key in ("low", "high") if step.numbers)
    (x,) = step.reads
    return [f"{step.function}({_at(x)}, {x.size}, {limits}{_at(step.writes)}); /* {_said(step)} */"]


def _plain(step: Step, tables: Tables) -> list[str]:
    reads = ", ".join(_at(x) for x in step.reads)
    return [f"{step.function}({reads}, {step.writes.size}, {_at(step.writes)}); /* {_said(step)} */"]


def _add_repeated(step: Step, tables: Tables) -> list[str]:
    a, b = step.reads
    given = f"{_at(a)}, {_at(b)}, {b.size}, {a.size}, {_at(step.writes)}"
    return [f"add_repeated({given}); /* {_said(step)} */"]


def _place(step: Step, tables: Tables) -> list[str]:
    along = tables.numbers("along", step, step.tables["along"])
    start, begin = int(step.numbers["start"]), int(step.numbers["begin"])
    (x,), calls = step.reads, []
    if "fill" in step.numbers:
        value = exact(np.float32(step.numbers["fill"]))
        calls = [f"fill({_at(step.writes)}, {step.writes.size}, {value}); /* {_said(step)} */"]
    here, there = (f"{_at(v)} + {n}" if n else _at(v) for v, n in ((x, start), (step.writes, begin)))
    return [*calls, f"place({here}, {along}, {there}); /* {_said(step)} */"]


def _spread(table: Tensor | None, channels: int) -> Tensor | None:
    return table if table is None or table.numel() == channels else table.expand(channels)


def _said(step: Step) -> str:
    """The layer's path, fit for a comment."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", step.name)


CALLS: dict[str, Callable[[Step, Tables], list[str]]] = {
    "pack": _pack,
    "binary": _binary,
    "binary_bits": _binary,
    "conv": _conv,
    "conv_signs": _conv_signs,
    "max_pool": _pool,
    "max_pool_bits": _pool,
    "avg_pool": _pool,
    "mean": _mean,
    "cat": _cat,
    "affine": _affine,
    "prelu": _prelu,
    "maxout": _maxout,
    "clamp": _clamp,
    "relu": _clamp,
    "add": _plain,
    "add_repeated": _add_repeated,
    "subtract": _plain,
    "multiply": _plain,
    "copy": _plain,
    "place": _place,
    "pad": _place,
}
