"""packed.safetensors: what is written comes back; whatever else is read is refused with a message, nothing more."""

from __future__ import annotations

import copy
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from binarize.errors import SourceError, UsageError
from binarize.kernels.bits import pack_bits
from binarize.packed.file import format as packed_file
from binarize.packed.file import tables
from binarize.packed.file.format import FORMAT, PackedModel, read_file, write_file
from binarize.packed.file.tables import Rest, narrowed, rest_bytes
from binarize.packed.frozen.form import Form
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window

CONV = Window("conv", 4, 6, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
LINEAR = Window("linear", 5, 3)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(window: Window, planes: int = 1, **options: Any) -> PackedLayer:
    out_channels = window.out_channels
    form = Form(window, randn(planes, out_channels), randn(out_channels, seed=1), **options)
    return PackedLayer.of(form, randn(*window.weight_shape, seed=2) < 0)


def model() -> PackedModel:
    layers = {
        "plain": layer(LINEAR),
        "block.adabin": layer(CONV, window_scale=randn(6), threshold=torch.full((1, 4), 0.5), outside=0.1),
        "block.multi": layer(CONV, planes=3, threshold=randn(3, 4), pad_value=-1),
        "dorefa": layer(replace(CONV, padding_mode="same"), zero_one=True, threshold=randn(1, 4)),
        "weights": layer(CONV, float_input=True, pad_value=0.25),
    }
    rest = {
        "stem.weight": randn(8, 3, 3, 3),
        "stem.bias": randn(8),
        "half": randn(4, 4).half(),
        "wide": randn(4, 4).double(),
        "index": torch.arange(6).view(2, 3),
        "flag": torch.tensor(True),
        "empty": torch.zeros(0, 3),
        "huge": torch.full((2, 2), 1e30),
        "zero": torch.zeros(2, 2),
    }
    return PackedModel(layers, rest, {"record": "abc", "strides": {"stem.weight": [1, 2]}})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_file(tmp_path / "packed.safetensors", model())
    return tmp_path / "packed.safetensors"


# --- what is written comes back


@pytest.mark.parametrize("rest", ["fp32", "fp16", "int8"])
def test_everything_comes_back(rest: Any, tmp_path: Path) -> None:
    written = model()
    write_file(tmp_path / "file", written, rest)
    read = read_file(tmp_path / "file")
    assert read.about == written.about
    assert read.layers.keys() == written.layers.keys()
    for name, expected in written.layers.items():
        found = read.layers[name]
        for flag in ("window", "outside", "pad_value", "zero_one", "float_input"):
            assert getattr(found, flag) == getattr(expected, flag)
        for table in ("bits", "scale", "shift", "window_scale", "threshold", "border"):
            a, b = getattr(found, table), getattr(expected, table)
            assert (a is None and b is None) or torch.equal(a, b)
    assert read.rest.keys() == written.rest.keys()
    for name, value in written.rest.items():
        assert read.rest[name].dtype == value.dtype
        assert torch.equal(read.rest[name], narrowed(value, rest))


def test_the_tables_hold_what_the_layers_need_and_nothing_more(path: Path) -> None:
    index, tensors = opened(path)
    written = model()
    layers = written.layers.values()
    assert torch.equal(tensors["bits"], torch.cat([pack_bits(one.lower).flatten() for one in layers]))
    assert tensors["bits"].numel() == sum(one.bits.numel() for one in layers)
    # Rows of A, B and C; a threshold that all channels share is one number.
    assert tensors["affine"].numel() == 2 * 3 + 3 * 6 + 4 * 6 + 2 * 6 + 2 * 6
    assert tensors["threshold"].numel() == 1 + 3 * 4 + 4
    assert {name: said.get("threshold") for name, said in index["layers"].items()} == {
        "plain": None,
        "block.adabin": "one",
        "block.multi": "each",
        "dorefa": "each",
        "weights": None,
    }
    rest = {"float32", "float16", "float64", "int64", "bool"}
    assert tensors.keys() == {"bits", "affine", "threshold"} | {f"rest.{kind}" for kind in rest}


def test_the_rest_is_rounded_as_asked() -> None:
    value = torch.tensor([[1.0, -0.5, 0.1], [3e-3, 0.0, -1e-3]])
    assert torch.equal(narrowed(value, "fp32"), value)
    assert torch.equal(narrowed(value, "fp16"), value.half().float())
    steps = torch.tensor([[127.0, -64, 13], [127, 0, -42]])
    torch.testing.assert_close(
        narrowed(value, "int8"), steps * torch.tensor([[1.0], [3e-3]]) / 127, rtol=1e-6, atol=0
    )
    narrow_ones: list[Rest] = ["fp16", "int8"]
    for rest in narrow_ones:
        again = narrowed(narrowed(value, rest), rest)
        torch.testing.assert_close(again, narrowed(value, rest), rtol=1e-6, atol=0)
    for kept in (value[0], value.double(), value.half(), torch.full((2, 2), torch.inf)):
        for rest in narrow_ones:
            assert torch.equal(narrowed(kept, rest), kept)
    assert torch.equal(narrowed(torch.full((2, 2), 1e30), "fp16"), torch.full((2, 2), 1e30))


@pytest.mark.parametrize(("rest", "expected"), [("fp32", 24), ("fp16", 12), ("int8", 14)])
def test_rest_bytes(rest: Any, expected: int) -> None:
    assert rest_bytes(torch.ones(2, 3), rest) == expected


def test_an_unknown_rest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rest='fp8': expected one of fp32, fp16, int8"):
        write_file(tmp_path / "file", model(), "fp8")  # type: ignore[arg-type]


# --- damage


def refuse(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_file(path)
    return str(caught.value)


def test_a_file_cut_off_anywhere_is_refused(path: Path) -> None:
    data = path.read_bytes()
    lengths = {*range(64), *range(0, len(data), 97), len(data) - 1}
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        refuse(path)


def test_a_file_with_any_flipped_bit_is_refused(path: Path) -> None:
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    chosen = random.Random(0)
    places = [*range(64), *(chosen.randrange(8 * (8 + header)) for _ in range(700))]
    places += [chosen.randrange(8 * (8 + header), 8 * len(data)) for _ in range(200)]
    for place in places:
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            read = read_file(path)
        except SourceError:
            continue
        # JSON has bits that say nothing: spaces around the header.
        assert same(read, model()), f"bit {place}"


def same(a: PackedModel, b: PackedModel) -> bool:
    numbers = [
        {f"{n}.{k}": v for n, one in m.layers.items() for k, v in one.state_dict().items()} | dict(m.rest)
        for m in (a, b)
    ]
    return (
        a.about == b.about
        and numbers[0].keys() == numbers[1].keys()
        and all(torch.equal(v, numbers[1][k]) for k, v in numbers[0].items())
    )


def test_bytes_behind_the_end_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 1000)
    refuse(path)


@pytest.mark.parametrize("length", [0, 1, 1 << 31, 1 << 40, (1 << 64) - 1])
def test_an_absurd_header_length_is_refused(length: int, path: Path) -> None:
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    refuse(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 60]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]},
        {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]},
        {"dtype": "os.system", "shape": [1], "data_offsets": [0, 4]},
    ],
)
def test_a_header_that_lies_about_a_tensor_is_refused(entry: dict[str, Any], tmp_path: Path) -> None:
    header = json.dumps({"bits": entry, "__metadata__": {"format": FORMAT}}).encode()
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    refuse(tmp_path / "file")


