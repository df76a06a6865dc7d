"""Hooks of the user's own that a converted model no longer runs."""

from __future__ import annotations

from torch import nn

from binarize.modules.hooks import HOOK_TABLES, part_of_model
from binarize.planning.plan import Plan
from binarize.planning.record.edit_kinds import Open

__all__ = ["unheard_hooks"]


def unheard_hooks(model: nn.Module, plan: Plan) -> list[str]:
    """A warning for the user's hooks on modules whose forward became part of the forward around them."""
    warnings = []
    for edit in plan.edits:
        if not isinstance(edit, Open):
            continue
        prefix = f"{edit.container}." if edit.container else ""
        silent = []
        for path in (prefix + child for child in edit.opened):
            tables = [getattr(model.get_submodule(path), name) for name in HOOK_TABLES]
            if any(not part_of_model(hook) for table in tables for hook in table.values()):
                silent.append(path)
        if silent:
            around = edit.container or "the model"
            warnings.append(
                f"{', '.join(silent)}: its hooks fire no more, since its forward is part of that of {around}"
            )
    return warnings
