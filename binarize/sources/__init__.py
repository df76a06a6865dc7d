"""What the user named, as a float module with its example input and where it came from.

architectures.py  named builders: `torchvision:NAME` and `timm:NAME`
calls.py          a name with literal arguments, as in `Net(10, pretrained=False)`: read, never evaluated
fill.py           weights put into an architecture
from_file.py      the float model in a file
guess.py          which architecture a state dict is of, where it was not given
load.py           the one call: `load(spec) -> Source`
prefixes.py       names that wrappers put around a model's own
source.py         a float model and where it came from: `Source`
state_dicts.py    checkpoints: finding the weights in them
user_code.py      models made by the user's own code
libraries/        models that torchvision and timm build by name
files/            files of weights and models, read without running code from them
index/            which architecture a state dict is of, told by the names and shapes of its tensors
"""

from __future__ import annotations

from binarize.sources.files.safe_pickle import allowed_globals, load_pickle_safely
from binarize.sources.load import build, load, load_file
from binarize.sources.source import Kind, Source

__all__ = [
    "Kind",
    "Source",
    "allowed_globals",
    "build",
    "load",
    "load_file",
    "load_pickle_safely",
]
