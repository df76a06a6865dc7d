# ruff: noqa: E501  (one attack a line)
"""Attacks on the reading of pickles, each as the smallest file: refused with an error of ours, and nothing runs."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pickles_by_hand import (
    archive,
    call,
    dictionary,
    made,
    module,
    named,
    storage,
    tensor,
    text,
    tup,
    whole,
)
from torch import nn

from binarize.checkpoint.structure import load_structure
from binarize.errors import SourceError, UntrustedSourceError
from binarize.sources import load, load_pickle_safely

ORDERED = call("collections.OrderedDict")
FLOATS = call("numpy.dtype", text("f4"), b"\x89", b"\x88")
PLAIN_STATE = tup(whole(3), text("<"), b"N", b"N", b"N", whole(-1), whole(-1), whole(0))
SHELL = call("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), tup(whole(0)), text("b"))


def octets(content: str) -> bytes:
    return call("_codecs.encode", text(content), text("latin1"))


def array(shape: list[int], content: str, kind: bytes = FLOATS + PLAIN_STATE + b"b") -> bytes:
    return SHELL + tup(whole(1), tup(*map(whole, shape)), kind, b"\x89", octets(content)) + b"b"


def parameter(data: bytes) -> bytes:
    return call("torch._utils._rebuild_parameter", data, b"\x88", ORDERED)


PATH = "torch.nn.modules.linear.Identity"
KINDS = {
    # C types with a state of their own
    "dtype with another size": FLOATS + tup(whole(3), text("<"), b"N", b"N", b"N", whole(1 << 40), whole(1), whole(0)) + b"b",
    "dtype with fields": FLOATS + tup(whole(3), text("|"), b"N", tup(text("a")), dictionary(a=tup(FLOATS, whole(1 << 40))), whole(8), whole(1), whole(0)) + b"b",
    "dtype of objects": call("numpy.dtype", text("O8"), b"\x89", b"\x88"),
    "dtype of a made-up layout": call("numpy.dtype", text("f4,f4"), b"\x89", b"\x88"),
    "array longer than its bytes": array([1 << 20], "abcd"),
    "array of a negative length": array([-1, -1], "abcd"),
    "array of objects": SHELL + tup(whole(1), tup(whole(1)), FLOATS, b"\x89", b"](I1\ne") + b"b",
    "array of another class": call("numpy._core.multiarray._reconstruct", named("numpy.matrix"), tup(whole(0)), text("b")),
    "array that is made twice": array([1], "abcd") + tup(whole(1), tup(whole(9)), FLOATS, b"\x89", octets("abcd")) + b"b",
    "number longer than its type": call("numpy._core.multiarray.scalar", FLOATS, octets("abcdefgh")),
    "state of a tensor": tensor([2], [1]) + tup(whole(1)) + b"b",
    "state of a size": call("torch.Size", tup(whole(1))) + dictionary(x=b"N") + b"b",
    "state of a set": call("builtins.set", b"]") + dictionary(x=b"N") + b"b",
    "storage that is called": call("torch.FloatStorage", whole(4)),
    "tensor class that is called": call("torch.Tensor", whole(1 << 40)),
    "odd device": call("torch.device", text("cpu:-99999999999")),
    # constructors
    "module of arguments": named(PATH) + tup(whole(1)) + b"\x81",
    "module that is called": call(PATH),
    "module as the class of a tensor": call("torch._tensor._rebuild_from_type_v2", named("torch._utils._rebuild_tensor_v2"), named(PATH), tup(), b"}"),
    "tensor made by a module": call("torch._tensor._rebuild_from_type_v2", named(PATH), named("torch.Tensor"), tup(), b"}"),
    "tensor with its own method": call("torch._utils._rebuild_parameter_with_state", tensor([2], [1]), b"\x88", ORDERED, dictionary(detach=named("torch.nn.functional.relu"))),
    "tensor with hooks": call("torch._utils._rebuild_parameter", tensor([2], [1]), b"\x88", ORDERED + whole(1) + named("torch.nn.functional.relu") + b"s"),
    "partial of a foreign function": call("functools.partial", named("posix.mkdir")),
    "partial with another function later": call("functools.partial", named("torch.nn.functional.relu")) + tup(named("posix.mkdir"), tup(), b"}", b"N") + b"b",
    "partial with attributes": call("functools.partial", named("torch.nn.functional.relu")) + tup(named("torch.nn.functional.relu"), tup(), b"}", dictionary(x=b"N")) + b"b",
    "enumeration of what is no value": call("torchvision.transforms.functional.InterpolationMode", b"}"),
    "dictionary with a method": ORDERED + dictionary(keys=named("torch.nn.functional.relu")) + b"b",
    "dictionary of a foreign subclass that is called": call("collections.UserDict"),
    "namespace with a class": made("argparse.Namespace", dictionary(__class__=named(PATH))),
    "what a call gives is called": call("collections.OrderedDict") + b")R",
    "attributes put on a class": named(PATH) + dictionary(forward=b"N") + b"b",
    "extension": b"\x82\x01",
    # sizes
    "stride 0": parameter(tensor([10_000_000, 1_000_000], [0, 0])),
    "tensor behind its data": tensor([4], [1], offset=1),
    "stride out of its data": tensor([2, 2], [3, 1]),
    "negative stride": tensor([2], [-1], offset=3),
    "negative size": tensor([-1], [1]),
    "size beyond 64 bits": tensor([1 << 40, 1 << 40], [0, 0]),
    "too many dimensions": tensor([1] * 65, [1] * 65),
    "elements one upon another": parameter(tensor([4, 2], [0, 1])),
    "storage of another length": tensor([4], [1], held=5),
    "storage of a negative length": tensor([4], [1], held=-4),
    "storage that is not there": tup(text("storage"), named("torch.FloatStorage"), text("7"), text("cpu"), whole(4)) + b"Q",
    "truth values of other bytes": call("torch._utils._rebuild_tensor_v2", storage(16, "BoolStorage", "1"), whole(0), tup(whole(16)), tup(whole(1)), b"\x89", ORDERED),
    "shape without data": call("torch._utils._rebuild_meta_tensor_no_storage", named("torch.float32"), tup(whole(1 << 40), whole(1 << 40)), tup(whole(1 << 40), whole(1)), b"\x89"),
    # endless
    "long integer": b"\x8b" + (100_000).to_bytes(4, "little") + b"\x7f" * 100_000,
    "key of 60 nested tuples": b"}I1\n" + b"".join(b"q%cK\x01h%c\x86" % (n, n) for n in range(60)) + b"I1\ns",
    "key of many nested tuples": b"}" + b")" + b"\x85" * 200_000 + b"I1\ns",
    "many nested tuples": b")" + b"\x85" * 200_000,
    "lists that share lists": b"]" + b"".join(b"q%c0](h%ch%ce" % (n, n, n) for n in range(60)),
    "a list that holds itself": b"]q\x00h\x00a",
    "memory numbers chosen to collide": b"".join(b"Kir\x00\x00%c\x010" % n for n in range(256)) + b"N",
    # dictionaries of modules
    "module that holds itself": module(_modules=b"}q\x01") + b"q\x02h\x01" + text("x") + b"h\x02s0",
    "modules that share modules": module() + b"".join(b"q%c0" % n + module(_modules=dictionary(a=b"h%c" % n, b=b"h%c" % n)) for n in range(30)),
    "modules one in another": module() + b"".join(b"q\x000" + module(_modules=dictionary(a=b"h\x00")) for n in range(200)),
    "child with a dot": module(_modules=b"}" + text("a.b") + module() + b"s"),
    "child with an escape sequence": module(_modules=b"}" + text("a\x1b]0;b\x07") + module() + b"s"),
    "child called forward": module(_modules=dictionary(forward=module())),
    "child that copies": module(_modules=dictionary(__deepcopy__=module())),
    "parameter that is a number": module(_parameters=dictionary(weight=whole(1))),
    "buffer that is a module": module(_buffers=dictionary(weight=module())),
    "tables of another class": module(_modules=call("collections.Counter")),
    "name twice": module(_modules=dictionary(a=module()), a=b"N"),
    "state that is no dictionary": made(PATH, tup(b"N", b"N")),
    "no state": named(PATH) + b")\x81",
    "compiled call": module(_compiled_call_impl=named("torch.nn.functional.relu")),
    "weight norm of another name": module(_forward_pre_hooks=ORDERED + whole(1) + made("torch.nn.utils.weight_norm.WeightNorm", dictionary(name=text("forward"), dim=whole(0))) + b"s"),
    "spectral norm for ever": made("torch.nn.utils.spectral_norm.SpectralNorm", dictionary(name=text("w"), dim=whole(0), n_power_iterations=whole(1 << 40), eps=b"G" + bytes(8))),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_hostile_pickles_are_refused(name: str, tmp_path: Path) -> None:
    file = archive(tmp_path / "bad.pt", KINDS[name], **{"1": b"\x02" * 16})
    for read in (load_pickle_safely, load_structure, lambda path: load(str(path))):
        with pytest.raises(SourceError) as caught:
            read(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert str(caught.value).isprintable()


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


METHODS = [
    name for name in dir(nn.Module) if callable(getattr(nn.Module, name)) and not name.startswith("__")
]


@pytest.mark.parametrize("value", [nn.functional.relu, nn.ReLU, nn.ReLU(), None, torch.zeros(1)])
def test_attributes_that_shadow_methods_are_refused(value: object, tmp_path: Path) -> None:
    assert {"forward", "train", "to", "state_dict", "named_modules", "_apply", "_call_impl"} <= set(METHODS)
    for name in METHODS:
        net = nn.Sequential(nn.Linear(2, 2))
        vars(net[0])[name] = value
        with pytest.raises(UntrustedSourceError, match=f"a Linear in it has its own '{name}'"):
            load_pickle_safely(saved(net, tmp_path / "bad.pt"))


@pytest.mark.parametrize("table", [name for name in vars(nn.Module()) if name.endswith("_hooks")])
def test_hooks_are_refused(table: str, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    getattr(net[0], table)[1] = nn.functional.relu
    with pytest.raises(SourceError, match=table):
        load(str(saved(net, tmp_path / "bad.pt")))


@pytest.mark.parametrize(
    "value",
    [1, 2.5, "x", None, (1, 2), [nn.ReLU()], {"a": 1}, torch.zeros(2), nn.functional.gelu, nn.BatchNorm2d],
)
def test_honest_attributes_are_kept(value: object, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].extra = value
    read = load_pickle_safely(saved(net, tmp_path / "net.pt"))
    assert isinstance(read, nn.Sequential)
    assert type(read[0].extra) is type(value)


def test_a_parameter_keeps_its_plain_attributes(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    net.weight.lr_scale = 0.5  # type: ignore[attr-defined]
    read = load_pickle_safely(saved(net, tmp_path / "net.pt"))
    assert read.weight.lr_scale == 0.5  # type: ignore[attr-defined]


def compressed(path: Path, record: str) -> None:
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in records.items():
            kind = zipfile.ZIP_DEFLATED if name.endswith(record) else zipfile.ZIP_STORED
            file.writestr(name, content, compress_type=kind)


@pytest.mark.parametrize("record", ["data.pkl", "data/0"])
def test_compressed_records_are_refused(record: str, tmp_path: Path) -> None:
    """A few bytes can stand for many gigabytes."""
    file = saved(torch.zeros(100_000), tmp_path / "net.pt")
    compressed(file, record)
    with pytest.raises(SourceError, match=f"its record 'net/{record}' is compressed"):
        load_pickle_safely(file)


def test_records_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A thousand tensors of a gigabyte, all of them the same bytes of the file."""
    file = saved([torch.zeros(1000), torch.zeros(1000)], tmp_path / "net.pt")
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as opened:
        place = opened.getinfo("net/data/0").header_offset
    entry = content.rindex(b"net/data/1") - 46  # the directory at the end says where each record begins
    content[entry + 42 : entry + 46] = place.to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(SourceError):
        load_pickle_safely(file)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.pt")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    reads: tuple[Callable[[Path], object], ...] = (
        load_pickle_safely,
        load_structure,
        lambda path: load(str(path)),
    )
    for path in (tmp_path / "net.pt", tmp_path / "loop.pt", Path("/dev/zero"), tmp_path):
        for read in reads:
            with pytest.raises(SourceError):
                read(path)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_both_formats_give_what_torch_reads(old: bool, mapped: bool, tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "whole": base,
        "part": base[1:, ::2],
        "turned": base.t(),
        "half": base.bfloat16(),
        "flags": base > 3,
        "empty": torch.empty(0, 3),
        "one": torch.tensor(7),
        "complex": torch.complex(base, base),
    }
    torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=not old)
    read = load_pickle_safely(tmp_path / "net.pt", mmap=mapped)
    assert isinstance(read, dict)
    for name, tensor_ in content.items():
        torch.testing.assert_close(read[name], tensor_, rtol=0, atol=0)
        assert read[name].stride() == tensor_.stride()
    assert read["part"].untyped_storage().data_ptr() == read["whole"].untyped_storage().data_ptr()


@pytest.mark.parametrize("whole_module", [True, False])
def test_shapes_without_data_are_no_model(whole_module: bool, tmp_path: Path) -> None:
    """They may claim any size: an example input of so many channels would take all memory."""
    net = nn.Conv2d(1 << 20, 1 << 20, 3, device="meta")
    with pytest.raises(SourceError, match="holds only the shapes of its weights"):
        load(str(saved(net if whole_module else net.state_dict(), tmp_path / "net.pt")))
