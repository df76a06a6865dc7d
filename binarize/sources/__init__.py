"""What the user named, as a float module with its example input and where it came from.

architectures.py  named builders: `torchvision:NAME` and `timm:NAME`
calls.py          a name with literal arguments, as in `Net(10, pretrained=False)`: read, never evaluated
guess.py          which architecture a state dict is of, where it was not given
load.py           the one call: `load(spec) -> Source`
on_disk.py        published weights that lie on this disk already
prefixes.py       names that wrappers put around a model's own
state_dicts.py    checkpoints: finding the weights in them, and putting the weights into an architecture
user_code.py      models made by the user's own code
files/            files of weights and models, read without running code from them
index/            which architecture a state dict is of, told by the names and shapes of its tensors
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
