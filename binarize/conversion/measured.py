"""What images tell of a converted model's binary inputs, taken back into its plan.

The plan is made of a recording that holds shapes alone: what an operation does to the sign of its input it knows of listed
ones. Where images are at hand, they are asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from binarize.conversion.checked.liveness import measure_liveness
from binarize.inputs.arguments import Images
from binarize.modules.hooks import silenced_hooks
from binarize.planning.plan import Plan
from binarize.planning.record.edit_kinds import Swap
from binarize.report.live import complaints, finite

__all__ = ["one_sided_layers"]


def one_sided_layers(model: nn.Module, plan: Plan, batches: Sequence[Images]) -> frozenset[str]:
    """The binary layers without a threshold whose input has hardly more than one sign on these images."""
    without = {
        edit.container
        for edit in plan.edits
        if isinstance(edit, Swap) and edit.threshold is None and not edit.input_norm
    }
    if not without:
        return frozenset()
    with silenced_hooks(model):
        shares = measure_liveness(model, batches)
    return frozenset(
        name for name, live in shares.items() if name in without and finite(live) and complaints(live)
    )
