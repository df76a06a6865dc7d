"""One thread a process; conversions and kernels that many tests share."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable
from functools import cache

import nets
import pytest
import torch
from torch import nn

import binarize
from binarize.kernels import variants as kernel_variants

torch.set_num_threads(1)


@cache
def _converted(name: str, scheme: str, shortcuts: str) -> nn.Module:
    model = nets.seeded(nets.ALL[name])
    return binarize.convert(model, scheme, shortcuts=shortcuts, example_input=nets.example(model, 8))


@pytest.fixture
def converted() -> Callable[..., nn.Module]:
    """A network of nets.ALL, converted once a session and calibrated on pictures; every test has its own copy."""

    def convert(name: str, scheme: str = "adabin", shortcuts: str = "every") -> nn.Module:
        return copy.deepcopy(_converted(name, scheme, shortcuts))

    return convert


@pytest.fixture(scope="session")
def variants() -> tuple[kernel_variants.Variant, ...]:
    """Every variant of the kernels that this processor runs. Where they cannot be built, the tests say so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = kernel_variants.variants()
    if not found and shutil.which("cc") is None:
        pytest.skip("no C compiler, no kernels")
    assert found, "the kernels are not built: run `python setup.py build_ext --inplace`"
    return found
