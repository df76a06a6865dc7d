"""One self-contained C99 file for a microcontroller: weights, integer thresholds, popcount loops.

    void NAME_run(const float *input, float *output);

No malloc, no library, nothing to include but stdint.h. Its results are those of the packed model bit for bit, with
one thing said exactly: float sums run in the order of their indices (`binarize.exporters.c.in_order`). Torch adds up its
float convolutions and linear layers in an order of its own, which differs with the processor, the number of threads
and even the size of the batch: a packed model gives other last bits for one image than for the same image in a batch.
No other program can equal all of these. So what is exported, and checked, is

    with in_order():
        logits = packed(x)

(a zero may have the other sign, which no layer tells apart). Every binary layer, threshold and shortcut is the same
in both orders. What does not need floats has none: where only signs are read of a layer's result, it is a comparison
of integers (`c_signs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from binarize.errors import CheckError
from binarize.exporters.c.check import Code, code_size, host_compiler, run_on_host
from binarize.exporters.c.graph import check_sample, make_program
from binarize.exporters.c.in_order import in_order
from binarize.exporters.c.memory import plan_memory
from binarize.exporters.c.signs import compare_integers, pack_signs
from binarize.exporters.c.steps import refuse
from binarize.exporters.c.tables import identifier
from binarize.exporters.c.text import CSource, make_source
from binarize.exporters.export import Written
from binarize.exporters.origin import origin_of
from binarize.exporters.theory import constants_in_theory
from binarize.packed.freeze import Example
from binarize.report.units import plural, size

__all__ = ["translate", "write"]

# Inputs on which the C file is compared with the packed model: few where they are large, sums in order take long.
_INPUTS, _FEW, _LARGE = 8, 3, 1 << 14


def write(model: nn.Module, example: Example, path: Path) -> Written:
    """Write the C file and compare it with the packed model, where there is a compiler.

    Raises: UsageError, naming the layer that has no C code; CheckError, where the file computes something else.
    """
    args, keywords = example
    if len(args) + len(keywords) != 1:
        raise refuse(
            "the model", f"it takes {len(args) + len(keywords)} arguments; the C function takes one tensor"
        )
    sample = check_sample([*args, *keywords.values()][0])
    source, fused = translate(model, sample, identifier(path.stem), origin_of(model))
    path.write_text(source.text, encoding="ascii")
    compiler = host_compiler()
    line, warnings = _checked(model, source, sample, compiler)
    code = code_size(source, compiler)
    theory = constants_in_theory(model)
    lines = ["Takes one input a call, a batch of 1."]
    lines += [f"{plural(fused, 'binary layer')} without any float: integer thresholds."] if fused else []
    facts = {
        "constants": source.table_bytes,
        "theory": theory,
        "code": None if code is None else code.size,
        "code_target": None if code is None else code.target,
        "ram": source.ram_bytes,
        "integer_layers": fused,
        "batch": 1,
        "verified": not warnings,
    }
    return Written(_rows(source, code, theory), (*lines, *line), warnings, facts)


def translate(
    model: nn.Module, sample: Tensor, name: str, origin: Mapping[str, str] | None = None
) -> tuple[CSource, int]:
    """(the C file of a packed model for one sample of this shape, how many of its layers compare integers)."""
    with torch.no_grad():
        program = make_program(model, sample)
        pack_signs(program)
        compare_integers(program)
    floats, words = plan_memory(program)
    fused = sum(step.function == "binary_bits" for step in program.steps)
    return make_source(program, name, floats, words, origin or {}), fused


def _checked(
    model: nn.Module, source: CSource, sample: Tensor, compiler: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what to say of the comparison, warnings)."""
    if compiler is None:
        return (), (
            "there is no C compiler (cc, gcc or clang) here: the file was not compiled, nor compared",
        )
    count = _INPUTS if sample.numel() < _LARGE else _FEW
    noise = torch.randn(count - 1, *sample.shape[1:], generator=torch.Generator().manual_seed(1))
    inputs = torch.cat([sample, noise])
    with torch.no_grad():
        with in_order():
            expected = model(inputs).reshape(count, -1)
        by_torch = model(inputs).reshape(count, -1)
    found = run_on_host(source, inputs, expected.shape[1], compiler)
    differs = (found != expected).nonzero()
    if len(differs):
        i, j = differs[0].tolist()
        raise CheckError(
            f"the C file computes something else than the packed model: output {j} of input {i} is "
            f"{float(found[i, j])!r}, expected {float(expected[i, j])!r}; nothing was written"
        )
    largest = float((by_torch - expected).abs().max())
    same = int((by_torch.argmax(1) == expected.argmax(1)).sum())
    said = f"Compiled and run on {count} inputs: the packed model's numbers bit for bit, float sums in order."
    other = f"Torch's own order of sums differs by at most {largest:.1e}; same class on {same} of {count}."
    return (said, other), ()


def _rows(source: CSource, code: Code | None, theory: int) -> tuple[tuple[str, str, str], ...]:
    constants = (
        "constants",
        size(source.table_bytes),
        f"theory {size(theory)}: one bit a binary weight, and numbers",
    )
    memory = ("RAM", size(source.ram_bytes), "static buffers")
    if code is None:
        return constants, memory
    flash = source.table_bytes + code.size
    return (
        constants,
        ("code", size(code.size), code.target),
        ("flash", size(flash), f"{size(max(flash - theory, 0))} over theory"),
        memory,
    )