def test_what_is_no_file_of_ours_says_so(tmp_path: Path) -> None:
    assert "no such file" in refuse(tmp_path / "missing")
    assert "no such file" in refuse(tmp_path)
    (tmp_path / "empty").touch()
    assert "damaged or no packed model" in refuse(tmp_path / "empty")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    assert "it has no format" in refuse(tmp_path / "other")
    save_file({"x": torch.zeros(1)}, tmp_path / "newer", metadata={"format": "binarize packed 9"})
    assert "its format is 'binarize packed 9', expected 'binarize packed 1'" in refuse(tmp_path / "newer")


# --- malice: the sha256 is right


Content = tuple[dict[str, Any], dict[str, Tensor]]


def opened(path: Path) -> Content:
    """(index, tables)."""
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    return json.loads(zlib.decompress(tensors.pop("index").numpy().tobytes())), tensors


def sealed(path: Path, index: dict[str, Any] | bytes, tensors: dict[str, Tensor]) -> None:
    """Write a file whose sha256 is right, whatever it holds; an index of bytes is taken as it is."""
    data = index if isinstance(index, bytes) else zlib.compress(json.dumps(index).encode())
    tensors = {"index": torch.tensor(list(data), dtype=torch.uint8), **tensors}
    save_file(tensors, path, metadata={"format": FORMAT, "sha256": packed_file._digest(FORMAT, tensors)})


