"""The QONNX file against the packed model: by the definition of BipolarQuant, and by the qonnx package where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_layers import conv, linear
from side_by_side import BINARY, FLOAT_INPUTS, MIRRORED, SideBySide
from torch import nn

import binarize
from binarize.errors import UsageError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from binarize.exporters.onnx.check import (  # noqa: E402
    open_file,
    run,
)
from binarize.exporters.onnx.qonnx import (  # noqa: E402
    DOMAIN,
    define,
    write,
)

# A runtime may multiply the scales behind a product into its weights: equal but for the last digits.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-4}


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> tuple[SideBySide, Path, Any]:
    """(all kinds of packed layers, their file, what its writer found out)."""
    model = SideBySide(BINARY | FLOAT_INPUTS).eval()
    path = tmp_path_factory.mktemp("qonnx") / "kinds.onnx"
    return model, path, write(model, (model.inputs(1), {}), path)


def test_products_are_the_packed_layers(every_kind: tuple[SideBySide, Path, Any]) -> None:
    model, path, written = every_kind
    inputs = model.inputs(1)
    with torch.no_grad():
        expected = model(*inputs)
    for found, one in zip(
        run(open_file(define(onnx.load(path)).SerializeToString()), (inputs, {})), expected, strict=True
    ):
        torch.testing.assert_close(found, one, **TOLERANCE)
    assert written.facts["exact_products"] == len(BINARY)


def test_every_sign_and_every_weight_is_a_bipolar_quant(every_kind: tuple[SideBySide, Path, Any]) -> None:
    model, path, written = every_kind
    graph = onnx.load(path).graph
    quants = [node for node in graph.node if node.domain == DOMAIN]
    assert {node.op_type for node in quants} == {"BipolarQuant"}
    planes = sum(len(layer.scale) for layer in model.layers if not layer.float_input)
    assert written.facts["bipolar_quants"] == len(quants) == planes + len(model.layers)
    scales = {one.name: one for one in graph.initializer}
    assert all(onnx.numpy_helper.to_array(scales[node.input[1]]) == 1 for node in quants)
    weights = [onnx.numpy_helper.to_array(scales[n.input[0]]) for n in quants if n.input[0] in scales]
    assert len(weights) == len(model.layers) and all((abs(w) == 1).all() for w in weights)


def test_the_batch_is_one(every_kind: tuple[SideBySide, Path, Any]) -> None:
    for given in onnx.load(every_kind[1]).graph.input:
        assert given.type.tensor_type.shape.dim[0].dim_value == 1


@pytest.mark.parametrize(("pad_value", "padded"), [(0, True), (-1, False), (1, False)])
def test_padding_with_zero_warns_of_finn(pad_value: int, padded: bool, tmp_path: Path) -> None:
    layers = [conv(3, 4, pad=1, pad_value=pad_value), conv(4, 4, 1), nn.Flatten(), linear(64, 5)]
    written = write(nn.Sequential(*layers).eval(), ((torch.randn(1, 3, 4, 4),), {}), tmp_path / "net.onnx")
    assert [w.partition(":")[0] for w in written.warnings] == (["0"] if padded else [])
    kinds = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert ("Pad" in kinds) != padded


def test_padding_that_repeats_the_image_is_refused(tmp_path: Path) -> None:
    model = SideBySide({"reflect": MIRRORED["reflect"]}).eval()
    with pytest.raises(UsageError, match=r'export qonnx: layers\.0: padding_mode "reflect" .* --format onnx'):
        write(model, (model.inputs(1), {}), tmp_path / "net.onnx")


def test_a_converted_network(converted: Callable[..., nn.Module], tmp_path: Path) -> None:
    done = binarize.export(converted("BasicBlocks", "bireal"), "qonnx", tmp_path / "net.onnx")
    assert done.to_json()["verified"] is True
    assert done.to_json()["same_class"] == done.to_json()["inputs"] == 8
    assert [warning for warning in done.written.warnings if "padded with 0" in warning]


def test_the_qonnx_package_reads_bipolar_types(every_kind: tuple[SideBySide, Path, Any]) -> None:
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes

    wrapped = ModelWrapper(str(every_kind[1])).transform(InferShapes()).transform(InferDataTypes())
    products = [node for node in wrapped.graph.node if node.name.startswith("layers.")]
    types = {
        node.name: tuple(str(wrapped.get_tensor_datatype(name)) for name in node.input) for node in products
    }
    names = [*BINARY, *FLOAT_INPUTS]
    for name, found in ((names[int(path.split(".")[1])], found) for path, found in types.items()):
        # Behind 1 / 0 and behind a Pad, whose type qonnx does not infer, the input has no bipolar type.
        assert found[1] == "BIPOLAR"
        if name in ("padded with 0", "1x1", "linear", "tokens", "depthwise", "three planes"):
            assert found[0] == "BIPOLAR"
    assert len(types) == len(names)
