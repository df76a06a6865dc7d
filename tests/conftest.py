"""One thread a process and one seed a test; which tests `--all` adds; conversions and kernels that many tests share."""

from __future__ import annotations

import copy
import gc
import random
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import cache

import hypothesis
import nets
import numpy as np
import pytest
import torch
from sampling import sample
from torch import nn

import binarize
from binarize.kernels import variants as kernel_variants

torch.set_num_threads(1)
# None that tests give to generators of their own: two draws that should differ would be the same.
_SEED = 31_415


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run slow tests and whole grids too")
    parser.addoption(
        "--docs", action="store_true", help="run the commands and the Python of every page in docs/ too"
    )


def pytest_collection_finish() -> None:
    """What torch and its friends made at import stays to the end: no collection of garbage walks through it again."""
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """How many examples Hypothesis draws where a test does not say so itself."""
    hypothesis.settings.register_profile("sample", max_examples=40)
    hypothesis.settings.register_profile("all", max_examples=300)
    hypothesis.settings.load_profile("all" if config.getoption("--all") else "sample")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --all, leave out tests marked slow and what `sampled` leaves out; never one that was asked for by name."""
    if not config.getoption("--docs"):
        pages = [item for item in items if item.get_closest_marker("docs")]
        config.hook.pytest_deselected(items=pages)
        items[:] = [item for item in items if item not in pages]
    if config.getoption("--all"):
        return
    grids = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled") and isinstance(item, pytest.Function):
            grids[item.nodeid.partition("[")[0]].append(item)
    left_out = {item.nodeid for item in items if item.get_closest_marker("slow")}
    for grid in grids.values():
        left_out.update(_left_out(grid))
    left_out -= {name[name.find("tests/") :] for name in config.args}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


def _left_out(grid: list[pytest.Function]) -> set[str]:
    marker = grid[0].get_closest_marker("sampled")
    assert marker is not None
    ids = [item.callspec.id for item in grid]
    # Of stacked parameters `callspec.indices` counts the tests, not the values.
    cells = [{name: _key(value) for name, value in item.callspec.params.items()} for item in grid]
    run = sample(ids, cells, *marker.args, **marker.kwargs)
    return {item.nodeid for item, known in zip(grid, ids) if known not in run}


def _key(value: object) -> object:
    plain = isinstance(value, (str, bytes, int, float, type(None)))
    return (type(value), value) if plain else id(value)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Weights and images that a test draws are the same in every run, and in whatever order tests run."""
    random.seed(_SEED), np.random.seed(_SEED), torch.manual_seed(_SEED)


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
