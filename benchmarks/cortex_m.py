"""A C file of `binarize export` run on an emulated microcontroller: an MPS2 board under qemu-system-arm.

Debian: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from binarize.exporters.c.check import FLAGS
from binarize.exporters.c.text import CSource

__all__ = ["BOARDS", "TOOLS", "Board", "run_on_board", "tools_missing"]

TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")


@dataclass(frozen=True)
class Board:
    """A board of the emulator, and how to compile for its processor."""

    machine: str
    flags: tuple[str, ...]


BOARDS = {
    "Cortex-M3, soft floats": Board("mps2-an385", ("-mcpu=cortex-m3", "-mthumb")),
    "Cortex-M4, hardware floats": Board(
        "mps2-an386", ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-DFPU")
    ),
}

# 4 MiB of memory for the program and 4 MiB for its data; the stack grows down from the end.
_LINK = """\
MEMORY { rom (rx) : ORIGIN = 0, LENGTH = 4M  ram (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
    .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > rom
    .ARM.exidx : { *(.ARM.exidx*) } > rom
    .data : { data_begin = .; *(.data*) . = ALIGN(4); data_end = .; } > ram AT > rom
    data_load = LOADADDR(.data);
    .bss : { bss_begin = .; *(.bss*) *(COMMON) . = ALIGN(4); bss_end = .; } > ram
    stack_end = ORIGIN(ram) + LENGTH(ram);
}
"""

# Talks to the emulator by semihosting: numbers go to its standard output, then how deep the stack was.
_MAIN = """\
#include <stdint.h>
#define STACK 4096 /* words that are watched */
extern uint32_t data_load[], data_begin[], data_end[], bss_begin[], bss_end[], stack_end[];
void {name}_run(const float *input, float *output);
static const float inputs[{n}][{inputs}] = {{
#include "inputs.h"
}};
static float output[{outputs}];
static uint32_t ask(uint32_t what, const void *with)
{{
    register uint32_t r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = with;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}}
static void stop(uint32_t reason)
{{
    ask(0x18, (const void *)reason);
    for (;;)
        ;
}}
static void write_out(const void *from, uint32_t bytes)
{{
    static uint32_t file;
    if (!file) {{
        const uint32_t name[3] = {{(uint32_t) ":tt", 4, 3}};
        file = ask(1, name);
    }}
    const uint32_t given[3] = {{file, (uint32_t)from, bytes}};
    ask(5, given);
}}
void reset(void)
{{
    for (uint32_t *to = data_begin, *from = data_load; to < data_end;)
        *to++ = *from++;
    for (uint32_t *to = bss_begin; to < bss_end;)
        *to++ = 0;
#ifdef FPU
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20;
    __asm__ volatile("dsb\\n isb");
#endif
    volatile uint32_t *stack = stack_end - STACK;
    for (uint32_t i = 0; i < STACK - 64; i++)
        stack[i] = 0xfeedc0de;
    for (int i = 0; i < {n}; i++) {{
        {name}_run(inputs[i], output);
        write_out(output, sizeof output);
    }}
    uint32_t untouched = 0;
    while (untouched < STACK && stack[untouched] == 0xfeedc0de)
        untouched++;
    uint32_t deepest = 4 * (STACK - untouched);
    write_out(&deepest, 4);
    stop(0x20026);
}}
static void fault(void) {{ stop(0x20023); }}
__attribute__((section(".vectors"), used)) void *const vectors[16] = {{
    stack_end, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault}};
"""


def tools_missing() -> list[str]:
    """Which of the tools are not there."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def run_on_board(
    source: CSource, inputs: Tensor, outputs: int, board: Board, seconds: float = 600
) -> tuple[Tensor, int]:
    """(what the C file yields for each row, bytes of stack that it took).

    Shapes: float32 (N, inputs) -> (N, outputs).
    Raises: RuntimeError, where it does not compile or the board stops on a fault.
    """
    rows = inputs.reshape(len(inputs), -1)
    with tempfile.TemporaryDirectory(prefix="binarize-arm-") as name:
        folder = Path(name)
        (folder / "net.c").write_text(source.text, encoding="ascii")
        sizes = {"name": source.name, "n": len(rows), "inputs": rows.shape[1], "outputs": outputs}
        (folder / "main.c").write_text(_MAIN.format(**sizes), encoding="ascii")
        numbers = ["{" + ", ".join(f"{float(x).hex()}f" for x in row) + "},\n" for row in rows]
        (folder / "inputs.h").write_text("".join(numbers), encoding="ascii")
        (folder / "link.ld").write_text(_LINK, encoding="ascii")
        net = ["arm-none-eabi-gcc", *FLAGS, "-Werror", "-Os", *board.flags]
        _run([*net, "-c", "net.c", "-o", "net.o"], folder, seconds)
        main = ["arm-none-eabi-gcc", "-std=gnu99", "-O1", *board.flags, "-nostartfiles", "-T", "link.ld"]
        _run([*main, "main.c", "net.o", "-lc", "-lgcc", "-o", "net.elf"], folder, seconds)
        emulator = [
            "qemu-system-arm",
            "-M",
            board.machine,
            "-nographic",
            "-monitor",
            "none",
            "-serial",
            "none",
        ]
        semihosting = ["-semihosting-config", "enable=on,target=native"]
        said = _run([*emulator, *semihosting, "-kernel", "net.elf"], folder, seconds)
    if len(said) != 4 * (len(rows) * outputs + 1):
        raise RuntimeError(f"the board gave {len(said)} bytes; expected {4 * (len(rows) * outputs + 1)}")
    found = np.frombuffer(said[:-4], dtype="<f4").reshape(len(rows), outputs)
    return torch.from_numpy(found.copy()), int.from_bytes(said[-4:], "little")


def _run(command: list[str], folder: Path, seconds: float) -> bytes:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
