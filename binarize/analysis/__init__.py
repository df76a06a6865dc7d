"""What every layer is and where it stands: facts only. No decision is made here."""

from __future__ import annotations

from binarize.analysis.analyse import Analysis, analyse
from binarize.analysis.layer import Layer

__all__ = ["Analysis", "Layer", "analyse"]
