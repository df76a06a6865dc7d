"""OpenVINO's own form of a network: NAME.xml, and NAME.bin with one bit a binary weight.

    import openvino

    model = openvino.compile_model("net.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits = model(x)[0]

Binary layers are BinaryConvolution, which the CPU plugin runs with XNOR and popcount, where that computes them right
(`openvino_limits.why_float`), else convolutions of +-1 in float32, with the same numbers. Both give the packed model's
bits on equal inputs; float layers add up in an order of OpenVINO's own. Without the hint above the plugin computes in
bfloat16 on processors that have it: faster, and with other numbers.

BinaryConvolution takes one size of batch: the file has a batch of 1, which `model.reshape` changes before compiling.
"""

from __future__ import annotations

from pathlib import Path

import openvino as ov
from torch import nn
from torch.export import ExportedProgram

from binarize.errors import UsageError
from binarize.exporters.export import Written
from binarize.exporters.openvino.check import check_file, default_precision
from binarize.exporters.openvino.graph import Translated, path_of, translate
from binarize.exporters.openvino.limits import why_float
from binarize.exporters.origin import origin_of
from binarize.exporters.program import (
    batch_size,
    kept_layers,
    record_program,
    refuse_bfloat16,
    tensors_of,
    with_rows,
)
from binarize.exporters.pt2 import slim
from binarize.exporters.theory import constants_in_theory
from binarize.packed.freeze import Example
from binarize.packed.layers import PackedLayer
from binarize.report.units import plural, size

__all__ = ["write"]

# Sizes of the batches on which the file is compared with the packed model: fewer where one input is large.
_ROWS, _FEW, _LARGE = (1, 7), (1, 2), 1 << 16


def write(model: nn.Module, example: Example, path: Path) -> Written:
    """Write the two files, and compare what OpenVINO makes of them with the packed model.

    Raises: UsageError, naming the layer and the reason, for what OpenVINO cannot express or crashes on; CheckError, where
    the files compute something else.
    """
    if path.suffix != ".xml":
        raise UsageError(
            f"export openvino: {path.name}: its name must end in .xml, the weights stand beside it in .bin"
        )
    refuse_bfloat16(model, "openvino", "OpenVINO's frontend")
    program = record_program(model, example, "openvino")
    slim(program.exported)
    translated = translate(program.exported)
    one = with_rows(example, 1, seed=1) if program.any_batch else example
    tensors = tensors_of(one)
    translated.model.reshape(
        {given: list(x.shape) for given, x in zip(translated.model.inputs, tensors, strict=True)}
    )
    for key, text in origin_of(model).items():
        translated.model.set_rt_info(text, key.split("."))
    ov.save_model(translated.model, path, compress_to_fp16=False)
    rows = _FEW if sum(x.numel() for x in tensors) >= _LARGE else _ROWS
    batches = [with_rows(example, n, seed=n) for n in rows] if program.any_batch else [example]
    try:
        checked = check_file(path, model, program, translated, batches)
    except UsageError as error:
        raise _with_the_layer(error, program.exported) from error
    precision = default_precision(path, model, batches[-1])
    theory, weights, graph = (
        constants_in_theory(model),
        path.with_suffix(".bin").stat().st_size,
        path.stat().st_size,
    )
    reasons = _float_products(model, translated)
    binary = sum(why_float(call.geometry) is None for call in translated.calls)
    facts = {
        "bytes": weights + graph,
        "theory": theory,
        "any_batch": program.any_batch,
        "batch": batch_size(one),
        "default_precision": precision.name,
        "default_difference": precision.difference,
        "binary_convolutions": binary,
        "float_products": reasons,
        **checked.to_json(),
    }
    over = f"theory {size(theory)}: one bit a binary weight, and numbers"
    table = (("weights", size(weights), over), ("graph", size(graph), path.name))
    lines = (
        *_lines(binary, reasons, _weights_alone(model)),
        _batch(one, program.any_batch),
        *checked.lines(),
    )
    said, warnings = precision.told()
    return Written(table, (*lines, *said), (*warnings, *kept_layers(model)), facts)


def _with_the_layer(error: UsageError, exported: ExportedProgram) -> UsageError:
    """A crash of the plugin with the layer that repeats its border, where one does: it crashes on such in front of signs."""
    for node in exported.graph.nodes:
        repeats = "replication_pad" in str(node.target) or "replicate" in node.args
        if repeats and "crashed" in str(error):
            return UsageError(
                f"export openvino: {path_of(node)}: replicate padding, on which OpenVINO's CPU plugin crashed; nothing was "
                "written; pad with zeros or by reflection, or try --format onnx"
            )
    return error


def _batch(one: Example, any_batch: bool) -> str:
    other = "; model.reshape before compiling gives another" if any_batch else ", the example's"
    return f"Takes a batch of {batch_size(one)} only{other}."


def _float_products(model: nn.Module, translated: Translated) -> dict[str, str]:
    """Path -> why a layer with a binary input is a convolution in float."""
    reasons = {call.path: why_float(call.geometry) for call in translated.calls}
    for path, layer in model.named_modules():
        # Others do not come as one call: a product of signs, then scales, in torch's operators.
        if isinstance(layer, PackedLayer) and not layer.float_input and path not in reasons:
            window = layer.window
            odd = "transposed" if window.kind != "conv" else f"{len(window.kernel)} dimensions"
            reasons[path] = f"{odd}, scaled like a float layer: within 1e-4"
    return {path: reason for path, reason in reasons.items() if reason}


def _weights_alone(model: nn.Module) -> int:
    return sum(isinstance(layer, PackedLayer) and layer.float_input for layer in model.modules())


def _lines(binary: int, reasons: dict[str, str], weights_alone: int) -> tuple[str, ...]:
    lines = [f"{plural(binary, 'BinaryConvolution')}."] if binary else []
    told = [f"{path}: {reason}" for path, reason in reasons.items()]
    if told:
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        lines.append(f"As convolutions of +-1 in float: {'; '.join(told[:3])}{more}.")
    if weights_alone:
        lines.append(
            f"{plural(weights_alone, 'layer')} with binary weights alone: float, weights kept as bits."
        )
    return tuple(lines)
