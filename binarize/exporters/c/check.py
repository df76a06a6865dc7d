"""The C file compiled and run: on this machine to compare its results, for a Cortex-M to measure its code."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from binarize.errors import CheckError
from binarize.exporters.c.text import CSource

__all__ = ["FLAGS", "Code", "code_size", "host_compiler", "run_on_host", "run_samples"]

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-ffp-contract=off")
_SECONDS = 600
_MAIN = """\
#include <stdint.h>
#include <stdio.h>
{prototype};
{arrays}
int main(void)
{{
    while ({reads}) {{
        {name}_run({names});
        {writes}
    }}
    return 0;
}}
"""
# Of C -> of numpy.
_KINDS = {"float": "<f4", "int32_t": "<i4", "int16_t": "<i2", "int8_t": "i1", "uint8_t": "u1"}


@dataclass(frozen=True)
class Code:
    """Bytes of machine code, and what it was compiled for."""

    size: int
    target: str


def host_compiler() -> str | None:
    """CC, or the first of cc, gcc and clang that is there."""
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def run_on_host(
    source: CSource, inputs: Tensor, outputs: int, compiler: str, flags: tuple[str, ...] = ()
) -> Tensor:
    """What the C file yields for each row of its only input. Shapes: float32 (N, inputs) -> (N, outputs).

    Raises: CheckError, where it does not compile or fails.
    """
    found = run_samples(source, [[row] for row in inputs], compiler, flags)
    rows = torch.stack([torch.cat(parts) for parts in found])
    if rows.shape[1] != outputs:
        raise CheckError(f"the C program gave {rows.shape[1]} numbers a call; expected {outputs}")
    return rows


def run_samples(
    source: CSource, samples: Sequence[Sequence[Tensor]], compiler: str, flags: tuple[str, ...] = ()
) -> list[list[Tensor]]:
    """The outputs of the C file, flat, for the inputs of each call.

    Raises: CheckError, where it does not compile or fails.
    """
    given = b"".join(
        x.detach().reshape(-1).contiguous().numpy().astype(_KINDS[port.ctype]).tobytes()
        for sample in samples
        for x, port in zip(sample, source.inputs, strict=True)
    )
    with tempfile.TemporaryDirectory(prefix="binarize-c-") as folder:
        net, main, program = (Path(folder) / name for name in ("net.c", "main.c", "net"))
        net.write_text(source.text, encoding="ascii")
        main.write_text(_main(source), encoding="ascii")
        _run([compiler, *FLAGS, "-O2", *flags, str(net), str(main), "-o", str(program)])
        said = _run([str(program)], given)
    numbers = torch.from_numpy(np.frombuffer(said, dtype="<f4").copy())
    sizes = [port.size for port in source.outputs]
    if numbers.numel() != len(samples) * sum(sizes):
        raise CheckError(
            f"the C program gave {numbers.numel()} numbers; expected {len(samples)} x {sum(sizes)}"
        )
    return [list(row.split(sizes)) for row in numbers.view(len(samples), sum(sizes))]


def _main(source: CSource) -> str:
    ports = (*source.inputs, *source.outputs)
    reads = [f"fread({p.name}, sizeof {p.name}[0], {p.size}, stdin) == {p.size}" for p in source.inputs]
    writes = [f"fwrite({p.name}, sizeof {p.name}[0], {p.size}, stdout);" for p in source.outputs]
    return _MAIN.format(
        prototype=source.prototype,
        arrays="\n".join(f"static {p.ctype} {p.name}[{p.size}];" for p in ports),
        reads=" && ".join(reads),
        name=source.name,
        names=", ".join(p.name for p in ports),
        writes="\n        ".join(writes),
    )


def code_size(source: CSource, compiler: str | None) -> Code | None:
    """Size of the code for a Cortex-M3 with its soft floats, else for this machine; None where nobody can tell."""
    cross, sizes = shutil.which("arm-none-eabi-gcc"), shutil.which("arm-none-eabi-size")
    with tempfile.TemporaryDirectory(prefix="binarize-c-") as folder:
        net, made = Path(folder) / "net.c", Path(folder) / "net.out"
        net.write_text(source.text, encoding="ascii")
        if cross and sizes:
            linked = ("-nostartfiles", f"-Wl,-e,{source.name}_run,--gc-sections", "-lc", "-lgcc")
            _run([cross, *FLAGS, "-Os", "-mcpu=cortex-m3", "-mthumb", str(net), *linked, "-o", str(made)])
            return Code(_section_bytes(sizes, made, source), "Cortex-M3 with its float library, -Os")
        sizes = shutil.which("size")
        if compiler and sizes:
            _run([compiler, *FLAGS, "-Os", "-c", str(net), "-o", str(made)])
            return Code(_section_bytes(sizes, made, source), "this machine, -Os")
    return None


def _section_bytes(program: str, file: Path, source: CSource) -> int:
    """Everything that is stored, without the constants."""
    lines = _run([program, "-A", str(file)]).decode().splitlines()
    rows = [line.split() for line in lines if line.startswith(".")]
    stored = (".text", ".rodata", ".data", ".init", ".fini")
    total = sum(int(row[1]) for row in rows if row[0].startswith(stored) and len(row) > 1)
    return total - source.table_bytes


def _run(command: list[str], given: bytes = b"") -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, timeout=_SECONDS, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise CheckError(
            f"{Path(command[0]).name} failed on the C file: {said[0] if said else done.returncode}"
        )
    return done.stdout
