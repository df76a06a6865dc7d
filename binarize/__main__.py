"""`python -m binarize`: the command, where its name is not on the path."""

from __future__ import annotations

import os
import sys

# `python -m` looks for modules in the working directory first: what lies there would be imported in a library's place. The
# user's own code is looked for there when it is named.
if sys.path[:1] in ([""], [os.getcwd()]):
    del sys.path[0]

from binarize.cli import main

if __name__ == "__main__":
    main()
