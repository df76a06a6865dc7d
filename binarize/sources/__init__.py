"""What the user named, as a float module with its example input and where it came from.

load.py           the one call: `load(spec) -> Source`
architectures.py  torchvision and timm builders
on_disk.py        published weights that are here already
calls.py          a name with literal arguments
user_code.py      `file.py:make_model`, `package.module:Net(10)`
files.py          what a file is, from its bytes
pickle_scan.py    a pickle read without doing anything it says
inert.py          what it says, as records
records.py        the parts of a torch.save file: the pickle, and the data of tensors
allow_list.py     what a pickle may name
instance_dicts.py what an object from a file may hold
plain_makers.py   plain values, made by a closed list of functions
stored_tensors.py tensors, each inside its data
rebuild.py        objects of all that
safe_pickle.py    pickles read by that list
state_dicts.py    weights in checkpoints, and into architectures
prefixes.py       names that wrappers put around a model's own
guess.py          which architecture a state dict is of, by the table in index/
float_check.py    what is no plain float model is refused
examples.py       arguments of one forward call: described, made up
input_shapes.py   the input when nobody gave it
hf_inputs.py      the input by the configuration of a transformers model
structure.py      a module without its weights as a file
"""

from __future__ import annotations

from binarize.modules.tensors import tied_tensors
from binarize.sources.files.safe_pickle import allowed_globals, load_pickle_safely
from binarize.sources.load import Kind, Source, build, load, load_file
from binarize.sources.structure import load_structure, save_structure

__all__ = [
    "Kind",
    "Source",
    "allowed_globals",
    "build",
    "load",
    "load_file",
    "load_pickle_safely",
    "load_structure",
    "save_structure",
    "tied_tensors",
]
