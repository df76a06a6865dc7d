"""`python -m binarize`: the command, where its name is not on the path."""

from __future__ import annotations

from binarize.cli import app

if __name__ == "__main__":
    app(prog_name="binarize")
