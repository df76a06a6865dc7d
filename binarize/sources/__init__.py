"""What the user named, as a float module with its example input and where it came from.

load.py           the one call
architectures.py  torchvision and timm builders
safe_pickle.py    pickles, without running code from them
"""

from __future__ import annotations

from binarize.sources.load import Source, build, load
from binarize.sources.safe_pickle import allowed_globals, load_pickle_safely

__all__ = ["Source", "allowed_globals", "build", "load", "load_pickle_safely"]
