"""An OpenVINO model against the packed model, part by part: each on the very inputs that it had in OpenVINO.

    binary layers    equal numbers, on what OpenVINO gave them to read
    float parts      torch goes on with what OpenVINO's binary layers gave; within 1e-4 of the largest number

So a last digit that turns a sign, which any other order of float sums can do, is no difference. How far both are apart
end to end is told as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino as ov
import torch
from torch import Tensor, nn
from torch.fx import Interpreter
from torch.utils import _pytree as pytree

from binarize.errors import CheckError
from binarize.exporters.end_to_end import EndToEnd, largest_difference, largest_magnitude
from binarize.exporters.openvino.child import FLOAT32, run_elsewhere
from binarize.exporters.openvino.graph import Translated, layer_name, packed_calls
from binarize.exporters.openvino.plugin import compiled, run_compiled
from binarize.exporters.program import Program, answers, tensors_of
from binarize.packed.freeze import Example
from binarize.report.units import plural

__all__ = ["Checked", "Precision", "check_file", "default_precision", "open_file", "run_file"]

# Of the largest number, for what is computed in float32, and in half of that.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2


@dataclass(frozen=True)
class Checked:
    """What the comparison found."""

    layers: int
    # Float parts, of their largest number.
    float_difference: float
    end_to_end: EndToEnd

    def to_json(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {
            "verified": True,
            "layers": self.layers,
            "float_difference": self.float_difference,
            **self.end_to_end.to_json(),
        }

    def lines(self) -> tuple[str, ...]:
        """Sentences for people."""
        return (
            f"Run by OpenVINO in float32 on {plural(self.end_to_end.inputs, 'input')}: "
            f"{plural(self.layers, 'packed layer')} with the packed model's bits "
            f"on equal inputs, float parts within {self.float_difference:.1e} of theirs.",
            str(self.end_to_end),
        )


@dataclass(frozen=True)
class Precision:
    """What the plugin computes in here where nobody tells it, and how far that is from the packed model."""

    name: str
    difference: float

    def told(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(sentences, warnings)."""
        remedy = 'compile it with {"INFERENCE_PRECISION_HINT": "f32"}'
        if self.name == "f32":
            return (f"On processors with bfloat16 OpenVINO computes in that by default: {remedy}.",), ()
        return (), (
            f"OpenVINO computes in {self.name} by default on this processor: largest difference from the packed model "
            f"{self.difference:.1e}, where float32 was checked; {remedy}",
        )


def default_precision(path: Path, model: nn.Module, batch: Example) -> Precision:
    """How the file answers without the hint that every other check gives it."""
    (ran,) = run_elsewhere(path, [tensors_of(batch)], options={})
    pairs = zip(answers(model, batch), ran.outputs, strict=True)
    return Precision(ran.precision, max((largest_difference(a, b) for a, b in pairs), default=0.0))


def check_file(
    path: Path, model: nn.Module, program: Program, translated: Translated, batches: list[Example]
) -> Checked:
    """Run the file and the packed model on each batch.

    Raises: CheckError, naming the layer, where the file computes something else; UsageError, where it does not run.
    """
    graph_module = program.exported.module()
    half = any(tensor.dtype == torch.float16 for tensor in model.state_dict().values())
    end_to_end, float_difference = EndToEnd(), 0.0
    inputs = [tensors_of(batch) for batch in batches]
    tapped = run_elsewhere(path, inputs, layers=[layer_name(i) for i in range(len(translated.calls))])
    for batch, ran, plain in zip(batches, tapped, run_elsewhere(path, inputs), strict=True):
        replay = _Replay(graph_module, translated, ran.taps, _HALF_TOLERANCE if half else _TOLERANCE)
        _check_floats("the outputs", replay.run_on(batch), ran.outputs, replay)
        float_difference = max(float_difference, replay.difference)
        end_to_end.add(answers(model, batch), plain.outputs)
    return Checked(len(translated.calls), float_difference, end_to_end)


def open_file(path: Path, batch: Example) -> Any:
    """The file, compiled for batches of that size in this process."""
    core = ov.Core()
    return compiled(core, core.read_model(path), tensors_of(batch), FLOAT32)


def run_file(path: Path, batch: Example) -> list[Tensor]:
    """The file's outputs for one batch, of whatever size."""
    return run_compiled(open_file(path, batch), tensors_of(batch))


class _Replay(Interpreter):
    """Runs the program with OpenVINO's results in the place of its own packed layers, which are compared."""

    def __init__(
        self,
        graph_module: torch.fx.GraphModule,
        translated: Translated,
        taps: Mapping[str, tuple[Tensor, Tensor]],
        tolerance: float,
    ) -> None:
        super().__init__(graph_module)
        self.extra_traceback = False
        self.calls = translated.calls
        calls = packed_calls(graph_module)
        # A layer that is not there was merged with one that computes the same.
        self.taps = {calls[i]: (i, taps[name]) for i in range(len(calls)) if (name := layer_name(i)) in taps}
        self.difference, self.tolerance = 0.0, tolerance

    @torch.no_grad()
    def run_on(self, batch: Example) -> list[Tensor]:
        return tensors_of(self.run(*pytree.tree_leaves((batch[0], dict(batch[1])))))

    def run_node(self, n: torch.fx.Node) -> Any:
        if n not in self.taps:
            return super().run_node(n)
        index, (read, gave) = self.taps[n]
        path = self.calls[index].path
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        _check_floats(f"what {path} reads", [args[0].float()], [read.view(args[0].shape)], self)
        operator: Any = n.target
        ours = operator(read.view(args[0].shape), *args[1:], **kwargs)
        wrong = int((ours != gave.view(ours.shape)).sum())
        if wrong:
            raise CheckError(
                f"{path} gives other numbers in OpenVINO {ov.__version__.partition('-')[0]}: {wrong} of {ours.numel()} "
                "differ on equal inputs; nothing was written; try --format onnx"
            )
        return gave.view(ours.shape)


def _check_floats(what: str, ours: list[Tensor], theirs: list[Tensor], replay: _Replay) -> None:
    for a, b in zip(ours, theirs, strict=True):
        difference = largest_difference(a, b) / largest_magnitude(a)
        if not difference <= replay.tolerance:
            raise CheckError(
                f"the OpenVINO model computes something else than the packed model: {what} differ by {difference:.1e} "
                f"of the largest number, expected at most {replay.tolerance:.0e}; nothing was written"
            )
        replay.difference = max(replay.difference, difference)
