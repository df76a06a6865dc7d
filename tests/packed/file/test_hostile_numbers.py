"""Numbers in a packed file that ask for more than the file holds, and steps that do not fit: refused in words."""

from __future__ import annotations

import copy
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_graph import CONTENTS, X

import binarize
from binarize.errors import CaptureError, CheckError, SourceError, UsageError
from binarize.packed.file.format import FORMAT, _digest, read_file, write_file
from binarize.packed.frozen.form import Form
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_file(tmp_path / "packed.safetensors", CONTENTS)
    return tmp_path / "packed.safetensors"


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the index of a file and seal it anew."""
    tensors = load_file(path)
    index = json.loads(zlib.decompress(tensors.pop("index").numpy().tobytes()))
    edit(index)
    text = zlib.compress(json.dumps(index).encode())
    tensors["index"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    save_file(tensors, path, {"format": FORMAT, "sha256": _digest(FORMAT, tensors)})


def put(*way: Any) -> Callable[[Any], Callable[[dict[str, Any]], object]]:
    """A value at a place of the index."""

    def with_value(value: Any) -> Callable[[dict[str, Any]], object]:
        def edit(index: dict[str, Any]) -> None:
            place: Any = index
            for key in way[:-1]:
                place = place[key]
            place[way[-1]] = copy.deepcopy(value)

        return edit

    return with_value


TENSOR = "gain"
WINDOW = ("layers", "conv1", "window")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (put(*WINDOW, "stride")([1 << 24, 1]), r"layers\.conv1\.window\.stride\.0: .* less than or equal to 65536"),
        (put(*WINDOW, "stride")([1, "2"]), r"layers\.conv1\.window\.stride\.1: .* integer, found 2"),
        (put(*WINDOW, "padding")([1, 1, 1, 1 << 20]), r"layers\.conv1\.window\.padding\.3: "),
        (put(*WINDOW, "dilation")([0, 1]), r"layers\.conv1\.window\.dilation\.0: "),
        (put(*WINDOW, "evil")(1), r"layers\.conv1\.window\.evil: Extra inputs are not permitted"),
        (put("layers", "conv1", "planes")(1 << 20), r"layers\.conv1\.planes: "),
        (put("layers", "conv1", "outside")(1e300), r"layers\.conv1\.outside: "),
        (put("layers", "conv1")([]), r"layers\.conv1: "),
        (put("rest", 0)(["x", [1]]), r"rest\.0: "),
        (put("about", "shapes")([[1, 3, 1 << 20, 1 << 20]]), r"about\.shapes: "),
        (put("about", "shapes")({}), r"about\.shapes: "),
        (put("about", "folded")([]), r"about\.folded: "),
        (put("about", "made_of")({"weights": "x", "plan": "y"}), r"made_of: "),
    ],
)  # fmt: skip
def test_a_wrong_number_is_told_with_its_path(edit: Any, said: str, path: Path) -> None:
    change(path, edit)
    with pytest.raises(SourceError, match=rf"packed\.safetensors: .*{said}"):
        binarize.load_packed(path)


def test_a_large_kernel_in_a_small_file_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    window = Window("conv", 1, 1, (4096, 4096), (1, 1), (1, 1), (0, 0, 0, 0))
    form = Form(window, torch.ones(1, 1), torch.zeros(1))
    layer = PackedLayer.from_bits(form, torch.zeros(1, 1 << 21, dtype=torch.uint8))
    write_file(tmp_path / "large", type(CONTENTS)({"wide": layer}, {}, {}))
    with pytest.raises(SourceError, match=r"layers\.wide: it takes [\d,]+ bytes in memory; at most "):
        read_file(tmp_path / "large")


def test_honest_wide_layers_are_read(tmp_path: Path) -> None:
    windows = {
        "one row of a million": Window("linear", 1 << 20, 1),
        "a long filter": Window("conv", 1, 4, (4096,), (1,), (1,), (0, 0)),
        "depthwise": Window("conv", 512, 512, (7, 7), (1, 1), (1, 1), (3, 3, 3, 3), (), 512),
    }
    layers = {}
    for name, window in windows.items():
        form = Form(window, torch.ones(1, window.out_channels), torch.zeros(window.out_channels))
        layers[name] = PackedLayer.of(form, torch.zeros(window.weight_shape, dtype=torch.bool))
    write_file(tmp_path / "wide", type(CONTENTS)(layers, {}, {}))
    assert read_file(tmp_path / "wide").layers.keys() == windows.keys()


@pytest.mark.parametrize(
    "step",
    [
        ["function", "torch.zeros", [1 << 40], {}],
        ["method", "repeat", [{"node": 1}, 1, 1, 1 << 20, 1 << 20], {}],
        ["function", "functional.pad", [{"node": 1}, [1 << 20, 1 << 20, 1 << 20, 1 << 20]], {}],
    ],
)
def test_a_graph_that_asks_for_memory_is_refused(step: list[Any], path: Path) -> None:
    change(path, lambda index: index["about"]["graph"]["nodes"].append(step))
    with pytest.raises(SourceError, match=r"brings its results to [\d,]+ bytes on its input; at most"):
        binarize.load_packed(path)


@pytest.mark.parametrize(
    "step",
    [
        ["function", "operator.pow", [10**9, 10**9], {}],
        ["function", "operator.mul", ["a" * 200, 10**12], {}],
        ["function", "operator.mul", [[1], 10**12], {}],
        ["function", "operator.imul", [{"tuple": [1]}, 10**12], {}],
        ["function", "operator.add", [[[{"node": 1}]], []], {}],
        ["function", "torch.tensor_split", [{"node": 1}, 10**9], {}],
        ["method", "chunk", [{"node": 1}, 10**9], {}],
    ],
)
@pytest.mark.parametrize("first", [[], [["function", "torch.where", [{"node": 1}], {}]]])
def test_numbers_and_lists_that_no_tensor_shows_are_counted(
    step: list[Any], first: list[Any], path: Path
) -> None:
    change(
        path,
        lambda index: index["about"]["graph"]["nodes"].extend([*first, ["tensor", TENSOR, [], {}], step]),
    )
    with pytest.raises(SourceError, match=r"graph: [^\n]* are expected$"):
        binarize.load_packed(path)


# How many numbers are not 0, which is known only when the model runs.
COUNTED: list[list[Any]] = [
    ["tensor", TENSOR, [], {}],
    ["function", "torch.where", [{"node": 1}], {}],
    ["function", "operator.getitem", [{"node": 1}, 0], {}],
    ["method", "size", [{"node": 1}, 0], {}],
]
POWERS = [["function", "operator.pow", [{"node": 1}, {"node": 1}], {}]] * 3
SQUARES = [["function", "operator.mul", [{"node": 1}, {"node": 1}], {}]] * 40
SUMS = [
    ["function", "operator.imul", [{"node": 1}, 1 << 60], {}],
    *[["function", "operator.imul", [{"node": 1}, {"node": 1}], {}]] * 40,
]
LISTED = [
    ["function", "operator.mul", [[{"node": 1}], {"node": 1}], {}],
    *[["function", "operator.add", [{"node": 1}, {"node": 1}], {}]] * 40,
]
LISTED_IN_PLACE = [
    ["function", "operator.mul", [[{"node": 1}], {"node": 1}], {}],
    *[["function", "operator.iadd", [{"node": 1}, {"node": 1}], {}]] * 40,
]
PRODUCT = [
    ["function", "operator.mul", [[1 << 60], {"node": 1}], {}],
    ["function", "operator.mul", [{"node": 1}, 100], {}],
    ["function", "math.prod", [{"node": 1}], {}],
]
CUT = [
    ["function", "operator.mul", [{"node": 1}, 1 << 20], {}],
    ["tensor", TENSOR, [], {}],
    ["method", "sum", [{"node": 1}], {}],
    ["method", "expand", [{"node": 1}, {"node": 3}], {}],
    ["method", "split", [{"node": 1}, 1], {}],
]
REPEATED = [
    ["function", "torch.full", [[1], 1 << 40], {"dtype": {"dtype": "int64"}}],
    ["function", "operator.mul", [[1], {"node": 1}], {}],
]


def without_power(index: dict[str, Any]) -> None:
    """Leave out the argument of a fixed value, for which no model can be fused."""
    graph = index["about"]["graph"]
    del graph["inputs"][1]
    graph["nodes"][1][2][0] = {"node": 2}


@pytest.mark.parametrize(
    "steps", [POWERS, SQUARES, SUMS, LISTED, LISTED_IN_PLACE, PRODUCT, CUT, REPEATED], ids=range(8)
)
def test_numbers_that_are_known_only_when_it_runs_are_bounded(steps: list[Any], path: Path) -> None:
    change(path, lambda index: index["about"]["graph"]["nodes"].extend([*COUNTED, *steps]))
    model = binarize.load_packed(path)
    for again in (lambda: model, lambda: copy.deepcopy(model), lambda: pickle.loads(pickle.dumps(model))):
        with pytest.raises(UsageError, match=r"^graph: [^\n]* are expected$"):
            again()(X)
    change(path, without_power)
    model = binarize.load_packed(path)
    with pytest.raises((UsageError, CaptureError), match=r"graph: [^\n]* are expected$"):
        binarize.fuse(model, X)


def test_numbers_of_an_honest_size_are_computed(path: Path) -> None:
    change(path, lambda index: index["about"]["graph"]["nodes"].extend([*COUNTED, *POWERS[:1]]))
    change(path, without_power)
    model = binarize.load_packed(path)
    for again in (binarize.load_packed(path), pickle.loads(pickle.dumps(model)), binarize.fuse(model, X)):
        assert "check" not in str(again.graph)
        assert again(X) == model(X) == 32**32


def test_many_pieces_of_one_number_are_refused(path: Path) -> None:
    steps: list[Any] = [
        ["tensor", TENSOR, [], {}],
        ["method", "sum", [{"node": 1}], {}],
        ["method", "expand", [{"node": 1}, 10**9], {}],
        ["method", "split", [{"node": 1}, 1], {}],
    ]
    change(path, lambda index: index["about"]["graph"]["nodes"].extend(steps))
    with pytest.raises(SourceError, match="cuts a tensor into 1,000,000,000 pieces"):
        binarize.load_packed(path)


def test_shapes_that_are_missing_are_made_up_for_by_the_first_input(path: Path) -> None:
    def edit(index: dict[str, Any]) -> None:
        index["about"]["shapes"] = []
        index["about"]["graph"]["nodes"].append(
            ["method", "repeat", [{"node": 1}, 1, 1, 1 << 15, 1 << 15], {}]
        )

    change(path, edit)
    model = binarize.load_packed(path)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"brings its results to [\d,]+ bytes on its input"):
            model(X)


def test_a_step_that_fails_prints_nothing(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(
        path, lambda index: index["about"]["graph"]["nodes"].append(["method", "repeat", [{"node": 1}], {}])
    )
    with pytest.raises(CheckError, match="its step"):
        binarize.load_packed(path)(X)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_layers_that_repeat_their_input_do_so_within_bounds(path: Path) -> None:
    change(
        path,
        put("about", "graph", "modules", "stem")(["RepeatChannels", {"times": 1 << 30, "channel_dim": 1}]),
    )
    with pytest.raises(SourceError, match="RepeatChannels is not made with times="):
        binarize.load_packed(path)


def test_padding_that_no_result_shows_is_counted(path: Path) -> None:
    def edit(index: dict[str, Any]) -> None:
        given = index["about"]["graph"]["modules"]["stem"][1]
        given["padding"], given["stride"] = [1 << 15, 1 << 15], [1 << 16, 1 << 16]

    change(path, edit)
    with pytest.raises(SourceError, match=r"aten\.convolution\.default brings its results to"):
        binarize.load_packed(path)


def test_an_index_that_is_folded_too_often_is_refused(path: Path) -> None:
    change(path, put("about", "note")("x" * (1 << 24)))
    with pytest.raises(SourceError, match="its index is cut off, too long"):
        read_file(path)


def test_a_step_that_does_not_fit_is_named_when_it_runs(path: Path) -> None:
    nodes = read_file(path).about["graph"]["nodes"]
    place = next(i for i, node in enumerate(nodes) if node[1] == "fc")
    change(
        path, put("about", "graph", "nodes", place)(["function", "torch.mm", [{"node": 1}, {"node": 1}], {}])
    )
    model = binarize.load_packed(path)
    with pytest.raises(
        CheckError, match=r"packed model: its step 'mm' does not take .*RuntimeError.* packed for inputs"
    ):
        model(X)


def test_other_inputs_of_an_honest_graph_are_refused_in_words(path: Path) -> None:
    model = binarize.load_packed(path)
    with pytest.raises(CheckError, match=r"packed model: its step 'stem' does not take what it is given"):
        model(X[:, :2])
    with pytest.raises(CheckError, match=r"packed model: it does not take these inputs \(TypeError"):
        model()
    assert model(X).shape == (3, 5)