def put(*keys: str | int) -> Callable[[Any], Callable[[Content], None]]:
    def with_value(value: Any) -> Callable[[Content], None]:
        def change(content: Content) -> None:
            target: Any = content[0]
            for key in keys[:-1]:
                target = target[key]
            target[keys[-1]] = value

        return change

    return with_value


def table(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Content], None]:
    def with_table(content: Content) -> None:
        content[1][name] = change(content[1][name])

    return with_table


def without(name: str) -> Callable[[Content], None]:
    return lambda content: content[1].__delitem__(name)


ADABIN = ("layers", "block.adabin")
MALICE: dict[str, Callable[[Content], None]] = {
    "layers are a list": put("layers")([]),
    "a layer is a number": put(*ADABIN)(1),
    "a layer has no window": put(*ADABIN)({}),
    "an unknown flag": put(*ADABIN, "evil")(True),
    "a flag of another type": put(*ADABIN, "zero_one")("yes"),
    "a flag is no number": put(*ADABIN, "outside")(float("nan")),
    "a flag is infinite": put(*ADABIN, "outside")(float("inf")),
    "a flag is a huge integer": put(*ADABIN, "outside")(10**400),
    "no planes": put(*ADABIN, "planes")(0),
    "2^60 planes": put(*ADABIN, "planes")(1 << 60),
    "thresholds of another kind": put(*ADABIN, "threshold")("none"),
    "a window is a text": put(*ADABIN, "window")("os.system"),
    "a kernel of 2^40": put(*ADABIN, "window", "kernel")([1 << 40, 1 << 40]),
    "2^60 channels": put(*ADABIN, "window", "in_channels")(1 << 60),
    "no channels": put(*ADABIN, "window", "in_channels")(0),
    "negative padding": put(*ADABIN, "window", "padding")([-1, -1, -1, -1]),
    "padding with 7": put(*ADABIN, "pad_value")(7.0),
    "a row less": put(*ADABIN, "window_scale")(False),
    "a row more": put(*ADABIN, "planes")(2),
    "thresholds for each channel": put(*ADABIN, "threshold")("each"),
    "no thresholds for several planes": put("layers", "block.multi", "threshold")(""),
    "a threshold for floats": put("layers", "weights", "threshold")("one"),
    "a layer that is not there": put("layers", "ghost")({"window": LINEAR.to_json()}),
    "no bits": without("bits"),
    "fewer bits": table("bits", lambda t: t[:-1]),
    "more bits": table("bits", lambda t: torch.cat([t, t[:1]])),
    "bits of another type": table("bits", lambda t: t.float()),
    "bits of two axes": table("bits", lambda t: t[None]),
    "filling bits": table("bits", lambda t: t | 255),
    "no numbers": without("affine"),
    "whole numbers": table("affine", lambda t: t.long()),
    "small numbers": table("affine", lambda t: t.half()),
    "a table of nothing": lambda content: content[1].update(evil=torch.zeros(1)),
    "the rest is a text": put("rest")("x"),
    "a rest tensor is a text": put("rest", 0)("x"),
    "a rest tensor of another kind": put("rest", 0, 2)("object"),
    "a rest tensor of a deep kind": put("rest", 0, 2)([]),
    "a rest tensor without a name": put("rest", 0, 0)(None),
    "a rest tensor of -1 numbers": put("rest", 0, 1)([-1, 4]),
    "a rest tensor of 2^60 numbers": put("rest", 0, 1)([1 << 60]),
    "a rest tensor of 2^40 x 2^40 numbers": put("rest", 0, 1)([1 << 40, 1 << 40]),
    "a rest tensor of fewer numbers": put("rest", 0, 1)([8, 3, 3, 2]),
    "a scale of nothing": lambda content: content[1].update({"rest.scale": torch.zeros(8)}),
    "steps without a scale": put("rest", 0, 2)("step"),
    "a step alone": put("rest", 0)(["x", [], "step"]),
    "about is a list": put("about")([1]),
}


