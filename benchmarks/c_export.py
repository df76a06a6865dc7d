"""The bundled digits on an emulated microcontroller: the C file's logits against the packed model's, flash and RAM.

    python benchmarks/c_export.py DIR        a folder that `binarize demo` wrote

Compares all held-out digits bit for bit: on this machine, with its sanitizers, and on emulated Cortex-M boards where
the tools are installed (Debian: gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.cortex_m import BOARDS, run_on_board, tools_missing
from binarize.demo.digits import load_digits
from binarize.exporters.c.check import code_size, host_compiler, run_on_host
from binarize.exporters.c.in_order import in_order
from binarize.exporters.c.write import translate
from binarize.exporters.prepare import prepared
from binarize.exporters.theory import constants_in_theory


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    digits = load_digits()
    images, labels = digits.held_out_images, digits.held_out_labels
    packed, _ = prepared(folder, images, None)
    with torch.no_grad():
        with in_order():
            expected = packed(images)
        by_torch = packed(images)
        alone = torch.cat([packed(image[None]) for image in images])
    print(f"{len(images)} held-out digits, {share(expected.argmax(1) == labels)} right")
    print(f"torch's own order of sums: {same(by_torch, expected)}; its class: {agree(by_torch, expected)}")
    print(f"torch one digit at a time against torch in one batch: {same(alone, by_torch)}")
    source, integers = translate(packed, images[:1], "digits")
    equal = True
    compiler = host_compiler()
    if compiler is None:
        print("no C compiler")
        return 1
    for words, flags in (("this machine", ()), ("with ASan and UBSan", _SANITIZERS)):
        found = run_on_host(source, images, expected.shape[1], compiler, ("-Werror", *flags))
        equal &= report(words, found, expected, labels)
    for words, board in BOARDS.items() if not tools_missing() else ():
        started = time.perf_counter()
        found, stack = run_on_board(source, images, expected.shape[1], board)
        equal &= report(words, found, expected, labels)
        print(
            f"{'':28} {stack} bytes of stack, {time.perf_counter() - started:.1f} s under qemu {board.machine}"
        )
    if tools_missing():
        print(f"not run on a board: {', '.join(tools_missing())} missing")
    theory, code = constants_in_theory(packed), code_size(source, compiler)
    print(f"layers without floats        {integers}")
    print(f"constants                    {source.table_bytes:,} bytes; theory {theory:,}")
    if code is not None:
        flash = source.table_bytes + code.size
        print(f"code                         {code.size:,} bytes for {code.target}")
        print(f"flash                        {flash:,} bytes, {flash - theory:,} over theory (limit 8,192)")
        equal &= flash - theory <= 8192
    print(f"RAM                          {source.ram_bytes:,} bytes of static buffers")
    return 0 if equal else 1


_SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def report(words: str, found: Tensor, expected: Tensor, labels: Tensor) -> bool:
    """Prints one row; whether all bits are equal."""
    print(f"{words:28} {same(found, expected)}, {share(found.argmax(1) == labels)} right")
    return torch.equal(found.view(torch.int32), expected.view(torch.int32))


def same(a: Tensor, b: Tensor) -> str:
    """How many rows have the same bits."""
    equal = (a.contiguous().view(torch.int32) == b.contiguous().view(torch.int32)).all(1)
    largest = (a - b).abs().max().item()
    return f"{int(equal.sum())} of {len(a)} rows bit-equal" + (
        f", largest difference {largest:.1e}" if largest else ""
    )


def agree(a: Tensor, b: Tensor) -> str:
    """How many rows name the same class."""
    return f"{int((a.argmax(1) == b.argmax(1)).sum())} of {len(a)} equal"


def share(right: Tensor) -> str:
    """A share of rows in percent."""
    return f"{100 * right.float().mean().item():.1f} %"


if __name__ == "__main__":
    sys.exit(main())
