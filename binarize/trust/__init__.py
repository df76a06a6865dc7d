"""What a file may name, and what only the user may: the one boundary that every door asks.

What the user types, or passes from Python, in this very call may name anything. What stands in a file may name

    builders   torchvision:NAME and timm:NAME, with plain numbers for the arguments listed in builders.py
    teachers   source, none, or such a builder
    parts      classes of binarize.binarizers and of torch.nn, with numbers and words for arguments
    data       digits, fake, idx:PATH, torch/NAME, a folder

and nothing else, unless the user's word covers it: `--trust` on the command line, `trusting(...)` or `trust=` in Python.
Nothing here imports, opens or fetches what a name stands for.

builders.py        which builders a file may name, and with which arguments
checks.py          what a file names, refused where it may not
part_arguments.py  which arguments a file may give to a part
word.py            what the user's word covers
"""

from __future__ import annotations

from binarize.trust.builders import is_builder
from binarize.trust.checks import check_builder, check_data, check_teacher, is_teacher, quoted
from binarize.trust.part_arguments import are_part_arguments
from binarize.trust.word import (
    Word,
    is_trusted,
    pickles_trusted,
    trusted_file,
    trusted_words,
    trusting,
    trusting_pickles,
)

__all__ = [
    "Word",
    "are_part_arguments",
    "check_builder",
    "check_data",
    "check_teacher",
    "is_builder",
    "is_teacher",
    "is_trusted",
    "pickles_trusted",
    "quoted",
    "trusted_file",
    "trusted_words",
    "trusting",
    "trusting_pickles",
]
