"""What an exported file says of where it comes from: the digests of the trained weights and of the plan."""

from __future__ import annotations

from torch import nn

from binarize.packed.freeze import frozen_record
from binarize.version import __version__

__all__ = ["KEYS", "origin_of"]

# Of the file's own metadata, whatever the format.
KEYS = ("binarize.version", "binarize.weights.sha256", "binarize.plan.sha256")


def origin_of(model: nn.Module) -> dict[str, str]:
    """Metadata of a frozen or packed model; without the digests where its source is unknown."""
    record = frozen_record(model)
    made_of = None if record is None else record.made_of
    texts = (__version__,) if made_of is None else (__version__, made_of.weights, made_of.plan)
    return dict(zip(KEYS, texts))
