"""How fast a converted model is: layer by layer and as a whole, packed beside the best that float is given.

All contenders run in one process, in turn, round after round, so that what disturbs one disturbs all; medians count.
With one thread times are the process's CPU time, with several wall time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from binarize.bench import rivals
from binarize.bench.rivals import Run
from binarize.bench.timing import interleaved, peak_bytes
from binarize.errors import CaptureError, UsageError
from binarize.kernels import variants as kernels
from binarize.layers.layer import BinaryLayer
from binarize.modules.modes import torch_threads
from binarize.packed.freeze import Example, freeze, pack_layers
from binarize.packed.fused.fuse import fuse
from binarize.packed.fused_conv import FusedConv
from binarize.packed.layers import PackedLayer

__all__ = ["Bench", "LayerBench", "Step", "bench"]


@dataclass(frozen=True)
class LayerBench:
    """Median seconds of one binary layer in its forms, its float BatchNorm left out everywhere."""

    name: str
    shape: tuple[int, ...]
    seconds: Mapping[str, float]

    @property
    def speedup(self) -> float:
        """float32 over packed."""
        return self.seconds["float32"] / self.seconds["packed"]


@dataclass(frozen=True)
class Step:
    """Median seconds of one step of the fused model; `glue` is what no binary kernel does."""

    name: str
    what: str
    seconds: float
    glue: bool


@dataclass(frozen=True)
class Bench:
    """What was measured."""

    layers: tuple[LayerBench, ...]
    # Of the whole model, by form: median seconds, peak bytes beyond the weights, bytes of the weights.
    seconds: Mapping[str, float]
    memory: Mapping[str, int]
    sizes: Mapping[str, int]
    steps: tuple[Step, ...]
    input_shape: tuple[int, ...]
    threads: int
    rounds: int
    kernels: str
    # Why there is no fused form, if so.
    unfused: str | None = None
    missing: tuple[str, ...] = field(default=())
    # Why, where more is known than that it is not installed.
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def glue(self) -> float:
        """Share of the fused model's time that is float."""
        total = sum(step.seconds for step in self.steps)
        return sum(step.seconds for step in self.steps if step.glue) / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**asdict(self), "glue_share": self.glue, "torch": torch.__version__}


def bench(
    model: nn.Module,
    float_model: nn.Module,
    x: Tensor,
    *,
    threads: int = 1,
    rounds: int = 11,
    seconds: float = 30,
) -> Bench:
    """Measure a converted model against the float model it was made from, on one input.

    No more rounds are run than fit into about `seconds` for the layers and as many for the whole.

    Raises: UsageError, where the model has no layer that can be packed.
    """
    with torch_threads(threads), torch.inference_mode(False), torch.no_grad():
        return _bench(model, float_model.eval(), x, threads, rounds, seconds)


def _bench(
    model: nn.Module, float_model: nn.Module, x: Tensor, threads: int, rounds: int, seconds: float
) -> Bench:
    example: Example = ((x,), {})
    packed = pack_layers(freeze(model.eval(), example))
    layers = {name: m for name, m in packed.named_modules() if isinstance(m, PackedLayer)}
    if not layers:
        raise UsageError("bench: no layer of the model can be packed; `binarize pack` says why")
    inputs = _inputs(packed, layers, x)
    rows = [
        _layer(model.get_submodule(name), layer, name, inputs[name], threads, rounds, seconds / len(layers))
        for name, layer in layers.items()
        if name in inputs
    ]
    reasons: dict[str, str] = {}
    runs: dict[str, Run | None] = {
        "float32": rivals.float32(float_model, x),
        "bfloat16": rivals.bfloat16(float_model, x),
        "int8": rivals.int8(float_model, x, reasons),
        "openvino float32": rivals.openvino(float_model, x, threads, reasons),
        "packed": lambda: packed(x),
    }
    fused, unfused = None, None
    try:
        fused = fuse(packed, x)
        runs["packed, fused"] = lambda: fused(x)
    except CaptureError as error:
        unfused = str(error).partition("\n")[0]
    there = {name: run for name, run in runs.items() if run is not None}
    with torch.inference_mode():
        times = interleaved(there, rounds, threads, seconds)
        memory = {name: peak_bytes(run) for name, run in there.items() if not name.startswith("openvino")}
        steps = () if fused is None else _steps(fused, x, rounds, threads)
    variant = kernels.active()
    return Bench(
        tuple(rows),
        times,
        memory,
        {"float32": _bytes(float_model), "packed": _packed_bytes(packed)},
        steps,
        tuple(x.shape),
        threads,
        rounds,
        "plain torch" if variant is None else variant.name,
        unfused,
        tuple(name for name, run in runs.items() if run is None),
        reasons,
    )


def _inputs(model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor) -> dict[str, Tensor]:
    """What each layer reads first."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            if isinstance(args[0], Tensor):
                found.setdefault(name, args[0].detach().clone())

        return hook

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _layer(
    trained: nn.Module, layer: PackedLayer, name: str, x: Tensor, threads: int, rounds: int, seconds: float
) -> LayerBench:
    plain = _float_layer(trained)
    image = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    runs: dict[str, Run | None] = {
        "float32": rivals.float32(plain, x),
        "bfloat16": rivals.bfloat16(plain, x),
        "int8": rivals.int8(nn.Sequential(plain), x),
        "openvino binary": rivals.openvino_binary(layer, x, threads),
        "packed": lambda: layer.product(image),
    }
    with torch.inference_mode():
        there = {key: run for key, run in runs.items() if run is not None}
        return LayerBench(name, tuple(x.shape), interleaved(there, rounds, threads, seconds))


def _float_layer(layer: nn.Module) -> nn.Module:
    """The torch layer that a binary layer is a kind of, on the same real-valued weight."""
    assert isinstance(layer, BinaryLayer)
    base: Any = next(c for c in type(layer).__mro__ if c.__module__.startswith("torch.nn.modules"))
    plain = base.__new__(base)
    plain.__dict__.update(layer.__dict__)
    plain.__dict__["_modules"] = {}
    plain.__dict__["_forward_hooks"] = type(layer.__dict__["_forward_hooks"])()
    made: nn.Module = plain
    return made


def _steps(fused: nn.Module, x: Tensor, rounds: int, threads: int) -> tuple[Step, ...]:
    assert isinstance(fused, torch.fx.GraphModule)
    clock = time.process_time if threads == 1 else time.perf_counter
    taken: dict[torch.fx.Node, list[float]] = {}

    class Clocked(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            start = clock()
            result = super().run_node(n)
            taken.setdefault(n, []).append(clock() - start)
            return result

    for _ in range(rounds + 1):
        Clocked(fused).run(x)
    found = []
    for node, values in taken.items():
        if node.op in ("placeholder", "output", "get_attr"):
            continue
        module = fused.get_submodule(str(node.target)) if node.op == "call_module" else None
        what = getattr(node.target, "__name__", str(node.target)) if module is None else type(module).__name__
        glue = not isinstance(module, (FusedConv, PackedLayer))
        found.append(Step(node.name, what, statistics.median(values[1:]), glue))
    return tuple(found)


def _bytes(model: nn.Module) -> int:
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def _packed_bytes(packed: nn.Module) -> int:
    """One bit a sign and four bytes a number in packed layers, the rest as it lies in memory."""
    layers = [m for m in packed.modules() if isinstance(m, PackedLayer)]
    own = {
        id(t) for layer in layers for t in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    }
    rest = sum(t.nbytes for t in (*packed.parameters(), *packed.buffers()) if id(t) not in own)
    return rest + sum(layer.packed_bytes() for layer in layers)
