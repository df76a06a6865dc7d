"""A whole packed model against the best that torch and OpenVINO do with the float one, in one process.

    python benchmarks/resnet18.py                          Bi-Real-style ResNet-18 at 224, batch 1, one thread
    python benchmarks/resnet18.py --model vgg11 --scheme bireal
    python benchmarks/resnet18.py --isa avx2               torch and the kernels both held to AVX2
    python benchmarks/resnet18.py --threads 2              wall clock; needs an idle machine

Weights are random: the time does not depend on them. Medians over interleaved rounds, of the process's CPU time with
one thread. "fused" is `binarize.packed.fused.fuse`: residual adds, activations and the next layer's signs inside the kernels,
stems and 1x1 by a float kernel, norms of float layers folded. The share of float glue is that of the fused model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

# The ratio float32 / fused of the whole model: all instructions, AVX2.
LIMITS = {"resnet18": {"best": 5.5, "avx2": 4.0}, "vgg11": {"best": 7.0}}
LINEAR_LIMIT = 15.0


def run(name: str, scheme: str, threads: int, rounds: int, seconds: float, isa: str, as_json: bool) -> int:
    import torch
    import torchvision

    import binarize
    from binarize.bench.bench import bench

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    float_model = getattr(torchvision.models, name)().eval()
    x = torch.randn(1, 3, 224, 224)
    model = binarize.convert(float_model, scheme, example_input=x)
    found = bench(model, float_model, x, threads=threads, rounds=rounds, seconds=seconds)
    if as_json:
        print(json.dumps(found.to_json()))
        return 0
    print(f"{name}, {scheme}, kernels {found.kernels}, torch {torch.__version__}, {threads} thread(s)")
    for layer in found.layers:
        times = ", ".join(f"{form} {1e6 * value:.0f}" for form, value in layer.seconds.items())
        print(f"  {layer.name:22s} {'x'.join(map(str, layer.shape)):14s} {times} us  {layer.speedup:.1f}x")
    base = found.seconds["float32"]
    for form, value in found.seconds.items():
        print(f"  {form:18s} {1e3 * value:7.2f} ms  {base / value:5.2f}x")
    print(f"  float glue {100 * found.glue:.0f} %: ", end="")
    glue = sorted((step for step in found.steps if step.glue), key=lambda step: -step.seconds)
    print(", ".join(f"{step.name} {1e6 * step.seconds:.0f} us" for step in glue[:6]))
    ratio, limit = base / found.seconds["packed, fused"], LIMITS.get(name, {}).get(isa)
    good = limit is None or ratio >= limit
    if limit is not None:
        print(f"float32 / fused {ratio:.2f}x, at least {limit:g}x: {'ok' if good else 'UNDER'}")
    linear = [layer for layer in found.layers if len(layer.shape) == 2]
    for layer in linear:
        print(f"{layer.name}: {layer.speedup:.1f}x, at least {LINEAR_LIMIT:g}x")
        good = good and layer.speedup >= LINEAR_LIMIT
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="A whole packed model against float.")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--scheme", default=None)
    parser.add_argument("--isa", choices=("best", "avx2"), default="best")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.isa == "avx2" and os.environ.get("BINARIZE_KERNELS") != "avx2":
        # Both libraries read these when they are loaded, so a new process is needed.
        limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "BINARIZE_KERNELS": "avx2"}
        return subprocess.run([sys.executable, *sys.argv], env={**os.environ, **limits}).returncode
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that counts memory talks
    scheme = options.scheme or ("bireal_paper" if options.model == "resnet18" else "bireal")
    return run(
        options.model, scheme, options.threads, options.rounds, options.seconds, options.isa, options.json
    )


if __name__ == "__main__":
    sys.exit(main())
