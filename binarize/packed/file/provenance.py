"""What a packed or exported model was made of, so that one made of other weights is told from one that is up to date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from binarize.checkpoint.fingerprint import record_digest
from binarize.conversion.conversion import Conversion
from binarize.modules.tensors import tensor_digest, unique_tensors
from binarize.packed.freeze import MadeOf
from binarize.planning.plan import Plan

__all__ = ["made_of", "made_of_folder", "tie_of", "why_stale"]


def made_of(model: nn.Module, conversion: Conversion) -> MadeOf:
    """The digests of a converted model in memory."""
    return MadeOf(tensor_digest(unique_tensors(model)), conversion.plan.digest)


def made_of_folder(record: Mapping[str, Any]) -> MadeOf:
    """The digests of a saved model by its record, without reading its weights."""
    return MadeOf(str(record["fingerprint"]["tensors"]), Plan.from_json(record["plan"]).digest)


def tie_of(record: Mapping[str, Any]) -> str:
    """What tied packed files of older versions to their folder; made anew for records of older formats, which had none."""
    return str(record["fingerprint"].get("record") or record_digest(record))


def why_stale(found: MadeOf | None, now: MadeOf) -> str | None:
    """In words why what was made of `found` is not the model that is `now` in the folder; None where it is."""
    if found is None:
        return "does not say which weights it was made of, as files of older versions"
    if found.weights != now.weights:
        return "was made of other weights than those in the folder now"
    return None if found == now else "was made by another plan than the one in the folder now"
