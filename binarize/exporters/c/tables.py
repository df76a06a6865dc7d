"""The constants of a C file: arrays and structs, those with the same numbers written once, and numbers as C writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from binarize.exporters.c.steps import Step

__all__ = ["Tables", "exact", "identifier"]

_WIDTH = 110


def identifier(text: str) -> str:
    """What is left of a name that C can use: `3-layer net` -> `net_3_layer_net`."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    return word if word[:1].isalpha() else f"net_{word}".rstrip("_")


class Tables:
    """The constants; those with the same numbers are written once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.bytes = 0
        self.known: dict[tuple[str, bytes], str] = {}
        self.names: set[str] = set()

    def numbers(self, kind: str, step: Step, table: Tensor | None) -> str:
        """The identifier of an array of float, int32_t or uint32_t (from int32 words); 0 where there is none."""
        if table is None:
            return "0"
        values = table.detach().cpu().contiguous().reshape(-1)
        words = kind in ("weight_bits", "flip")
        ctype = "uint32_t" if words else "float" if values.dtype == torch.float32 else "int32_t"
        raw = values.numpy()
        key = ctype, raw.tobytes()
        if key not in self.known:
            name = self.known[key] = self.new_name(f"{kind}_{identifier(step.name)}")
            items = [f"0x{v:08x}u" for v in raw.view(np.uint32)] if words else [exact(v) for v in raw]
            self.texts.append(f"static const {ctype} {name}[{len(items)}] = {{\n{_lines(items)}\n}};")
            self.bytes += raw.nbytes
        return self.known[key]

    def struct(self, ctype: str, kind: str, step: Step, body: str, size: int) -> str:
        """The address of a struct."""
        key = ctype, body.encode()
        if key not in self.known:
            name = self.known[key] = self.new_name(f"{kind}_{identifier(step.name)}")
            self.texts.append(f"static const {ctype} {name} = {body};")
            self.bytes += size
        return f"&{self.known[key]}"

    def new_name(self, wanted: str) -> str:
        name, n = wanted, 2
        while name in self.names:
            name, n = f"{wanted}_{n}", n + 1
        self.names.add(name)
        return name


def exact(value: Any) -> str:
    """A number as C writes it, exactly."""
    if isinstance(value, np.integer):
        return str(int(value))
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        return {"inf": "(1.0f / 0.0f)", "-inf": "(-1.0f / 0.0f)"}.get(str(number), "(0.0f / 0.0f)")
    if number == int(number) and abs(number) < 1 << 20:
        return f"{number:.1f}f"
    mantissa, _, exponent = number.hex().partition("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}f"


def _lines(items: Sequence[str]) -> str:
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > _WIDTH:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*lines, line])
