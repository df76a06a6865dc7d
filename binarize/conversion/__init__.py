"""Float model -> binary model, what it remembers of its making, and what is checked of it.

checks.py         what every conversion is checked for before anybody gets it
conversion.py     what a converted model remembers of its making
convert.py        the one call: float model -> plan -> binary model, checked and reported
float_names.py    weights of the float model into its binary counterpart
float_twin.py     the float model of a converted one
liveness.py       whether a converted network still depends on its input
measured.py       what images tell of a converted model, taken back into its plan
planned.py        a conversion that is planned and not carried out yet
source_record.py  where a float model came from, as it is remembered
two_values.py     whether the binarizers of a converted model give two values
"""

from __future__ import annotations

from binarize.conversion.conversion import Conversion, conversion_of
from binarize.conversion.source_record import SourceRecord

__all__ = ["Conversion", "SourceRecord", "conversion_of"]
