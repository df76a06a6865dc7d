"""Steps with their places in memory -> the text of one C file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from binarize.exporters.c.arithmetic import FUNCTIONS, section
from binarize.exporters.c.calls import CALLS
from binarize.exporters.c.graph import Translated
from binarize.exporters.c.memory import Memory
from binarize.exporters.c.ports import Port
from binarize.exporters.c.tables import Tables
from binarize.version import __version__

__all__ = ["CSource", "make_source"]


@dataclass(frozen=True)
class CSource:
    """The text, what it takes on the device apart from code, and the arguments of its function."""

    name: str
    text: str
    table_bytes: int
    ram_bytes: int
    # Of these, what is in use at once where most is.
    ram_in_use: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def prototype(self) -> str:
        """The declaration of its function."""
        given = [f"const {port.ctype} *{port.name}" for port in self.inputs]
        return (
            f"void {self.name}_run({', '.join([*given, *(f'float *{port.name}' for port in self.outputs)])})"
        )


def make_source(
    translated: Translated, name: str, memory: Memory, origin: Mapping[str, str] | None = None
) -> CSource:
    """The C file of a program whose memory is planned. `origin` is what the file says of where it comes from."""
    tables, steps = Tables(), translated.program.steps
    calls = [line for step in steps for line in CALLS[step.function](step, tables)]
    functions = _functions({call.partition("(")[0] for call in calls})
    body = "\n".join(f"    {call}" for call in calls)
    source = CSource(
        name,
        "",
        tables.bytes,
        4 * memory.words,
        4 * memory.largest_step,
        translated.inputs,
        translated.outputs,
    )
    run = source.prototype
    parts = [
        _head(source, translated.fixed, origin or {}),
        "#include <stdint.h>",
        _NO_FUSING,
        _BITS,
        "\n".join(_size(name, port) for port in (*source.inputs, *source.outputs)),
        f"{run};",
        *functions,
        *tables.texts,
        *([_memory(memory)] if memory.words else []),
        f"{run}\n{{\n{body}\n}}",
    ]
    return replace(source, text="\n\n".join(parts) + "\n")


def _size(name: str, port: Port) -> str:
    return f"#define {name.upper()}_{port.name.upper()}_SIZE {port.size}"


def _memory(memory: Memory) -> str:
    """Floats and bits take turns in it."""
    return f"static union {{\n    float floats[{memory.words}];\n    Bits words[{memory.words}];\n}} memory;"


_NO_FUSING = """\
/* Every product and every sum is rounded by itself. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif"""


_BITS = """\
/* Floats and bits take turns in one memory. */
#if defined(__GNUC__)
typedef uint32_t __attribute__((__may_alias__)) Bits;
#else
typedef uint32_t Bits;
#endif"""

_NO_WORD = re.compile("[^0-9A-Za-z.+-]")


def _head(source: CSource, fixed: tuple[tuple[str, Any], ...], origin: Mapping[str, str]) -> str:
    # Of a file that anybody may have written: nothing in it may end the comment.
    said = "".join(f"\n   {key}: {_plain(text)}" for key, text in origin.items())
    made_of = f"\n{said}" if said else ""
    ports = [_row(port, "prepared as the network was trained on") for port in source.inputs]
    ports += [_row(port, "") for port in source.outputs]
    ports += [
        f"   (the network also yields {_plain(str(value))} as {_plain(path)}, always)"
        for path, value in fixed
    ]
    table = "\n".join(ports)
    return f"""\
/* {source.name}: a binary neural network, made by binarize {__version__}. C99, no dependency but stdint.h.

   {source.prototype};

{table}

   Constants: {source.table_bytes} bytes. Memory: {source.ram_bytes} bytes of static buffers, so one call at a time;
   {source.ram_in_use} bytes are in use at once where most are. No malloc.
   Bits hold 32 values a word: 0 is the upper value (+1), 1 the lower (-1).
   Compile with -std=c99 -ffp-contract=off, and without -ffast-math: then the results have the same bits everywhere.{made_of}
*/"""


def _row(port: Port, remark: str) -> str:
    shape = "".join(f"[{n}]" for n in port.shape) or "[1]"
    words = [f"{port.size} numbers"]
    words += [remark] if remark else []
    words += (
        [f'"{_plain(port.path)}" of the network']
        if port.path and port.name not in ("input", "output")
        else []
    )
    return f"   {port.name}  {port.ctype}{shape}, {', '.join(words)}"


def _plain(text: str) -> str:
    return _NO_WORD.sub("_", text)


# --- functions


@cache
def _sections() -> dict[str, tuple[tuple[str, ...], str]]:
    """Name of a section -> (sections it needs, its text), in the order of the file."""
    text = (Path(__file__).parent / "kernels.c").read_text(encoding="utf-8")
    found = {}
    for part in text.split("//: ")[1:]:
        head, _, body = part.partition("\n")
        name, *needs = head.split()
        found[name] = (tuple(needs), body.strip("\n"))
    return found


def _functions(wanted: set[str]) -> list[str]:
    sections = {
        **_sections(),
        **{name: section(name) for name in wanted if name.removesuffix("_spread") in FUNCTIONS},
    }
    needed = set[str]()

    def need(name: str) -> None:
        needed.add(name)
        for other in sections[name][0]:
            need(other)

    for name in wanted:
        need(name)
    return [text for name, (_, text) in sections.items() if name in needed]
