"""The C file compiled and run: on this machine to compare its results, for a Cortex-M to measure its code."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from binarize.errors import CheckError
from binarize.exporters.c.text import CSource

__all__ = ["FLAGS", "Code", "code_size", "host_compiler", "run_on_host"]

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-ffp-contract=off")
_SECONDS = 600
_MAIN = """\
#include <stdio.h>
void {name}_run(const float *input, float *output);
static float input[{inputs}], output[{outputs}];
int main(void)
{{
    while (fread(input, sizeof(float), {inputs}, stdin) == {inputs}) {{
        {name}_run(input, output);
        fwrite(output, sizeof(float), {outputs}, stdout);
    }}
    return 0;
}}
"""


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
    """What the C file yields for each row. Shapes: float32 (N, inputs) -> (N, outputs).

    Raises: CheckError, where it does not compile or fails.
    """
    rows = inputs.reshape(len(inputs), -1).contiguous()
    with tempfile.TemporaryDirectory(prefix="binarize-c-") as folder:
        net, main, program = (Path(folder) / name for name in ("net.c", "main.c", "net"))
        net.write_text(source.text, encoding="ascii")
        main.write_text(
            _MAIN.format(name=source.name, inputs=rows.shape[1], outputs=outputs), encoding="ascii"
        )
        _run([compiler, *FLAGS, "-O2", *flags, str(net), str(main), "-o", str(program)])
        said = _run([str(program)], rows.numpy().astype("<f4").tobytes())
    found = np.frombuffer(said, dtype="<f4")
    if found.size != len(rows) * outputs:
        raise CheckError(f"the C program gave {found.size} numbers; expected {len(rows)} x {outputs}")
    return torch.from_numpy(found.copy()).view(len(rows), outputs)


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
