"""What a training step of a converted model costs, against the float model's in the same process.

    python benchmarks/step.py                                  all models, inputs and schemes
    python benchmarks/step.py --models resnet18 --schemes bireal --rounds 20
    python benchmarks/step.py --device cuda
    python benchmarks/step.py --precision bf16 --channels-last     autocast; the limits are those of float32

A step is zero_grad, forward, cross-entropy, backward. Times are medians over interleaved rounds: of the processor time
of one thread on a CPU, of wall time between synchronisations on CUDA. Memory is the parameters and buffers and, on
top of them, the most bytes that the allocator had given out at any moment of one step. Both are printed as ratios
to the float model. `--forward off|on|auto` is the switch of `binarize.use_packed_forward`.

Of bnn, bitorch and brevitas, those that are installed run in the same rounds on the same model.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that counts memory talks

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import binarize

MIB = 2**20
INPUTS = ((16, 3, 64, 64), (4, 3, 224, 224))
# Largest ratios to the float model: time, memory.
LIMITS = {"resnet18": (1.3, 1.15), "vgg11": (1.4, 1.25), "mobilenet_v2": (1.35, 1.15)}


@dataclass
class Contender:
    """One model in training, and what its steps took."""

    model: nn.Module
    x: Tensor
    labels: Tensor
    seconds: list[float]
    half: bool = False
    peak: int = 0

    def step(self) -> None:
        """One training step but the optimizer's own."""
        self.model.zero_grad(set_to_none=True)
        with torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.half):
            loss = functional.cross_entropy(self.model(self.x), self.labels)
        loss.backward()

    def measure_time(self) -> None:
        """One more sample."""
        on_gpu = self.x.is_cuda
        if on_gpu:
            torch.cuda.synchronize()
        clock = time.perf_counter if on_gpu else time.process_time
        started = clock()
        self.step()
        if on_gpu:
            torch.cuda.synchronize()
        self.seconds.append(clock() - started)

    def measure_memory(self) -> None:
        """Peak live bytes of one step: the parameters and buffers, and what was allocated beyond them."""
        self.model.zero_grad(set_to_none=True)
        held = sum(t.nbytes for t in (*self.model.parameters(), *self.model.buffers()))
        if self.x.is_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.step()
            torch.cuda.synchronize()
            self.peak = held + torch.cuda.max_memory_allocated() - before
            return
        with torch.autograd.profiler.profile(profile_memory=True) as profile:
            self.step()
        events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
        live = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        self.peak = held + peak


