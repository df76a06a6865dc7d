"""Which architecture a state dict is of, told by the names and shapes of its tensors.

architectures.json.gz the table over all builders of torchvision and timm

fingerprints.py  names and shapes as a few bytes
make.py          the program that makes the table:  python -m binarize.sources.index.make
table.py         the shipped table, and what it says of a state dict
twins.py         whether two architectures with the same tensors compute the same
"""

from __future__ import annotations

from binarize.sources.index.table import Entry, Index, Nearest, read_index

__all__ = ["Entry", "Index", "Nearest", "read_index"]
