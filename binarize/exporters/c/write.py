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
from torch.utils import _pytree as pytree

from binarize.errors import CheckError
from binarize.exporters.c.check import Code, code_size, host_compiler, run_samples
from binarize.exporters.c.graph import make_program, obstacles
from binarize.exporters.c.in_order import in_order
from binarize.exporters.c.memory import plan_memory
from binarize.exporters.c.ports import one_sample
from binarize.exporters.c.signs import compare_integers, pack_signs
from binarize.exporters.c.tables import identifier
from binarize.exporters.c.text import CSource, make_source
from binarize.exporters.end_to_end import largest_difference
from binarize.exporters.export import Written
from binarize.exporters.origin import origin_of
from binarize.exporters.program import tensors_of
from binarize.exporters.theory import constants_in_theory
from binarize.modules.outputs import opened
from binarize.packed.agreement import OTHER_INPUTS
from binarize.packed.freeze import Example
from binarize.report.units import plural, size

__all__ = ["obstacles", "translate", "write"]

# Inputs on which the C file is compared with the packed model: few where they are large, sums in order take long.
_INPUTS, _FEW, _LARGE = 8, 3, 1 << 14


def write(model: nn.Module, example: Example, path: Path) -> Written:
    """Write the C file and compare it with the packed model, where there is a compiler.

    Raises: UsageError, naming the layer that has no C code; CheckError, where the file computes something else.
    """
    source, fused = translate(model, example, identifier(path.stem), origin_of(model))
    path.write_text(source.text, encoding="ascii")
    compiler = host_compiler()
    line, warnings = _checked(model, source, example, compiler)
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
        "ram_in_use": source.ram_in_use,
        "integer_layers": fused,
        "batch": 1,
        "verified": not warnings,
    }
    return Written(_rows(source, code, theory), (*lines, *line), warnings, facts)


def translate(
    model: nn.Module, sample: Tensor | Example, name: str, origin: Mapping[str, str] | None = None
) -> tuple[CSource, int]:
    """(the C file of a packed model for arguments of these shapes, how many of its layers compare integers)."""
    with torch.no_grad():
        translated = make_program(model, sample)
        program = translated.program
        pack_signs(program)
        compare_integers(program)
    memory = plan_memory(program)
    fused = sum(step.function == "binary_bits" for step in program.steps)
    return make_source(translated, name, memory, origin or {}), fused


def _checked(
    model: nn.Module, source: CSource, example: Example, compiler: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what to say of the comparison, warnings)."""
    if compiler is None:
        return (), (
            "there is no C compiler (cc, gcc or clang) here: the file was not compiled, nor compared",
        )
    samples = _samples(one_sample(example), source)
    found = run_samples(source, [tensors_of(sample) for sample in samples], compiler)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        by_torch = [_answers(model, sample) for sample in samples]
        with in_order():
            expected = _together(model, samples)
            # A model may compute something else in a batch: then its inputs run one by one.
            if expected is None or _difference(source, found, expected) is not None:
                expected = [_answers(model, sample) for sample in samples]
    differs = _difference(source, found, expected)
    if differs is not None:
        raise CheckError(
            f"the C file computes something else than the packed model: {differs}; nothing was written"
        )
    return _told(expected, by_torch), ()


def _together(model: nn.Module, samples: list[Example]) -> list[list[Tensor]] | None:
    """The answers to all samples in one batch; None where the model takes or gives none."""
    if any(not x.dim() or len(x) != 1 for x in tensors_of(samples)):
        return None
    batch: Example = pytree.tree_map(
        lambda first, *rest: torch.cat([first, *rest]) if isinstance(first, Tensor) else first, *samples
    )
    try:
        answers = tensors_of(opened(model(*batch[0], **batch[1])))
    except OTHER_INPUTS:
        return None
    if any(not y.dim() or len(y) != len(samples) for y in answers):
        return None
    return [[y[i].float().reshape(-1) for y in answers] for i in range(len(samples))]


def _difference(source: CSource, found: list[list[Tensor]], expected: list[list[Tensor]]) -> str | None:
    """The first number that differs, in words."""
    for i, (ours, theirs) in enumerate(zip(expected, found)):
        for port, a, b in zip(source.outputs, ours, theirs, strict=True):
            if a.shape != b.shape:
                return f"{port.name} of input {i} has {b.numel()} numbers, expected {a.numel()}"
            differs = ((a != b) & ~(a.isnan() & b.isnan())).nonzero()
            if len(differs):
                j = int(differs[0])
                return f"{port.name}[{j}] of input {i} is {float(b[j])!r}, expected {float(a[j])!r}"
    return None


def _samples(sample: Example, source: CSource) -> list[Example]:
    """The sample, and noise of its shapes: whole numbers stay those of the example."""
    large = sum(port.size for port in source.inputs) >= _LARGE
    generator = torch.Generator().manual_seed(1)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator) if x.is_floating_point() else x

    count = _FEW if large else _INPUTS
    return [sample, *(pytree.tree_map_only(Tensor, noise, sample) for _ in range(count - 1))]


def _answers(model: nn.Module, sample: Example) -> list[Tensor]:
    torch.manual_seed(0)
    return [y.float().reshape(-1) for y in tensors_of(opened(model(*sample[0], **sample[1])))]


def _told(expected: list[list[Tensor]], by_torch: list[list[Tensor]]) -> tuple[str, ...]:
    count = len(expected)
    largest = max(
        largest_difference(a, b) for ours, theirs in zip(expected, by_torch) for a, b in zip(ours, theirs)
    )
    same = sum(int(a[0].argmax()) == int(b[0].argmax()) for a, b in zip(expected, by_torch))
    said = f"Compiled and run on {count} inputs: the packed model's numbers bit for bit, float sums in order."
    classes = (
        f"; same class on {same} of {count}" if len(expected[0]) == 1 and expected[0][0].numel() > 1 else ""
    )
    return said, f"Torch's own order of sums differs by at most {largest:.1e}{classes}."


def _rows(source: CSource, code: Code | None, theory: int) -> tuple[tuple[str, str, str], ...]:
    constants = (
        "constants",
        size(source.table_bytes),
        f"theory {size(theory)}: one bit a binary weight, and numbers",
    )
    ram = ("RAM", size(source.ram_bytes), f"static buffers; {size(source.ram_in_use)} in use at once")
    if code is None:
        return constants, ram
    flash = source.table_bytes + code.size
    return (
        constants,
        ("code", size(code.size), code.target),
        ("flash", size(flash), f"{size(max(flash - theory, 0))} over theory"),
        ram,
    )
