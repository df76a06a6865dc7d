"""An ONNX file against the packed model it was made from, by ONNX Runtime.

Float layers differ in the last digit from one runtime to the next, and a last digit may turn a sign: no tolerance on a
network's output tells a wrong file from a right one. So each step is compared on what the file itself gave it:

    a product of a binary layer    on the file's own input: the same bits
    all float layers between       torch goes on with the file's product instead of its own: within 1e-4 of the largest

What is left, how the whole file's classes compare with those of the packed model, is said in numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from binarize.errors import CheckError
from binarize.exporters.end_to_end import EndToEnd, largest_difference, largest_magnitude
from binarize.exporters.onnx.layers import Probe
from binarize.exporters.program import answers, tensors_of, with_rows
from binarize.layers.layer import run_parts
from binarize.modules.places import set_everywhere
from binarize.packed.freeze import Example
from binarize.packed.layers import PackedLayer
from binarize.report.units import plural

__all__ = ["Checked", "check_file", "open_file", "run"]

# Of the largest magnitude of a tensor, for what is computed in float32, and in half of that.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2
# Inputs: few where they are large.
_ROWS, _FEW, _LARGE = 8, 3, 1 << 16


@dataclass(frozen=True)
class Checked:
    """What the comparison found."""

    # Calls of layers with binary inputs, whose products had the same bits.
    exact_products: int
    # Of those with float inputs, the largest difference, as a share of the largest magnitude.
    float_products: int
    # The same for what the float layers yield, on the same products.
    float_difference: float
    end_to_end: EndToEnd

    def to_json(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {
            "verified": True,
            "exact_products": self.exact_products,
            "float_products": self.float_products,
            "float_difference": self.float_difference,
            **self.end_to_end.to_json(),
        }

    def lines(self) -> tuple[str, ...]:
        """Sentences for people."""
        products = plural(self.exact_products, "binary product")
        said = (
            f"Run by ONNX Runtime on {self.end_to_end.inputs} inputs: {products} with the packed model's bits "
            f"on equal inputs, float layers within {self.float_difference:.1e} of theirs."
        )
        return said, str(self.end_to_end)


def check_file(
    path: Path,
    model: nn.Module,
    probes: Sequence[Probe],
    example: Example,
    any_batch: bool,
    define: Callable[[Any], Any] | None = None,
) -> Checked:
    """Compare a file with the packed model on noise of the example's shapes.

    `define` adds the definitions of operators that ONNX Runtime does not know, for which nothing is said of what it
    makes of the file: it then runs step by step, without optimizations.

    Raises: CheckError, where it computes something else.
    """
    proto = onnx.load(path) if define is None else define(onnx.load(path))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.checker.ValidationError as error:
        raise CheckError(f"{path.name} is no valid ONNX file: {str(error)[:300]}") from error
    batches, replay = _batches(example, any_batch), _Replay(model, probes)
    whole = open_file(proto.SerializeToString(), optimized=define is None)
    outputs = len(proto.graph.output)
    wanted = dict.fromkeys(name for probe in probes for name in (probe.reads, probe.gives))
    for name in wanted:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    watched = open_file(proto.SerializeToString(), optimized=define is None)
    del proto
    end_to_end = EndToEnd()
    for batch in batches:
        found = run(watched, batch)
        replay.compare(batch, found[:outputs], dict(zip(wanted, found[outputs:], strict=True)))
        end_to_end.add(answers(model, batch), run(whole, batch))
    return Checked(replay.exact, replay.approximate, replay.float_difference, end_to_end)


def open_file(file: Path | bytes, *, optimized: bool = True) -> Any:
    """A session of ONNX Runtime, on as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Warnings about shapes that the file leaves open.
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, batch: Example) -> list[Tensor]:
    """What a session makes of one batch."""
    named = {one.name: x.numpy() for one, x in zip(session.get_inputs(), tensors_of(batch), strict=True)}
    return [torch.from_numpy(value) for value in session.run(None, named)]


