"""What every layer is and where it stands: facts only. No decision is made here.

analyse.py     graph -> [Layer]: what every layer is and where it stands
calls.py       which calls and modules are what: tables of names
facts.py       what a layer's own module, or its weight where it is a functional call, tells about it
flow.py        questions about a recorded graph
layer.py       what is known of one layer
operations.py  what each node of a recorded graph is
residual.py    residual blocks and gates of a recorded graph
walk.py        module -> [Layer] without running it
"""

from __future__ import annotations

from binarize.analysis.analyse import Analysis, analyse
from binarize.analysis.layer import Layer

__all__ = ["Analysis", "Layer", "analyse"]