@pytest.mark.parametrize("name", list(MALICE))
def test_malice_with_a_right_checksum_is_refused(name: str, path: Path) -> None:
    content = opened(path)
    MALICE[name](content)
    sealed(path, *content)
    assert str(path) in refuse(path)


INDEXES: dict[str, bytes] = {
    "nothing": b"",
    "no deflated text": b"{}",
    "cut off": zlib.compress(b"{}")[:-1],
    "something behind it": zlib.compress(b"{}") + b"x",
    "no JSON": zlib.compress(b"{"),
    "no UTF-8": zlib.compress(b"\xff"),
    "a list": zlib.compress(b"[]"),
    "empty": zlib.compress(b"{}"),
    "deep": zlib.compress(b"[" * 100_000),
    "a number of 5000 digits": zlib.compress(b'{"x": ' + b"9" * 5000 + b"}"),
    "a bomb of 1 GiB": zlib.compress(b" " * (1 << 24), 9) * 64,
}


@pytest.mark.parametrize("name", list(INDEXES))
def test_an_index_that_is_none_is_refused(name: str, path: Path) -> None:
    sealed(path, INDEXES[name], opened(path)[1])
    refuse(path)


def test_an_index_that_unfolds_to_more_than_any_of_ours_is_not_unfolded(path: Path) -> None:
    packing = zlib.compressobj(9)
    bomb = b"".join(packing.compress(b" " * (1 << 24)) for _ in range(8)) + packing.flush()
    sealed(path, bomb, opened(path)[1])
    tracemalloc.start()
    assert "too long" in refuse(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The longest index as bytes and as text; unfolded whole the bomb would take twice as much.
    assert peak < 3 * packed_file._LONGEST_INDEX


def test_an_untouched_file_sealed_again_is_read(path: Path) -> None:
    sealed(path, *opened(path))
    assert same(read_file(path), model())


NUMBERS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 80), st.integers(), st.floats(), st.text(max_size=3)
)
VALUES = st.one_of(
    NUMBERS, st.lists(NUMBERS, max_size=5), st.dictionaries(st.text(max_size=3), NUMBERS, max_size=2)
)
WINDOW_KEYS = sorted(Window.__dataclass_fields__)
FLAG_KEYS = ["window", *tables._FLAGS]


@settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(sorted(model().layers)),
    window=st.dictionaries(st.sampled_from(WINDOW_KEYS), VALUES, max_size=2),
    flags=st.dictionaries(st.sampled_from(FLAG_KEYS), VALUES, max_size=1),
)
def test_any_other_description_is_refused_or_fits(
    name: str, window: dict[str, Any], flags: dict[str, Any], path: Path
) -> None:
    index, tensors = copy.deepcopy(CONTENT)
    index["layers"][name]["window"] |= window
    index["layers"][name] |= flags
    changed = path.with_name("changed")
    sealed(changed, index, tensors)
    try:
        read = read_file(changed)
    except SourceError:
        return
    assert sum(one.bits.numel() for one in read.layers.values()) == tensors["bits"].numel()


def _content() -> Content:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_file(Path(folder) / "file", model())
        return opened(Path(folder) / "file")


CONTENT = _content()
