"""The kernels under test: every variant of this processor. Where they cannot be built, the tests say so."""

from __future__ import annotations

import shutil
import warnings

import pytest

from binarize.kernels import variants as kernels


@pytest.fixture(scope="session")
def variants() -> tuple[kernels.Variant, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = kernels.variants()
    if not found and shutil.which("cc") is None:
        pytest.skip("no C compiler, no kernels")
    assert found, "the kernels are not built: run `python setup.py build_ext --inplace`"
    return found
