"""Where the values in front of a layer come from, as far as a model's parameters tell: a tree of norms and layers.

`binarize.passes.moments` turns it into means and variances per channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["UNKNOWN", "Join", "Origin"]

# How several origins make one. "repeat" and "mean" do with the channels of one what a shortcut does, `times` over;
# "unit" is a new norm, of which only mean 0 and variance 1 are known.
Join = Literal["add", "concat", "repeat", "mean", "unit"]


@dataclass(frozen=True)
class Origin:
    """A norm (or a layer without one), or origins that are joined, and what follows: activation, max pooling, factor."""

    # Path of the module; None where nothing is known, and where `terms` are joined.
    norm: str | None = None
    terms: tuple[Origin, ...] | None = None
    op: Join | None = None
    times: int = 1
    # "", "relu", "silu", ...
    activation: str = ""
    # How many values one value behind a max pooling is chosen from.
    window: int = 1
    factor: float = 1.0

    @property
    def size(self) -> int:
        """How many norms and layers it names."""
        return sum(term.size for term in self.terms) if self.terms else 1

    @property
    def first_path(self) -> str:
        """The first norm or layer that it names."""
        return self.terms[0].first_path if self.terms else str(self.norm)

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` takes back; a leaf names its norm, a join its terms."""
        data: dict[str, Any] = {}
        if self.terms is None:
            data["norm"] = self.norm
        else:
            data |= {"terms": [term.to_json() for term in self.terms], "op": self.op}
            if self.times != 1:
                data["times"] = self.times
        return {**data, "activation": self.activation, "window": self.window, "factor": self.factor}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Origin:
        """The origin that `to_json` wrote."""
        terms = data.get("terms")
        joined = None if terms is None else tuple(cls.from_json(term) for term in terms)
        return cls(**{**data, "terms": joined})


# Of values of which nothing is known.
UNKNOWN = Origin()
