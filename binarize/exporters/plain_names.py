"""The names of a recorded program's tensors as plain words, since torch prints them into code when it is read back."""

from __future__ import annotations

import re

from torch.export import ExportedProgram

from binarize.capture.expressions import Names, is_identifier

__all__ = ["make_names_plain"]


def make_names_plain(program: ExportedProgram) -> None:
    """Give every tensor of which the path holds anything but words and numbers another name, in place."""
    signature = program.graph_signature
    specs = [*signature.input_specs, *signature.output_specs]
    targets = [str(spec.target) for spec in specs if spec.target is not None]
    paths = list(dict.fromkeys([*targets, *program.state_dict, *program.constants]))
    names = Names(path for path in paths if _is_plain(path))
    new = {path: names.new(_words(path)) for path in paths if not _is_plain(path)}
    if not new:
        return
    for spec in specs:
        spec.target = new.get(str(spec.target), spec.target)
    for table in (program.state_dict, program.constants):
        renamed = {new.get(path, path): value for path, value in table.items()}
        table.clear()
        table.update(renamed)


def _is_plain(path: str) -> bool:
    return path.isascii() and all(part.isdecimal() or is_identifier(part) for part in path.split("."))


def _words(path: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "_", path)
