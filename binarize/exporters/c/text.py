"""Steps with their places in memory -> the text of one C file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from binarize.exporters.c.calls import CALLS
from binarize.exporters.c.steps import Program
from binarize.exporters.c.tables import Tables
from binarize.version import __version__

__all__ = ["CSource", "make_source"]


@dataclass(frozen=True)
class CSource:
    """The text, and what it takes on the device apart from code."""

    name: str
    text: str
    table_bytes: int
    ram_bytes: int


def make_source(
    program: Program, name: str, floats: int, words: int, origin: Mapping[str, str] | None = None
) -> CSource:
    """The C file of a program whose memory is planned: pools of `floats` numbers and `words` words of bits.

    `origin` is what the file says of where it comes from.
    """
    tables = Tables()
    calls = [line for step in program.steps for line in CALLS[step.function](step, tables)]
    functions = _functions(
        {name for step in program.steps for name in _FUNCTIONS_OF.get(step.function, [step.function])}
    )
    pools = [f"static float floats[{floats}];"] if floats else []
    pools += [f"static uint32_t words[{words}];"] if words else []
    ram = 4 * (floats + words)
    body = "\n".join(f"    {call}" for call in calls)
    run = f"void {name}_run(const float *input, float *output)"
    parts = [
        _head(program, name, tables.bytes, ram, origin or {}),
        "#include <stdint.h>",
        _NO_FUSING,
        f"#define {name.upper()}_INPUT_SIZE {program.input.size}\n"
        f"#define {name.upper()}_OUTPUT_SIZE {program.result.size}",
        f"{run};",
        *functions,
        *tables.texts,
        *(["\n".join(pools)] if pools else []),
        f"{run}\n{{\n{body}\n}}",
    ]
    return CSource(name, "\n\n".join(parts) + "\n", tables.bytes, ram)


# C functions that a step calls, where they are not the one of its name.
_FUNCTIONS_OF = {"cat": ["copy"], "pad": ["place", "fill"]}
_NO_FUSING = """\
/* Every product and every sum is rounded by itself. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif"""


_NO_WORD = re.compile("[^0-9A-Za-z.+-]")


def _head(program: Program, name: str, flash: int, ram: int, origin: Mapping[str, str]) -> str:
    # Of a file that anybody may have written: nothing in it may end the comment.
    said = "".join(f"\n   {key}: {_NO_WORD.sub('_', text)}" for key, text in origin.items())
    made_of = f"\n{said}" if said else ""
    shape = "".join(f"[{n}]" for n in program.input.shape) or "[1]"
    result = "".join(f"[{n}]" for n in program.result.shape) or "[1]"
    return f"""\
/* {name}: a binary neural network, made by binarize {__version__}. C99, no dependency but stdint.h.

   void {name}_run(const float *input, float *output);

   input   float{shape}, {program.input.size} numbers, prepared as the network was trained on
   output  float{result}, {program.result.size} numbers

   Constants: {flash} bytes. Memory: {ram} bytes of static buffers, so one call at a time. No malloc.
   Bits hold 32 values a word: 0 is the upper value (+1), 1 the lower (-1).
   Compile with -std=c99 -ffp-contract=off, and without -ffast-math: then the results have the same bits everywhere.{made_of}
*/"""


# --- functions


@cache
def _sections() -> dict[str, tuple[tuple[str, ...], str]]:
    """Name of a section -> (sections it needs, its text), in the order of the file."""
    text = (Path(__file__).parent / "kernels.c").read_text(encoding="utf-8")
    found = {}
    for section in text.split("//: ")[1:]:
        head, _, body = section.partition("\n")
        name, *needs = head.split()
        found[name] = (tuple(needs), body.strip("\n"))
    return found


def _functions(wanted: set[str]) -> list[str]:
    sections, needed = _sections(), set[str]()

    def need(name: str) -> None:
        needed.add(name)
        for other in sections[name][0]:
            need(other)

    for name in wanted:
        need(name)
    return [text for name, (_, text) in sections.items() if name in needed]
