"""A packed model as a program of torch.export: its graph in torch's own operators and those of `kernels.operators`.

Weights stay canonical bit streams. The batch is left open where the model takes batches of any size.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from binarize.errors import UsageError
from binarize.exporters.plain_names import make_names_plain
from binarize.modules.hooks import silenced_hooks
from binarize.packed.freeze import Example, frozen_record

__all__ = [
    "Program",
    "answers",
    "batch_size",
    "kept_layers",
    "record_program",
    "refuse_bfloat16",
    "tensors_of",
    "with_rows",
]

# Rows of the batch that an open program is recorded with: 0 and 1 would be taken for special cases.
_ROWS = 3


@dataclass(frozen=True)
class Program:
    """A recorded model."""

    exported: ExportedProgram
    # Whether it takes batches of any size, or that of the example alone.
    any_batch: bool


def record_program(model: nn.Module, example: Example, format: str, *, any_batch: bool = True) -> Program:
    """Record a packed model in evaluation mode; without `any_batch` for the example's sizes alone.

    Numbers and texts among what it yields are left out, but for pt2: other formats know tensors alone.

    Raises: UsageError, naming the layer and the reason, where torch.export cannot.
    """
    model.eval()
    tensors = contextlib.nullcontext() if format == "pt2" else _tensors_alone(model)
    with silenced_hooks(model), tensors, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = _open(model, example) if any_batch else None
        if exported is not None:
            return Program(exported, True)
        try:
            return Program(_recorded(model, example, None), False)
        except Exception as error:  # anything can come out of a user's forward run on symbols
            raise UsageError(
                f"export {format}: {_failing_layer(model, example)}: torch.export cannot record it "
                f"({type(error).__name__}: {_first_line(error)}); rewrite what it names"
            ) from error


@contextlib.contextmanager
def _tensors_alone(model: nn.Module) -> Iterator[None]:
    """Within it a model yields nothing in the place of what is no tensor."""

    def without(module: nn.Module, args: object, output: object) -> Any:
        return pytree.tree_map(lambda leaf: leaf if isinstance(leaf, Tensor) else None, output)

    handle = model.register_forward_hook(without)
    try:
        yield
    finally:
        handle.remove()


def refuse_bfloat16(model: nn.Module, format: str, runtime: str) -> None:
    """Raises: UsageError, naming a tensor, where the model holds numbers that a runtime does not compute with."""
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.bfloat16:
            raise UsageError(
                f"export {format}: {name} is in bfloat16, which {runtime} does not compute with; "
                "convert the model to float32 first (model.float()), or try --format pt2"
            )


def with_rows(example: Example, rows: int, seed: int) -> Example:
    """Arguments of the example's shapes with a batch of that many rows: noise where they are floats."""
    generator = torch.Generator().manual_seed(seed)

    def made(x: Tensor) -> Tensor:
        if x.is_floating_point():
            return torch.randn(rows, *x.shape[1:], generator=generator).to(x.dtype)
        return x[torch.arange(rows) % len(x)]

    resized: Example = pytree.tree_map_only(Tensor, made, example)
    return resized


@torch.no_grad()
def answers(model: nn.Module, example: Example) -> list[Tensor]:
    """The tensors that a model, or a program's module, yields."""
    return tensors_of(model(*example[0], **example[1]))


def tensors_of(values: object) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts, in their order."""
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def batch_size(example: Example) -> int:
    """Rows of the first tensor."""
    first = next((x for x in tensors_of(example) if x.dim()), None)
    return 1 if first is None else len(first)


def kept_layers(model: nn.Module) -> tuple[str, ...]:
    """Warnings of layers without a packed form, which are written as they were trained."""
    record = frozen_record(model)
    kept = {} if record is None else record.kept
    return tuple(
        f"{path} is written as it was trained, with float weights: {why}" for path, why in kept.items()
    )


def _open(model: nn.Module, example: Example) -> ExportedProgram | None:
    """The program for batches of any size; None where the model or torch.export fixes the size."""
    tensors = tensors_of(example)
    if not tensors or any(x.dim() == 0 or len(x) != len(tensors[0]) for x in tensors):
        return None
    several = with_rows(example, _ROWS, seed=0)
    try:
        named = inspect.signature(model.forward).bind(*several[0], **several[1]).arguments
        axes = pytree.tree_map(lambda leaf: {0: Dim.AUTO} if isinstance(leaf, Tensor) else None, dict(named))
        exported = _recorded(model, several, axes)
        module = exported.module()
        for rows in (1, 2):
            batch = with_rows(example, rows, seed=0)
            assert [y.shape for y in answers(module, batch)] == [y.shape for y in answers(model, batch)]
    except (
        Exception
    ):  # a size that is fixed somewhere, in any way; recording the example's own size says more
        return None
    return exported


def _recorded(model: nn.Module, example: Example, dynamic_shapes: object) -> ExportedProgram:
    # Where it fails, torch prints all that it recorded.
    with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
        exported = torch.export.export(
            model, example[0], dict(example[1]), dynamic_shapes=dynamic_shapes, strict=False
        )
    make_names_plain(exported)
    return exported


def _failing_layer(model: nn.Module, example: Example) -> str:
    """Path of the innermost module whose forward was running when recording failed."""
    running: list[str] = []
    failed: list[str] = []
    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: running.append(path)))

        def leave(*_: object) -> None:
            running.pop()

        handles.append(module.register_forward_hook(leave))
    try:
        _recorded(model, example, None)
    except Exception:  # the one that is being reported
        failed = running[-1:]
    finally:
        for handle in handles:
            handle.remove()
    return failed[0] if failed and failed[0] else "the model"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
