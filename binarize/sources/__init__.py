"""What the user named, as a float module with its example input and where it came from.

load.py           the one call: `load(spec) -> Source`
"""

from __future__ import annotations

from binarize.sources.files.safe_pickle import allowed_globals, load_pickle_safely
from binarize.sources.load import Kind, Source, build, load, load_file

__all__ = [
    "Kind",
    "Source",
    "allowed_globals",
    "build",
    "load",
    "load_file",
    "load_pickle_safely",
]