def _batches(example: Example, any_batch: bool) -> list[Example]:
    tensors = tensors_of(example)
    rows = _FEW if sum(x[:1].numel() for x in tensors) >= _LARGE else _ROWS
    if any_batch:
        return [with_rows(example, rows - 1, seed=1), with_rows(example, 1, seed=2)]
    size = len(tensors[0])
    return [with_rows(example, size, seed=seed) for seed in range(1, 1 + -(-rows // size))]


class _Replay:
    """The packed model, going on with a file's products in place of its own, and comparing both."""

    def __init__(self, model: nn.Module, probes: Sequence[Probe]) -> None:
        self.model = copy.deepcopy(model).eval()
        self.probes = probes
        self.players: dict[str, _Player] = {}
        self.exact = self.approximate = 0
        self.float_difference = 0.0
        for path, layer in list(self.model.named_modules()):
            if type(layer) is PackedLayer:
                self.players[path] = _Player.of_layer(layer, path, self)
                set_everywhere(self.model, path, self.players[path].eval())
        half = any(p.dtype in (torch.float16, torch.bfloat16) for p in self.model.parameters())
        self.tolerance = _HALF_TOLERANCE if half else _TOLERANCE

    def compare(self, batch: Example, outputs: list[Tensor], values: dict[str, Tensor]) -> None:
        """Raises: CheckError, where a product or a float layer of the file differs."""
        for path, player in self.players.items():
            player.waiting = [
                (values[p.reads], values[p.gives], p.size) for p in self.probes if p.layer == path
            ]
        self.exact = self.approximate = 0
        for i, (ours, theirs) in enumerate(zip(answers(self.model, batch), outputs, strict=True)):
            self.check_floats(ours, theirs, f"output {i}")

    def check_floats(self, ours: Tensor, theirs: Tensor, what: str) -> None:
        """Float values within the tolerance."""
        if ours.shape != theirs.shape:
            raise CheckError(f"{what} is {tuple(theirs.shape)} in the file, expected {tuple(ours.shape)}")
        difference = largest_difference(ours, theirs) / largest_magnitude(ours)
        if not difference <= self.tolerance:
            raise CheckError(
                f"the file computes something else than the packed model: {what} differs by {difference:.1e} of its "
                f"largest value, expected at most {self.tolerance:.0e}; nothing was written"
            )
        self.float_difference = max(self.float_difference, difference)


class _Player(PackedLayer):
    """A packed layer that gives what the file gave."""

    path: str
    replay: _Replay
    waiting: list[tuple[Tensor, Tensor, tuple[int, ...] | None]]

    @classmethod
    def of_layer(cls, layer: PackedLayer, path: str, replay: _Replay) -> _Player:
        player = cast(_Player, cls.from_bits(layer.form, layer.bits))
        player.take_parts(layer)
        player.path, player.replay, player.waiting = path, replay, []
        return player

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        read = x if self.front is None else self.front(x)
        if not self.waiting:  # the file reads the result of an equal call
            return super().forward(x, output_size)
        given, found, size = self.waiting.pop(0)
        self.replay.check_floats(read.float(), given, f"what {self.path} reads")
        expected = self.product(self.window.mirrored(given), None if size is None else list(size))
        if self.float_input:
            self.replay.check_floats(expected, found, f"the product of {self.path}")
            self.replay.approximate += 1
        else:
            self.check_bits(expected, found)
            self.replay.exact += 1
        return run_parts(self, x, found.to(x.dtype))

    def check_bits(self, expected: Tensor, found: Tensor) -> None:
        """A zero may have either sign."""
        wrong = (expected != found) & ~(expected.isnan() & found.isnan())
        if expected.shape != found.shape or bool(wrong.any()):
            raise CheckError(
                f"the file computes something else than the packed model: {int(wrong.sum())} of {wrong.numel()} "
                f"values of {self.path} differ on equal inputs; nothing was written"
            )
