"""Planning and rewriting beside torch.fx, and the memory of a conversion: python benchmarks/stages.py [NAME ...]

For each model, in one process: processor seconds of capture + analysis + plan and of the rewriting (the copy of the
model excluded), divided by those of a symbolic trace with shapes propagated on real tensors of the same size; limit 8.
In a process of its own: the peak resident memory of `binarize.convert(model)` above what the imports take, divided by
the model's own size; limit 3.0, the source model included. Small models are nearly all interpreter: they tell nothing
about memory and have no limit there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

MODELS = "resnet18 resnet50 vgg11 vgg11_bn mobilenet_v2 densenet121 efficientnet_b0 convnext_tiny regnet_y_400mf vit_b_16"
RATIO_LIMIT, MEMORY_LIMIT, LARGE = 8.0, 3.0, 100 * 2**20
ROUNDS = 2


def main() -> int:
    if sys.argv[1:2] == ["--memory"]:
        print(json.dumps(memory(sys.argv[2])))
        return 0
    return 0 if table(sys.argv[1:] or MODELS.split()) else 1


def table(names: Sequence[str]) -> bool:
    """Prints a line a model; whether all are within the limits."""
    within = []
    total = [0.0, 0.0]
    for name in names:
        traced, ours = times(name)
        total = [total[0] + traced, total[1] + ours]
        words = [sys.executable, __file__, "--memory", name]
        size, peak = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        limited = size >= LARGE
        within += [ours / traced <= RATIO_LIMIT, not limited or peak / size <= MEMORY_LIMIT]
        print(
            f"{name:16s} trace {traced:5.2f} s, plan and rewrite {ours:5.2f} s, {ours / traced:4.1f}x   "
            f"model {size / 2**20:4.0f} MiB, peak {peak / 2**20:5.0f} MiB"
            + (f", {peak / size:.2f}x" if limited else ""),
            flush=True,
        )
    print(
        f"sum of times {total[1] / total[0]:.1f}x; {'all within the limits' if all(within) else 'OVER a limit'}"
    )
    return all(within)


def times(name: str) -> tuple[float, float]:
    """Processor seconds of the symbolic trace with shapes, and of our plan and rewriting; the best of the rounds."""
    import torch
    import torchvision
    from torch.fx.passes.shape_prop import ShapeProp

    import binarize
    from binarize.modules.copies import copy_model
    from binarize.passes.rewrite import rewrite

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    model = getattr(torchvision.models, name)().eval()
    x = torch.randn(1, 3, 224, 224)

    def trace() -> None:
        with torch.no_grad():
            ShapeProp(torch.fx.symbolic_trace(model)).propagate(x)

    found = []
    for _ in range(ROUNDS):
        traced = seconds(trace)
        planned = binarize.plan(model, "adabin", shortcuts="every", example_input=x).plan
        planning = seconds(lambda: binarize.plan(model, "adabin", shortcuts="every", example_input=x).plan)
        copied = copy_model(model)
        rewriting = seconds(lambda copied=copied, planned=planned: rewrite(copied, planned))  # type: ignore[misc]
        found.append((traced, planning + rewriting))
    return min(t for t, _ in found), min(o for _, o in found)


def seconds(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


def memory(name: str) -> tuple[int, int]:
    """(bytes of the model's parameters, peak bytes of building and converting it above those of the imports)."""
    import torch
    import torchvision

    import binarize
    import binarize.conversion.convert

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    # What the first use of torch and of a conversion loads and compiles is no part of the model's memory.
    tiny = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3) for _ in range(3)))
    binarize.convert(tiny, "adabin", overrides=["tiny.use=adabin"], example_input=torch.zeros(1, 3, 9, 9))
    before = resident("VmRSS")
    model = getattr(torchvision.models, name)().eval()
    binarize.convert(model, "adabin", shortcuts="missing")
    return sum(p.numel() * p.element_size() for p in model.parameters()), resident("VmHWM") - before


def resident(field: str) -> int:
    """Bytes that Linux tells of this process: VmRSS now, VmHWM at most (getrusage would tell the parent's peak too)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status: this needs Linux")


if __name__ == "__main__":
    sys.exit(main())
