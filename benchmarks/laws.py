"""The laws of a conversion on whole models of torchvision and timm: python benchmarks/laws.py [NAME ...]

One process a model with a time limit, so that one failure stays one line; what is done already is read back from
results/laws.jsonl, so that an interrupted run goes on (delete the file to start again). Needs scikit-learn, for two
photographs. With --quick the laws that compile are left out.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Most laws are those of the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import model_laws

TORCHVISION = (
    "vgg11 vgg11_bn resnet18 resnet50 mobilenet_v2 densenet121 inception_v3 googlenet squeezenet1_1 efficientnet_b0 "
    "regnet_y_400mf convnext_tiny deeplabv3_resnet50 r3d_18"
)
TIMM = (
    "resnet26 ghostnet_100 nf_resnet26 hrnet_w18_small convnext_atto efficientnet_lite0 regnetx_002 dla34 repvgg_a0 "
    "mobilenetv3_small_050"
)
MODELS = [
    *(f"torchvision:{name}" for name in TORCHVISION.split()),
    *(f"timm:{name}" for name in TIMM.split()),
]
RESULTS = Path("results/laws.jsonl")
# Pixels a side; the default suits models that halve the size five times.
SIDES = {
    "torchvision:inception_v3": 299,
    "torchvision:vgg11": 64,
    "torchvision:vgg11_bn": 64,
    "torchvision:r3d_18": 64,
}
SIDE = 96
SECONDS = 2400


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(check(arguments.names[0], arguments.quick)))
        return 0
    RESULTS.parent.mkdir(exist_ok=True)
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    seen = {result["model"] for result in done}
    for name in arguments.names:
        if name not in seen:
            result = run(name, arguments.quick)
            with RESULTS.open("a") as file:
                file.write(json.dumps(result) + "\n")
            done.append(result)
            print(line(result), flush=True)
    bad = [result for result in done if any(value != "ok" for value in result["laws"].values())]
    print(f"{len(done) - len(bad)} of {len(done)} models keep every law")
    return 1 if bad else 0


def run(name: str, quick: bool) -> dict[str, Any]:
    """One model in a process of its own."""
    words = [sys.executable, __file__, "--one", name, *(["--quick"] if quick else [])]
    try:
        process = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"model": name, "laws": {"time": f"not done in {SECONDS} s"}}
    if process.returncode:
        return {"model": name, "laws": {"convert": process.stderr.strip().splitlines()[-1]}}
    return dict(json.loads(process.stdout.splitlines()[-1]))


def line(result: dict[str, Any]) -> str:
    broken = {law: value for law, value in result["laws"].items() if value != "ok"}
    told = "; ".join(f"{law}: {value}" for law, value in broken.items()) or f"{len(result['laws'])} laws kept"
    binary = f"{result.get('binary', '?')}/{result.get('layers', '?')}"
    return f"{result['model']:34s} {binary:>8s} binary  {result.get('seconds', 0):6.1f} s  {told}"


def check(name: str, quick: bool) -> dict[str, Any]:
    """Convert one model and hold the result to each law."""
    import torch

    import binarize
    from binarize.sources import load

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load(name).module.eval()
    images = photographs(SIDES.get(name, SIDE), clip=name.endswith("r3d_18"))
    before, arguments = model_laws.fingerprint(model), ((images,), {})
    started = time.perf_counter()
    bnn: Any = binarize.convert(model, "adabin", shortcuts="every", example_input=images)
    seconds = time.perf_counter() - started
    laws: dict[str, Callable[[], str]] = {
        "original untouched": lambda: "ok" if model_laws.fingerprint(model) == before else "it changed",
        "keeps parameters": lambda: parameters_kept(model, bnn),
        "alive or warned of": lambda: model_laws.alive(bnn, arguments),
        "gradients": lambda: model_laws.gradients(model, bnn, arguments),
        "deepcopy": lambda: equal(bnn, copy.deepcopy(bnn), images),
        "pickle": lambda: equal(bnn, pickled(bnn), images),
        "save, load": lambda: saved(bnn, arguments),
        "twice refused": lambda: refused(bnn),
        "autocast, channels_last": lambda: half_precision(bnn, images),
        "data parallel": lambda: data_parallel(bnn, images),
    }
    if not quick:
        laws["export"] = lambda: by_torch(exported, bnn, images)
        laws["compile"] = lambda: by_torch(compiled, bnn, images)
    found = {}
    for law, holds in laws.items():
        try:
            found[law] = holds()
        except Exception as error:  # the table must name whatever breaks
            found[law] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    rows = bnn.report.rows
    return {
        "model": name,
        "layers": len(rows),
        "binary": sum(row.binary for row in rows),
        "seconds": round(seconds, 1),
        "laws": found,
    }


def photographs(side: int, clip: bool) -> Any:
    """Four crops of two photographs; for video models as clips of eight equal frames."""
    import torch
    from sklearn.datasets import load_sample_images

    images = torch.stack([torch.tensor(image) for image in load_sample_images().images]).permute(0, 3, 1, 2)
    images = torch.nn.functional.interpolate(
        (images / 255 - 0.45) / 0.225, size=(2 * side, side), mode="bilinear"
    )
    # Contiguous: in torch 2.14.1 the backward pass of Conv2d(3, 48, 1, stride=2) on channels_last input breaks memory.
    crops = torch.cat([images[:, :, :side], images[:, :, side:]]).contiguous()
    return crops[:, :, None].repeat(1, 1, 8, 1, 1) if clip else crops


def parameters_kept(model: Any, bnn: Any) -> str:
    import torch

    from binarize.conversion.float_names import float_names

    moved, own = float_names(bnn), dict(bnn.named_parameters())
    lost = [key for key, p in model.named_parameters() if not torch.equal(p, own[moved.get(key, key)])]
    return f"{lost[0]} changed" if lost else "ok"


def equal(bnn: Any, other: Any, images: Any) -> str:
    return model_laws.same_outputs(bnn.eval(), other.eval(), ((images,), {}))


def saved(bnn: Any, arguments: model_laws.Arguments) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return model_laws.saved(bnn, arguments, Path(folder))


def pickled(bnn: Any) -> Any:
    import torch

    file = io.BytesIO()
    torch.save(bnn, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def refused(bnn: Any) -> str:
    import binarize

    try:
        binarize.convert(bnn, "adabin")
    except binarize.BinarizeError:
        return "ok"
    return "converted again"


def half_precision(bnn: Any, images: Any) -> str:
    import torch

    net = copy.deepcopy(bnn).train()
    if images.dim() == 4:
        net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(value.float().square().mean() for value in model_laws.outputs(net, ((images,), {})))
    loss.backward()
    return "ok" if bool(torch.isfinite(loss)) else "not finite"


def data_parallel(bnn: Any, images: Any) -> str:
    """Gradients through DistributedDataParallel in a group of one are those without it."""
    import torch
    from torch import distributed

    def gradients_of(wrap: Callable[[Any], Any]) -> list[Any]:
        torch.manual_seed(0)
        net = copy.deepcopy(bnn).train()
        wrapped = wrap(net)
        sum(value.square().mean() for value in model_laws.outputs(wrapped, ((images,), {}))).backward()
        return [p.grad for p in net.parameters()]

    with tempfile.TemporaryDirectory() as folder:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            wrapped = gradients_of(
                lambda net: torch.nn.parallel.DistributedDataParallel(net, find_unused_parameters=True)
            )
        finally:
            distributed.destroy_process_group()
    alone = gradients_of(lambda net: net)
    pairs = [(a, b) for a, b in zip(alone, wrapped, strict=True) if a is not None]
    return "ok" if all(b is not None and torch.equal(a, b) for a, b in pairs) else "other gradients"


def by_torch(law: Callable[[Any, Any], str], bnn: Any, images: Any) -> str:
    """A law of what torch computes: our own kernels sum in another order, and compiled code does not call them."""
    from binarize.kernels import variants

    with variants.use("reference"):
        return law(bnn, images)


def exported(bnn: Any, images: Any) -> str:
    import torch

    program = torch.export.export(bnn.eval(), (images,), strict=False)
    return equal(bnn, _Call(program.module()), images)


def compiled(bnn: Any, images: Any) -> str:
    import torch

    return equal(bnn, _Call(torch.compile(bnn.eval(), backend="eager", fullgraph=True)), images)


class _Call:
    """A callable that stays in evaluation mode."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def eval(self) -> _Call:
        return self

    def __call__(self, images: Any) -> Any:
        return self.function(images)


if __name__ == "__main__":
    sys.exit(main())
