"""Packed files on whole models: python benchmarks/packed.py [exact] [sizes] [--only TEXT].

exact   every shipped scheme on ResNet-18, VGG-11, MobileNetV2 and DenseNet-121 with random weights: frozen and packed
        logits must be equal bit for bit on 32 random pictures, and so must those of the file read back alone; each
        frozen layer, given what the trained one reads, must be within 1e-5 of it in double precision, or nearer to
        that than the trained one is itself. Prints how far the whole frozen model is from the trained one: last
        digits turn signs, and where classes are random one sign may turn the class.
sizes   the files that were promised, next to what their numbers alone take, and to the float, latent and int8 models.

What is done already is read back from results/packed.jsonl, so that an interrupted run goes on (delete the file, or the
line, to do it again). No accuracy is claimed: the weights are random, the norms have the statistics of made-up pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODELS = ("resnet18", "vgg11", "mobilenet_v2", "densenet121")
SIDE, IMAGES, CLASSES = 64, 32, 10
# Of the largest magnitude of a layer's output.
LAYER_TOLERANCE = 1e-5
# Name -> (model, classes, scheme, layers that are made binary in spite of the rules, rest, most bytes).
MB, MIB = 10**6, 2**20
SIZES: dict[str, tuple[str, int, str, tuple[str, ...], str, int]] = {
    "ResNet-18, 1000 classes": ("resnet18", 1000, "bnn", (), "fp32", int(4.3 * MB)),
    "ResNet-18, 1000 classes, --rest fp16": ("resnet18", 1000, "bnn", (), "fp16", int(2.9 * MB)),
    "ResNet-18, 1000 classes, --rest int8": ("resnet18", 1000, "bnn", (), "int8", int(2.2 * MB)),
    "ResNet-18, 15 classes, binary downsampling": (
        "resnet18", 15, "bnn", ("**.downsample.0",), "fp32", int(1.45 * MIB)
    ),
    "ResNet-18, 15 classes, binary downsampling, adabin": (
        "resnet18", 15, "adabin", ("**.downsample.0",), "fp32", int(1.5 * MIB)
    ),
    "VGG-11, 15 classes": ("vgg11", 15, "bnn", (), "fp32", int(15.7 * MIB)),
}  # fmt: skip
RESULTS = Path(__file__).parent / "results" / "packed.jsonl"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["sizes", "exact"], metavar="exact|sizes")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this text in their name")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")

    import torch

    torch.set_num_threads(1)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    done = {result["name"]: result for result in map(json.loads, lines)}
    broken = 0
    for name, (measure, show) in cases(arguments.parts).items():
        if arguments.only not in name:
            continue
        if name not in done:
            started = time.perf_counter()
            done[name] = {"name": name, **measure(), "seconds": round(time.perf_counter() - started, 1)}
            with RESULTS.open("a") as file:
                file.write(json.dumps(done[name]) + "\n")
        print(f"{name:52s} {show(done[name])}", flush=True)
        broken += not done[name]["kept"]
    print(f"{broken} broken" if broken else "all kept")
    return 1 if broken else 0


Case = tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any]], str]]


def cases(parts: list[str]) -> dict[str, Case]:
    import binarize

    found: dict[str, Case] = {}
    if "sizes" in parts:
        for name, (model, classes, scheme, more, rest, most) in SIZES.items():

            def sized(
                model: str = model, classes: int = classes, scheme: str = scheme, more: Any = more,
                rest: str = rest, most: int = most,
            ) -> dict[str, Any]:  # fmt: skip
                return measure_size(model, classes, scheme, more, rest, most)

            found[name] = (sized, size_line)
    if "exact" in parts:
        for model in MODELS:
            for scheme in binarize.builtin_rule_sets():

                def exact(model: str = model, scheme: str = scheme) -> dict[str, Any]:
                    return measure_exactness(model, scheme)

                found[f"{model} {scheme}"] = (exact, exact_line)
    return found


# --- exact


def measure_exactness(model: str, scheme: str) -> dict[str, Any]:
    import torch

    import binarize
    from binarize.packed.drift import measure_drift
    from binarize.packed.freeze import pack_layers

    binary = converted(model, CLASSES, scheme, side=SIDE)
    settle(binary)
    generator = torch.Generator().manual_seed(1)
    images = pictures(IMAGES, generator)
    frozen = binarize.freeze(binary)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        expected = frozen(images)
        drift = measure_drift(binary, frozen, (images,))
        binarize.save(binary, Path(folder) / "net")
        packing = binarize.pack(Path(folder) / "net")
        alone = packing.path.rename(Path(folder) / "alone.safetensors")
        error, own = layer_error(binary, frozen, images[:8])
        layers = sum(1 for _ in packed_layers(pack_layers(frozen)))
        packed = torch.equal(frozen(images), expected)
        read = packing.needs is None and torch.equal(binarize.load_packed(alone)(images), expected)
    return {
        "images": IMAGES,
        "layers": layers,
        "kept_trained": len(packing.frozen.kept),
        "layer_error": error,
        "trained_error": own,
        "packed": packed,
        "alone": read,
        "needs": packing.needs,
        "turned": drift.turned,
        "signs": drift.signs,
        "same_top1": drift.same_top1,
        "classes": int(expected.argmax(1).unique().numel()),
        "over_theory": packing.sizes.over_theory,
        "kept": packed and read and error <= max(LAYER_TOLERANCE, own),
    }


def packed_layers(model: Any) -> Any:
    from binarize.packed.layers import PackedLayer

    return (module for module in model.modules() if isinstance(module, PackedLayer))


def layer_error(trained: Any, frozen: Any, images: Any) -> tuple[float, float]:
    """The largest relative errors of (a frozen layer, the trained one), each beside the trained one in double precision.

    With 25,088 terms a sum in float32 has lost five digits itself where its norm takes most of it away again.
    """
    import copy

    from binarize.packed.freeze import frozen_record
    from binarize.packed.frozen.layer import FrozenLayer

    folded, errors = frozen_record(frozen).folded, [(0.0, 0.0)]

    def compared(name: str, layer: Any) -> Any:
        def hook(module: Any, read: Any, y: Any) -> None:
            steps = [module, *([trained.get_submodule(folded[name])] if name in folded else [])]
            exact, own = read[0].double(), y if len(steps) == 1 else steps[1](y)
            for step in steps:
                wide = copy.deepcopy(step)
                wide._forward_hooks.clear()
                exact = wide.double()(exact)
            size = exact.abs().max().clamp_min(1e-20)
            errors.append(tuple(((found - exact).abs().max() / size).item() for found in (layer(*read), own)))

        return hook

    handles = [
        trained.get_submodule(name).register_forward_hook(compared(name, layer))
        for name, layer in frozen.named_modules()
        if isinstance(layer, FrozenLayer)
    ]
    trained(images)
    for handle in handles:
        handle.remove()
    # The layer furthest from what is asked of it.
    return max(errors, key=lambda found: found[0] / max(found[1], LAYER_TOLERANCE))


def pictures(count: int, generator: Any) -> Any:
    """(count, 3, SIDE, SIDE): patches of colour of all sizes, no two images alike.

    Of white noise every image looks the same behind a few layers: channels that hardly vary have norms that multiply
    the last digit of a sum until it is seen.
    """
    import torch
    from torch.nn import functional as F

    images = torch.zeros(count, 3, SIDE, SIDE)
    for side in (1, 2, 4, 8, 16, SIDE):
        images += F.interpolate(
            torch.randn(count, 3, side, side, generator=generator), (SIDE, SIDE), mode="bilinear"
        )
    return images / images.std()


def settle(model: Any) -> None:
    """Give the norms the statistics of pictures and shifts of their own, as training would have.

    Without shifts the mean over some hundred sums of +-1 may be one that occurs: the norm yields 0 for it, and of which
    sign torch's rounding decides. Nothing that was trained stands on such ties.
    """
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(4):
            model.train()(pictures(32, generator))
    for norm in norms:
        norm.momentum = 0.1
        if norm.bias is not None:
            torch.nn.init.normal_(norm.bias, std=0.1, generator=generator)
    model.eval()


def exact_line(result: dict[str, Any]) -> str:
    equal = "bit-equal" if result["packed"] else "OTHER BITS"
    alone = "file alone bit-equal" if result["alone"] else f"FILE ALONE: {result['needs']}"
    # Results of older versions do not say how exact the trained layer is itself.
    own = f" (trained {result['trained_error']:.0e})" if "trained_error" in result else ""
    errors = f"layers {result['layer_error']:.0e}{own}"
    trained = f"{errors}, same class {100 * result['same_top1']:.1f} %"
    return (
        f"{result['layers']:3d} layers {equal}, {alone}; trained: {trained}, "
        f"{result['turned']:,} of {result['signs']:,} signs differ; {100 * result['over_theory']:.2f} % over theory"
    )


# --- sizes


def measure_size(
    model: str, classes: int, scheme: str, more: tuple[str, ...], rest: Any, most: int
) -> dict[str, Any]:
    import binarize

    binary = converted(model, classes, scheme, side=SIDE, binarize=more)
    with tempfile.TemporaryDirectory() as folder:
        binarize.save(binary, Path(folder) / "net")
        sizes = binarize.pack(Path(folder) / "net", rest=rest).sizes
    within = sizes.file <= most and 0 <= sizes.over_theory <= 0.01
    return {
        "file": sizes.file,
        "theory": sizes.theory,
        "float": sizes.float_bytes,
        "latent": sizes.latent_bytes,
        "int8": sizes.int8_bytes,
        "most": most,
        "kept": within,
    }


def size_line(result: dict[str, Any]) -> str:
    over = 100 * (result["file"] / result["theory"] - 1)
    others = ", ".join(f"{key} {result[key] / MB:.2f}" for key in ("float", "latent", "int8"))
    return (
        f"{result['file'] / MB:.3f} MB = {result['file'] / MIB:.3f} MiB, {over:.2f} % over theory, "
        f"at most {result['most'] / MB:.3f} MB{'' if result['kept'] else ': MISSED'}; {others} MB"
    )


def converted(model: str, classes: int, scheme: str, side: int, **options: Any) -> Any:
    import torch

    import binarize

    torch.manual_seed(0)
    shape = (1, 3, side, side)
    return binarize.convert(f"torchvision:{model}", scheme, num_classes=classes, input_shape=shape, **options)


if __name__ == "__main__":
    sys.exit(main())
