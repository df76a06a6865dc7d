"""Steps -> lines of C: the call of each step, with its places in memory. One function here for each C function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from binarize.exporters.c.arithmetic import FUNCTIONS
from binarize.exporters.c.layer_calls import binary, conv, conv_signs, pack, pool
from binarize.exporters.c.steps import Step, Value
from binarize.exporters.c.tables import Tables, exact
from binarize.exporters.c.words import at, numbers, reads, said, spread

__all__ = ["CALLS"]


def _around(step: Step, tables: Tables) -> list[str]:
    x = at(step.reads[0], tables, step)
    sizes = numbers(step, "outer", "count", "inner")
    return [f"{step.function}({x}, {sizes}, {at(step.writes)}); /* {said(step)} */"]


def _cat(step: Step, tables: Tables) -> list[str]:
    calls, whole = [], step.writes
    for i, x in enumerate(step.reads):
        there = Value(x.shape, whole.storage, whole.start + int(step.numbers[str(i)]))
        along = step.tables[str(i)]
        assert along is not None
        if x.strides is None and bool((along[1] == along[2]).all()):
            calls.append(f"copy({at(x, tables, step)}, {x.size}, {at(there)}); /* {said(step)} */")
        else:
            table = tables.numbers("along", step, along)
            calls.append(f"place({at(x, tables, step)}, {table}, {at(there)}); /* {said(step)} */")
    return calls


def _by_channel(step: Step) -> str:
    return numbers(step, "outer", "channels", "inner")


def _affine(step: Step, tables: Tables) -> list[str]:
    given, channels = step.tables, int(step.numbers["channels"])
    each = any(table is not None and table.numel() > 1 for table in given.values())
    names = [
        tables.numbers(key, step, None if given[key] is None else spread(given[key], channels if each else 1))
        for key in ("factor", "offset")
    ]
    x = at(step.reads[0], tables, step)
    return [
        f"affine({x}, {_by_channel(step)}, {', '.join(names)}, {int(each)}, {at(step.writes)}); /* {said(step)} */"
    ]


def _prelu(step: Step, tables: Tables) -> list[str]:
    slope = step.tables["slope"]
    assert slope is not None
    before, table, after = (
        tables.numbers(key, step, step.tables[key]) for key in ("before", "slope", "after")
    )
    x = at(step.reads[0], tables, step)
    given = f"{x}, {_by_channel(step)}, {before}, {table}, {int(slope.numel() > 1)}, {after}"
    return [f"prelu({given}, {at(step.writes)}); /* {said(step)} */"]


def _maxout(step: Step, tables: Tables) -> list[str]:
    pos, neg = (tables.numbers(key, step, step.tables[key]) for key in ("pos", "neg"))
    x = at(step.reads[0], tables, step)
    return [f"maxout({x}, {_by_channel(step)}, {pos}, {neg}, {at(step.writes)}); /* {said(step)} */"]


def _plain(step: Step, tables: Tables) -> list[str]:
    """Operands of one shape, then numbers that are fixed."""
    given = ", ".join(reads(step, tables))
    fixed = "".join(f", {exact(np.float32(n))}" for n in step.numbers.values())
    return [f"{step.function}({given}, {step.writes.size}{fixed}, {at(step.writes)}); /* {said(step)} */"]


def _spread_out(step: Step, tables: Tables) -> list[str]:
    given = ", ".join(reads(step, tables))
    along = tables.numbers("along", step, step.tables["along"])
    return [f"{step.function}({given}, {along}, {at(step.writes)}); /* {said(step)} */"]


def _add_repeated(step: Step, tables: Tables) -> list[str]:
    a, b = step.reads
    given = f"{at(a, tables, step)}, {at(b, tables, step)}, {b.size}, {a.size}, {at(step.writes)}"
    return [f"add_repeated({given}); /* {said(step)} */"]


def _place(step: Step, tables: Tables) -> list[str]:
    along, whole = tables.numbers("along", step, step.tables["along"]), step.writes
    *kept, x = step.reads
    there = Value(whole.shape, whole.storage, whole.start + int(step.numbers.get("begin", 0)))
    calls = []
    if "fill" in step.numbers:
        value = exact(np.float32(step.numbers["fill"]))
        calls = [f"fill({at(whole)}, {whole.size}, {value}); /* {said(step)} */"]
    for base in kept if kept and kept[0].storage is not whole.storage else ():
        calls.append(f"copy({at(base, tables, step)}, {whole.size}, {at(whole)}); /* {said(step)} */")
    return [*calls, f"place({at(x, tables, step)}, {along}, {at(there)}); /* {said(step)} */"]


def _pick(step: Step, tables: Tables) -> list[str]:
    table = tables.numbers("from", step, step.tables["from"])
    count = f"{step.writes.size}, " if step.function == "pick_or_zero" else ""
    x = at(step.reads[0], tables, step)
    return [f"{step.function}({x}, {table}, {count}{at(step.writes)}); /* {said(step)} */"]


def _rows(step: Step, tables: Tables) -> list[str]:
    table, x = reads(step, tables)
    return [f"rows({table}, {x}, {numbers(step, 'n', 'width')}, {at(step.writes)}); /* {said(step)} */"]


def _linear(step: Step, tables: Tables) -> list[str]:
    weight, bias = (tables.numbers(key, step, step.tables[key]) for key in ("weight", "bias"))
    x, rows, features, out = (
        at(step.reads[0], tables, step),
        *numbers(step, "rows", "features", "out").split(", "),
    )
    given = f"{x}, {rows}, {features}, {weight}, {bias}, {out}"
    return [f"linear({given}, {at(step.writes)}); /* {said(step)} */"]


def _matmul(step: Step, tables: Tables) -> list[str]:
    a, b = reads(step, tables)
    a_step, b_step = (int(step.numbers[key]) for key in ("a_step", "b_step"))
    sizes = numbers(step, "count", "rows", "inner", "columns")
    return [f"matmul({a}, {a_step}, {b}, {b_step}, {sizes}, {at(step.writes)}); /* {said(step)} */"]


def _standardize(step: Step, tables: Tables) -> list[str]:
    eps = exact(np.float32(step.numbers["eps"]))
    x = at(step.reads[0], tables, step)
    return [
        f"standardize({x}, {numbers(step, 'rows', 'count')}, {eps}, {at(step.writes)}); /* {said(step)} */"
    ]


def _taps(step: Step, tables: Tables) -> list[str]:
    places, weight = (tables.numbers(key, step, step.tables[key]) for key in ("from", "weight"))
    sizes = numbers(step, "outer", "size", "inner", "out", "each")
    x = at(step.reads[0], tables, step)
    return [f"taps({x}, {sizes}, {places}, {weight}, {at(step.writes)}); /* {said(step)} */"]


CALLS: dict[str, Callable[[Step, Tables], list[str]]] = {
    "pack": pack, "binary": binary, "binary_bits": binary, "conv": conv, "conv_signs": conv_signs,
    "max_pool": pool, "max_pool_bits": pool, "avg_pool": pool, "cat": _cat, "affine": _affine, "prelu": _prelu,
    "maxout": _maxout, "clamp": _plain, "relu": _plain, "add_repeated": _add_repeated, "copy": _plain, "place": _place,
    "pad": _place, "put": _place, "pick": _pick, "pick_or_zero": _pick, "rows": _rows, "linear": _linear,
    "matmul": _matmul, "standardize": _standardize, "taps": _taps,
    **dict.fromkeys(("mean", "sum", "running_sum", "softmax", "log_softmax", "largest", "smallest", "place_largest",
                     "place_smallest"), _around),
    **dict.fromkeys(("from_int32", "from_int16", "from_int8", "from_uint8"), _plain),
    **dict.fromkeys(FUNCTIONS, _plain),
    **{f"{name}_spread": _spread_out for name in FUNCTIONS},
}  # fmt: skip
