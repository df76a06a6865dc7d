"""A program of torch.export: the packed model as a graph that runs without its class, saved by torch.export.save.

    import torch
    import binarize.kernels.operators                     # registers the operators of packed layers

    model = torch.export.load("net.pt2").module()
    logits = model(x)

Packed layers stay calls of `torch.ops.binarize.conv` on their bits; the program runs on the kernels of the machine that
loads it, and computes the packed model's numbers bit for bit. Layers with float inputs unpack their bits by torch's own
operators. Torch adds up its float layers in an order of its own: it is the same in both on one machine, with as many
threads and inputs in the same memory order.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram

from binarize.errors import CheckError
from binarize.exporters.export import Written
from binarize.exporters.origin import origin_of
from binarize.exporters.program import answers, batch_size, kept_layers, record_program, tensors_of, with_rows
from binarize.exporters.theory import constants_in_theory
from binarize.packed.freeze import Example
from binarize.report.units import plural, size

__all__ = ["ORIGIN", "check", "slim", "write"]

# An extra file in the archive, for `torch.export.load(path, extra_files={"binarize.json": ""})`.
ORIGIN = "binarize.json"
# The import without which the file cannot be loaded.
_NEEDS = "import binarize.kernels.operators"
# torch writes the layers around a step as one text, and splits it at these.
_SEPARATORS = re.compile("[,;]")
# Batches on which the program is compared with the packed model: fewer where one input is large.
_ROWS, _FEW, _LARGE = (1, 2, 5), (1, 2), 1 << 16
_SECONDS = 600
_READER = """
import sys
import torch
import binarize.kernels.operators

file, batches, results, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
model = torch.export.load(file).module()
with torch.no_grad():
    torch.save([model(*args, **keywords) for args, keywords in torch.load(batches)], results)
"""


def write(model: nn.Module, example: Example, path: Path) -> Written:
    """Write the program, load it in a process of its own, and compare what it computes there.

    Raises: UsageError, naming the layer and the reason, where torch.export cannot record the model; CheckError, where
    the program computes something else.
    """
    program = record_program(model, example, "pt2")
    slim(program.exported)
    torch.export.save(program.exported, path, extra_files={ORIGIN: json.dumps(origin_of(model))})
    rows = _FEW if sum(x[:1].numel() for x in tensors_of(example)) >= _LARGE else _ROWS
    batches = [with_rows(example, n, seed=n) for n in rows] if program.any_batch else _same_size(example)
    check(path, model, batches)
    ours = sum(str(node.target).startswith("binarize.") for node in program.exported.graph.nodes)
    theory, file = constants_in_theory(model), path.stat().st_size
    over = f"theory {size(theory)}: one bit a binary weight, and numbers; the rest is the graph"
    lines = (
        f"{plural(ours, 'call')} of the packed operators; load it with torch.export.load after `{_NEEDS}`."
        if ours
        else "Nothing but torch is needed to load it, with torch.export.load.",
        f"Batches of any size; loaded in a process of its own and run on batches of {_listed(rows)}: "
        "the packed model's numbers bit for bit."
        if program.any_batch
        else f"Takes a batch of {batch_size(example)} only, the example's sizes; loaded in a process of its own and run on "
        f"{len(batches)} of them: "
        "the packed model's numbers bit for bit.",
    )
    facts = {
        "bytes": file,
        "theory": theory,
        "any_batch": program.any_batch,
        "batch": None if program.any_batch else batch_size(example),
        "packed_calls": ours,
        "needs": _NEEDS if ours else None,
        "verified": True,
    }
    return Written((("file", size(file), over),), lines, kept_layers(model), facts)


def slim(program: ExportedProgram) -> None:
    """Drop what computes nothing: the example, lines of source files, checks of types, unread steps; say what it needs."""
    program.example_inputs = None
    graph = program.graph
    for node in reversed(list(graph.nodes)):
        node.meta.pop("stack_trace", None)
        _write_stack(node)
        if node.target is torch.ops.aten.to.dtype and _is_itself(node):
            # What the program gives is known by its name.
            node.replace_all_uses_with(node.args[0], delete_user_cb=lambda user: user.op != "output")
        if _is_unread(node):
            graph.erase_node(node)
    first = next((node for node in graph.nodes if str(node.target).startswith("binarize.")), None)
    if first is not None:  # shown by torch where the operator is unknown
        first.meta["custom"] = {"needs": _NEEDS}
    program.graph_module.recompile()


def _write_stack(node: Any) -> None:
    """Take from the names of layers what torch's own file puts between them."""
    stack = node.meta.get("nn_module_stack")
    if stack is not None:
        node.meta["nn_module_stack"] = {
            _SEPARATORS.sub("_", key): (_SEPARATORS.sub("_", path), kind)
            for key, (path, kind) in stack.items()
        }


def _is_unread(node: Any) -> bool:
    """Whether nothing is lost without this step: it changes nothing, and nobody reads what it gives."""
    if node.users or not isinstance(node.target, OpOverload):
        return False
    returns = node.target._schema.returns and not node.target._schema.is_mutable
    return bool(returns) or node.target is torch.ops.aten._assert_tensor_metadata.default


def _is_itself(node: Any) -> bool:
    """Whether a conversion gives its argument back."""
    given, made = node.args[0].meta["val"], node.meta["val"]
    return len(node.args) == 2 and not node.kwargs and given.dtype == made.dtype


def check(path: Path, model: nn.Module, batches: list[Example]) -> None:
    """Load the file in a process that knows nothing of the model. Raises: CheckError, where it computes something else."""
    expected = [answers(model, batch) for batch in batches]
    found = _run_elsewhere(path, batches)
    for batch, ours, theirs in zip(batches, expected, found):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if a.dtype != b.dtype or a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num()):
                raise CheckError(
                    f"the program computes something else than the packed model: output {i} of a batch of "
                    f"{len(tensors_of(batch)[0])} differs; nothing was written"
                )


def _run_elsewhere(path: Path, batches: list[Example]) -> list[list[Tensor]]:
    with tempfile.TemporaryDirectory(prefix="binarize-pt2-") as folder:
        given, results = Path(folder) / "given", Path(folder) / "results"
        torch.save([(args, dict(keywords)) for args, keywords in batches], given)
        home = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                _READER,
                str(path),
                str(given),
                str(results),
                str(torch.get_num_threads()),
            ],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise CheckError(
                f"the program cannot be loaded and run: {said[-1] if said else done.returncode}; nothing was written"
            )
        return [tensors_of(value) for value in torch.load(results)]


def _same_size(example: Example) -> list[Example]:
    rows = {len(x) for x in tensors_of(example) if x.dim()}
    return [example, *([with_rows(example, rows.pop(), seed=1)] if len(rows) == 1 else [])]


def _listed(rows: tuple[int, ...]) -> str:
    return " and ".join([", ".join(map(str, rows[:-1])), str(rows[-1])])
