"""Float model -> binary model, what it remembers of its making, and what is checked of it.

conversion.py     what a converted model remembers of its making
convert.py        the one call: float model -> plan -> binary model, checked and reported
float_names.py    weights of the float model into its binary counterpart
float_twin.py     the float model of a converted one
measured.py       what images tell of a converted model, taken back into its plan
planned.py        a conversion that is planned and not carried out yet
planned_layer.py  one layer of it: its decision, and the two ways to change it
source_record.py  where a float model came from, as it is remembered
checked/          what is checked of a converted model
"""

from __future__ import annotations

from binarize.conversion.conversion import Conversion, conversion_of
from binarize.conversion.source_record import SourceRecord

__all__ = ["Conversion", "SourceRecord", "conversion_of"]
