"""Float model -> binary model, what it remembers of its making, and what is checked of it."""

from __future__ import annotations

from binarize.conversion.conversion import Conversion, conversion_of
from binarize.conversion.source_record import SourceRecord

__all__ = ["Conversion", "SourceRecord", "conversion_of"]
