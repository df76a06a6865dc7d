"""One thread a process, and conversions that many tests share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import nets
import pytest
import torch
from torch import nn

import binarize

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
