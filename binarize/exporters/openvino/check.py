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
from binarize.exporters.openvino.graph import Translated, layer_name, packed_calls
from binarize.exporters.program import Program, answers, tensors_of
from binarize.packed.freeze import Example
from binarize.report.units import plural

__all__ = ["Checked", "Precision", "check_file", "default_precision", "open_file", "run_file"]

# Of the largest number, for what is computed in float32, and in half of that.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2
# Without the hint the plugin takes bfloat16 where the processor has it.
_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}


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
    core = ov.Core()
    compiled = _compiled(core, core.read_model(path), batch, {"NUM_STREAMS": 1})
    found = compiled.get_property("INFERENCE_PRECISION_HINT")
    name = found if isinstance(found, str) else found.get_type_name()
    pairs = zip(answers(model, batch), _run(compiled, batch), strict=True)
    return Precision(name, max((largest_difference(a, b) for a, b in pairs), default=0.0))


def check_file(
    path: Path, model: nn.Module, program: Program, translated: Translated, batches: list[Example]
) -> Checked:
    """Run the file and the packed model on each batch.

    Raises: CheckError, naming the layer, where the file computes something else.
    """
    graph_module: Any = program.exported.module()
    half = any(tensor.dtype == torch.float16 for tensor in model.state_dict().values())
    end_to_end, float_difference = EndToEnd(), 0.0
    for batch in batches:
        outputs, taps = _run_tapped(path, batch, len(translated.calls))
        replay = _Replay(graph_module, translated, taps, _HALF_TOLERANCE if half else _TOLERANCE)
        _check_floats("the outputs", replay.run_on(batch), outputs, replay)
        float_difference = max(float_difference, replay.difference)
        end_to_end.add(answers(model, batch), run_file(path, batch))
    return Checked(len(translated.calls), float_difference, end_to_end)


def open_file(path: Path, batch: Example) -> Any:
    """The file, compiled for batches of that size."""
    core = ov.Core()
    return _compiled(core, core.read_model(path), batch)


def run_file(path: Path, batch: Example) -> list[Tensor]:
    """The file's outputs for one batch, of whatever size."""
    return _run(open_file(path, batch), batch)


def _run_tapped(path: Path, batch: Example, layers: int) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """(outputs, what each packed layer read and gave)."""
    core = ov.Core()
    model = core.read_model(path)
    named = {op.get_friendly_name(): op for op in model.get_ops()}
    own = len(model.outputs)
    for index in range(layers):
        name = layer_name(index)
        model.add_outputs([named[f"{name}/sign"].input_value(0), named[name].output(0)])
    values = _run(_compiled(core, model, batch), batch)
    pairs = values[own:]
    return values[:own], list(zip(pairs[::2], pairs[1::2], strict=True))


def _compiled(core: Any, model: Any, batch: Example, options: Mapping[str, Any] = _OPTIONS) -> Any:
    shapes = [list(x.shape) for x in tensors_of(batch)]
    model.reshape(dict(zip(model.inputs, shapes, strict=True)))
    return core.compile_model(model, "CPU", {**options, "INFERENCE_NUM_THREADS": torch.get_num_threads()})


def _run(compiled: Any, batch: Example) -> list[Tensor]:
    results = compiled([x.numpy() for x in tensors_of(batch)])
    return [torch.from_numpy(results[output].copy()) for output in compiled.outputs]


class _Replay(Interpreter):
    """Runs the program with OpenVINO's results in the place of its own packed layers, which are compared."""

    def __init__(
        self,
        graph_module: Any,
        translated: Translated,
        taps: list[tuple[Tensor, Tensor]],
        tolerance: float,
    ) -> None:
        super().__init__(graph_module)
        self.extra_traceback = False
        self.calls = translated.calls
        self.taps = dict(zip(packed_calls(graph_module), enumerate(taps), strict=True))
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
