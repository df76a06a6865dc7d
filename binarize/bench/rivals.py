"""What a packed layer or model is measured against: the fastest forms that other libraries give the float one.

Each function makes a callable without arguments, ready to be timed, or None where the library cannot; `reasons` then
says under the contender's name why.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse as fuse_norms

from binarize.exporters.openvino.limits import why_float
from binarize.packed.layers import PackedLayer

__all__ = ["Run", "bfloat16", "float32", "int8", "openvino", "openvino_binary"]

Run = Callable[[], object]


def float32(model: nn.Module, x: Tensor) -> Run:
    """Torch, each BatchNorm folded into the convolution before it where the model traces, channels last."""
    best, image = _best(model), _channels_last(x)
    return lambda: best(image)


def bfloat16(model: nn.Module, x: Tensor) -> Run:
    """The same in bfloat16; the input is rounded beforehand."""
    best, image = _best(model).to(torch.bfloat16), _channels_last(x).to(torch.bfloat16)
    return lambda: best(image)


def int8(model: nn.Module, x: Tensor, reasons: dict[str, str] | None = None) -> Run | None:
    """Torch's static quantization, calibrated on the input itself; float in and out."""
    engines = torch.backends.quantized.supported_engines
    wanted = next((name for name in ("x86", "qnnpack") if name in engines), None)
    if wanted is None:
        return None
    before = torch.backends.quantized.engine
    try:
        torch.backends.quantized.engine = wanted
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.ao.quantization import get_default_qconfig_mapping
            from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

            mapping = get_default_qconfig_mapping(wanted)
            prepared = prepare_fx(copy.deepcopy(model).eval(), mapping, (x,))
            with torch.no_grad():
                prepared(x)
            quantized = convert_fx(prepared)
            image = _channels_last(x)
            quantized(image)
    except Exception as error:  # what cannot be quantized raises anything
        _tell(reasons, "int8", error)
        return None
    finally:
        torch.backends.quantized.engine = before
    return lambda: quantized(image)


def openvino(model: nn.Module, x: Tensor, threads: int, reasons: dict[str, str] | None = None) -> Run | None:
    """OpenVINO in float32, where it is installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino as ov

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            converted = ov.convert_model(copy.deepcopy(model).eval(), example_input=x, input=[tuple(x.shape)])
    except Exception as error:  # what its frontend does not know raises anything
        _tell(reasons, "openvino float32", error)
        return None
    return _compiled(ov, converted, x, threads)


def openvino_binary(layer: PackedLayer, x: Tensor, threads: int) -> Run | None:
    """OpenVINO's BinaryConvolution with the signs of a packed convolution: signs of the input, integer sums out.

    None also where its sums are wrong.
    """
    window = layer.window
    fits = window.kind == "conv" and len(window.kernel) == 2 and window.padding_mode == "zeros"
    if importlib.util.find_spec("openvino") is None or not fits or layer.float_input or len(layer.scale) > 1:
        return None
    if why_float(window.geometry(x, int(layer.pad_value))) is not None:
        return None
    import numpy as np
    import openvino as ov
    from openvino import opset1

    shape = window.weight_shape
    upper = (~layer.lower).flatten().numpy().astype(np.uint8)
    bits = np.packbits(upper, bitorder="little")
    weight = ov.op.Constant(ov.Tensor(bits, list(shape), ov.Type.u1))
    image = opset1.parameter(list(x.shape), np.float32)
    zero, one = (opset1.constant(np.float32(value)) for value in (0, 1))
    threshold = opset1.constant(np.float32(0))
    binary = opset1.fake_quantize(image, threshold, threshold, zero, one, 2)
    left, right, top, bottom = window.padding
    product = opset1.binary_convolution(
        binary, weight, list(window.stride), [top, left], [bottom, right], list(window.dilation),
        "xnor-popcount", 0.0,
    )  # fmt: skip
    return _compiled(ov, ov.Model([product], [image]), x, threads)


def _tell(reasons: dict[str, str] | None, name: str, error: Exception) -> None:
    if reasons is not None:
        text = " ".join(str(error).split())
        reasons[name] = f"cannot run this model here ({type(error).__name__}: {text[:160]})"


def _compiled(ov: ModuleType, model: object, x: Tensor, threads: int) -> Run:
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = ov.compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(x.contiguous().numpy(), shared_memory=True))
    return lambda: request.infer()


def _best(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model).eval()
    with contextlib.suppress(Exception):  # a model that does not trace stays as it is
        model = fuse_norms(model)
    return model.to(memory_format=torch.channels_last)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
