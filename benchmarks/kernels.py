"""Binary 3x3 convolutions against torch float32: one process, one thread, medians of interleaved rounds.

    python benchmarks/kernels.py                 what this processor can do
    python benchmarks/kernels.py --isa avx2      torch and the kernels both held to AVX2
    python benchmarks/kernels.py --threads 2     wall clock; needs an idle machine

A binary column holds all that a layer needs in a float network: signs and packing of a float image, convolution
with zero padding, scale and shift in float32. "conv" alone reads and writes packed bits; its efficiency is given in
bit products (one xor and one count) a cycle, against 341, which xor, vpopcntd and add reach on two 512-bit ports.
All include the call from Python. With one thread times are CPU time of the thread, so that other programs disturb
less; they do disturb on shared cores, and "registers" tells how much: what a loop without memory reached of 341 in
the same rounds. The clock rate is measured there too, with a chain of dependent multiplications.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SHAPES = ((64, 56), (128, 28), (256, 14), (512, 7))
PEAK = 341
PROBE = """
#include <immintrin.h>
long chain(long n)
{
    long a = n;
    for (long i = 0; i < n; i++)
        __asm__ volatile("imul %0,%0\\nimul %0,%0\\nimul %0,%0\\nimul %0,%0" : "+r"(a));
    return a;
}
__attribute__((target("avx512f,avx512vpopcntdq"))) long registers(long n)
{
    __m512i sum[8], x = _mm512_set1_epi32((int)n), w = _mm512_set1_epi32(77);
    if (!__builtin_cpu_supports("avx512vpopcntdq"))
        return 0;
    for (int i = 0; i < 8; i++)
        sum[i] = x;
    for (long k = 0; k < n; k++)
        for (int i = 0; i < 8; i++) {
            __m512i product = _mm512_xor_si512(x, w);
            __asm__ volatile("" : "+v"(product), "+v"(x));
            sum[i] = _mm512_add_epi32(sum[i], _mm512_popcnt_epi32(product));
        }
    for (int i = 1; i < 8; i++)
        sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    return _mm512_reduce_add_epi32(sum[0]) | 1;
}
"""
STEPS = 20000
CHAIN_CYCLES = 12 * STEPS  # four dependent multiplications of three cycles
REGISTER_PRODUCTS = 8 * 512 * STEPS


def measure(
    contenders: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each, one sample of at least 3 ms a round, all contenders in turn; " best" are the fastest."""
    repeats = {}
    for name, run in contenders.items():
        run()
        start = clock()
        run()
        repeats[name] = max(1, int(0.003 / max(clock() - start, 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            # Not counted: after wide multiplications the clock stays low for a while, whoever comes next.
            for _ in range(repeats[name] // 2):
                run()
            start = clock()
            for _ in range(repeats[name]):
                run()
            samples[name].append((clock() - start) / repeats[name])
    fastest = {f"{name} best": min(values) for name, values in samples.items()}
    return {name: statistics.median(values) for name, values in samples.items()} | fastest


def probes() -> dict[str, Callable[[], object]]:
    """What tells the clock rate and the load; nothing without a C compiler for this processor."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "probe.c"), Path(folder, "probe.so")
        source.write_text(PROBE, encoding="utf-8")
        command = ["cc", "-O3", "-shared", "-fPIC", str(source), "-o", str(library)]
        if subprocess.run(command, capture_output=True).returncode:
            return {}
        loaded = ctypes.CDLL(str(library))
    found = {}
    for name in ("chain", "registers"):
        probe = getattr(loaded, name)
        probe.argtypes, probe.restype = [ctypes.c_long], ctypes.c_long
        if probe(1):
            found[name] = functools.partial(probe, STEPS)
    return found


def compare(
    channels: int, size: int, rounds: int, threads: int, extra: dict[str, Callable[[], object]]
) -> dict[str, float]:
    """Median seconds of the contenders on one shape."""
    import torch
    from torch.nn import functional

    from binarize.kernels import operators
    from binarize.kernels.bits import pack_bits
    from binarize.kernels.geometry import Geometry

    generator = torch.Generator().manual_seed(0)
    nchw = torch.randn(1, channels, size, size, generator=generator)
    nhwc = nchw.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, generator=generator)
    float_weight = weight.contiguous(memory_format=torch.channels_last)
    scale, shift = torch.rand(channels, generator=generator), torch.randn(channels, generator=generator)
    limit, flip = torch.zeros(channels, dtype=torch.int32), torch.zeros(channels // 32, dtype=torch.int32)
    geometry = Geometry(channels, channels, (3, 3), padding=(1, 1, 1, 1))
    bits, sizes = pack_bits(weight < 0), operators.sizes_of(geometry)
    call, words = torch.ops.binarize, torch.ops.binarize.pack(nhwc)
    contenders: dict[str, Callable[[], object]] = {
        "float32": lambda: functional.conv2d(nhwc, float_weight, padding=1),
        "nhwc": lambda: call.conv(nhwc, bits, sizes, scale, shift),
        "nchw": lambda: call.conv(nchw, bits, sizes, scale, shift),
        "conv": lambda: call.conv_bits(words, bits, sizes, limit, flip),
        "pack": lambda: call.pack(nhwc),
    }
    contenders.update(extra)
    clock = time.thread_time if threads == 1 else time.perf_counter
    return measure(contenders, rounds, clock)


def efficiency(channels: int, size: int, times: dict[str, float]) -> str:
    if "chain" not in times:
        return ""
    hertz = CHAIN_CYCLES / times["chain"]
    rate = 9 * channels**2 * size**2 / (times["conv"] * hertz)
    text = f" {rate:4.0f} ({100 * rate / PEAK:.0f} %) at {hertz / 1e9:.2f} GHz"
    if "registers" in times:
        text += f"; registers {REGISTER_PRODUCTS / (times['registers'] * hertz):.0f}"
    return text


def report(rounds: int, threads: int) -> None:
    import torch

    from binarize.kernels import variants

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    variant, extra = variants.active(), probes() if threads == 1 else {}
    print(
        f"kernels: {variant.name if variant else 'reference'}, torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()}), {threads} thread(s), {rounds} rounds, medians in us"
    )
    print(
        f"shape     float32  total NHWC   NCHW   conv  pack | float32 / total | conv: bit products a cycle of {PEAK}"
    )
    total = dict.fromkeys(("float32", "nhwc", "nchw", "float32 best", "nhwc best"), 0.0)
    for channels, size in SHAPES:
        times = compare(channels, size, rounds, threads, extra)
        for name in total:
            total[name] += times[name]
        us = {name: 1e6 * seconds for name, seconds in times.items()}
        print(
            f"{channels:4d}@{size:<3d} {us['float32']:8.0f} {us['nhwc']:11.0f} {us['nchw']:6.0f} {us['conv']:6.0f} "
            f"{us['pack']:5.0f} | {us['float32'] / us['nhwc']:14.1f}x |{efficiency(channels, size, times)}"
        )
    print(
        f"sum      {1e6 * total['float32']:8.0f} {1e6 * total['nhwc']:11.0f} {1e6 * total['nchw']:6.0f}"
        f"              | {total['float32'] / total['nhwc']:14.1f}x | "
        f"by the fastest samples {total['float32 best'] / total['nhwc best']:.1f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Binary convolutions against torch float32.")
    parser.add_argument("--isa", choices=("best", "avx2", "scalar"), default="best")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.isa != "best" and os.environ.get("BINARIZE_KERNELS") != options.isa:
        # Both libraries read these when they are loaded, so a new process is needed.
        limits = {
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "BINARIZE_KERNELS": options.isa,
        }
        sys.exit(subprocess.run([sys.executable, *sys.argv], env={**os.environ, **limits}).returncode)
    report(options.rounds, options.threads)


if __name__ == "__main__":
    main()
