"""A C compiler, or the tests that need one say so."""

from __future__ import annotations

import pytest

from binarize.exporters.c.check import host_compiler


@pytest.fixture(scope="session")
def compiler() -> str:
    found = host_compiler()
    if found is None:
        pytest.skip("no C compiler")
    return found
