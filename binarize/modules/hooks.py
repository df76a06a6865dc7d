"""Hooks of a model: where they are kept, silenced for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["HOOK_TABLES", "part_of_model", "silenced_hooks"]


HOOK_TABLES = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def part_of_model(hook: object) -> bool:
    """Whether the model does not run without a hook, so that it is no user's.

    Those of torch.nn.utils compute weights (weight_norm, spectral_norm); with those of transformers a model hands its
    own inner values on, and marks that it has them (Segformer's decoder reads what its encoder's blocks gave).
    """
    owner = getattr(hook, "__module__", None) or type(hook).__module__
    return owner.startswith(("torch.nn.utils", "transformers.utils.output_capturing"))


@contextmanager
def silenced_hooks(model: nn.Module) -> Iterator[None]:
    """Take the user's hooks out while we run the model, and put them back; those of the model itself stay."""
    removed: list[tuple[Any, Any]] = []
    for module in model.modules():
        for name in HOOK_TABLES:
            table = getattr(module, name)
            mine = {key: hook for key, hook in table.items() if not part_of_model(hook)}
            if mine:
                removed.append((table, dict(table)))
                for key in mine:
                    del table[key]
    try:
        yield
    finally:
        for table, content in removed:
            added = dict(table)
            table.clear()
            table.update({**content, **added})