def skipped(model: nn.Module) -> set[str]:
    """What the shipped rules keep float too: the first and last layer, depthwise and downsampling convolutions."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    names = list(layers)
    grouped = {n for n, m in layers.items() if getattr(m, "groups", 1) > 1}
    return {names[0], names[-1], *grouped, *(n for n in names if "downsample" in n)}


def bnn(model: nn.Module) -> nn.Module:
    """Converted by the package `bnn`, its XNOR-Net binarizers."""
    package, ops = importlib.import_module("bnn"), importlib.import_module("bnn.ops")
    config = package.BConfig(
        activation_pre_process=ops.BasicInputBinarizer,
        activation_post_process=nn.Identity,
        weight_pre_process=ops.XNORWeightBinarizer.with_args(center_weights=False),
    )
    ignored = list(skipped(model))
    converted: nn.Module = package.prepare_binary_model(model, config, ignore_layers_name=ignored)
    return converted


def bitorch(model: nn.Module) -> nn.Module:
    """Each layer replaced by the `bitorch` layer of its kind."""
    layers = importlib.import_module("bitorch.layers")
    kept = skipped(model)
    for name, m in list(model.named_modules()):
        if name in kept or not isinstance(m, (nn.Conv2d, nn.Linear)):
            continue
        if isinstance(m, nn.Linear):
            new = layers.QLinear(m.in_features, m.out_features, bias=m.bias is not None)
        else:
            sizes = (m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding)
            new = layers.QConv2d(*sizes, bias=False)
        model.set_submodule(name, new)
    return model


def brevitas(model: nn.Module) -> nn.Module:
    """Each layer replaced by the `brevitas` layer of its kind, with binary quantizers in front and inside."""
    layers = importlib.import_module("brevitas.nn")
    binary = importlib.import_module("brevitas.quant.binary")
    kept = skipped(model)
    for name, m in list(model.named_modules()):
        if name in kept or not isinstance(m, (nn.Conv2d, nn.Linear)):
            continue
        quantizers = {
            "weight_quant": binary.SignedBinaryWeightPerTensorConst,
            "input_quant": binary.SignedBinaryActPerTensorConst,
        }
        if isinstance(m, nn.Linear):
            new = layers.QuantLinear(m.in_features, m.out_features, m.bias is not None, **quantizers)
        else:
            sizes = (m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding)
            new = layers.QuantConv2d(*sizes, bias=m.bias is not None, **quantizers)
        model.set_submodule(name, new)
    return model


PEERS: dict[str, Callable[[nn.Module], nn.Module]] = {"bnn": bnn, "bitorch": bitorch, "brevitas": brevitas}


def installed_peers() -> Iterator[str]:
    for name in PEERS:
        if importlib.util.find_spec(name) is not None:
            yield name


def contenders(name: str, size: tuple[int, ...], options: argparse.Namespace) -> dict[str, Contender]:
    """The float model, the conversions by each scheme, and the peers that can convert this model."""
    torch.manual_seed(0)
    source = getattr(torchvision.models, name)(num_classes=1000)
    x, labels = torch.randn(size), torch.randint(0, 1000, (size[0],))
    models: dict[str, nn.Module] = {"float": source}
    for scheme in options.schemes:
        converted = binarize.convert(source, scheme, example_input=x)
        binarize.use_packed_forward(converted, options.forward)
        models[scheme] = converted
    for peer in installed_peers():
        try:
            models[peer] = PEERS[peer](copy.deepcopy(source))
        except (AssertionError, AttributeError, TypeError, ValueError) as error:
            print(f"  {peer}: does not convert {name} ({type(error).__name__}: {error})")
    memory_format = torch.channels_last if options.channels_last else torch.contiguous_format
    x = x.to(options.device, memory_format=memory_format)
    labels, half = labels.to(options.device), options.precision == "bf16"
    return {
        key: Contender(model.to(options.device, memory_format=memory_format).train(), x, labels, [], half)
        for key, model in models.items()
    }


def compare(name: str, size: tuple[int, ...], options: argparse.Namespace) -> bool:
    """Prints the rows of one model and input; whether ours are within the limits."""
    racing = contenders(name, size, options)
    for key, one in list(racing.items()):
        try:
            one.step()
            one.measure_memory()
        except RuntimeError as error:
            print(f"  {key}: the step fails on {name} ({str(error).splitlines()[0]})")
            del racing[key]
    for _ in range(options.rounds):
        for one in racing.values():
            one.measure_time()
    base = racing["float"]
    seconds = statistics.median(base.seconds)
    print(f"{name} {'x'.join(map(str, size))}: float {1e3 * seconds:.0f} ms, {base.peak / MIB:.0f} MiB")
    limits, within = LIMITS.get(name), True
    for key, one in racing.items():
        if key == "float":
            continue
        ratios = [a / b for a, b in zip(one.seconds, base.seconds)]
        ratio, memory = statistics.median(one.seconds) / seconds, one.peak / base.peak
        text = f"  {key:10s} {ratio:5.2f}x time [{min(ratios):.2f}, {max(ratios):.2f}]  {memory:5.2f}x memory"
        if limits is not None and key in options.schemes and options.precision == "32":
            ok = ratio <= limits[0] and memory <= limits[1]
            text += f"  limits {limits[0]:g}x, {limits[1]:g}x: {'ok' if ok else 'OVER'}"
            within = within and ok
        print(text, flush=True)
    return within


def main() -> int:
    parser = argparse.ArgumentParser(description="The cost of a training step of converted models.")
    parser.add_argument("--models", nargs="+", default=list(LIMITS))
    parser.add_argument("--schemes", nargs="+", default=["adabin", "bireal"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--forward", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--inputs", nargs="+", type=int, default=[0, 1], help="0: 16x3x64x64, 1: 4x3x224x224")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.device}, {options.threads} thread(s), precision {options.precision}, "
        f"{options.rounds} rounds, medians; forward: {options.forward}; "
        f"peers: {', '.join(installed_peers()) or 'none installed'}"
    )
    within = [compare(name, INPUTS[i], options) for name in options.models for i in options.inputs]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
