"""Pickles written by hand, instruction by instruction, and the files of `torch.save` around them."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

__all__ = ["archive", "call", "made", "module", "named", "storage", "tensor", "text", "tup", "whole"]


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tup(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(name: str, *args: bytes) -> bytes:
    return named(name) + tup(*args) + b"R"


def made(name: str, state: bytes) -> bytes:
    """An object without its constructor, filled with a state."""
    return named(name) + b")\x81" + state + b"b"


def dictionary(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(count: int, kind: str = "FloatStorage", key: str = "0") -> bytes:
    return tup(text("storage"), named(f"torch.{kind}"), text(key), text("cpu"), whole(count)) + b"Q"


def tensor(size: list[int], stride: list[int], *, offset: int = 0, held: int = 4) -> bytes:
    """A float tensor on storage 0, which holds `held` numbers."""
    ordered = call("collections.OrderedDict")
    shapes = (tup(*map(whole, size)), tup(*map(whole, stride)))
    return call("torch._utils._rebuild_tensor_v2", storage(held), whole(offset), *shapes, b"\x89", ordered)


def module(**attributes: bytes) -> bytes:
    """An Identity with further attributes, or others instead of its own."""
    tables = dict.fromkeys(("_parameters", "_buffers", "_modules"), b"}")
    return made(
        "torch.nn.modules.linear.Identity", dictionary(**{"training": b"\x89", **tables, **attributes})
    )


def archive(path: Path, pickled: bytes, **data: bytes) -> Path:
    """A file of `torch.save` around a pickle; `data` are its storages, of which 0 has four numbers."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", b"\x80\x02" + pickled + b".")
        file.writestr("net/version", "3\n")
        for key, content in {"0": bytes(16), **data}.items():
            file.writestr(f"net/data/{key}", content)
    return path
