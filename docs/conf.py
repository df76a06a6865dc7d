"""The site: pages of Markdown, and a reference that is made from the code before each build. `make docs` builds it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

from binarize.version import __version__

project = "binarize"
version = release = __version__
copyright = "the binarize authors, Apache-2.0"
extensions = ["myst_parser", "made_reference"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"binarize {__version__}"
html_show_sphinx = False
# Headings are addresses: [text](page.md#a-heading).
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
# Links to files of the repository, outside the site; tests/test_docs.py checks that every link leads somewhere.
suppress_warnings = ["myst.xref_missing"]
