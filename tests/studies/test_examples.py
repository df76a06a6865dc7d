"""The grids in examples/studies/: what they hold, and that trials of all kinds in them run on small data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from binarize.rules.files import builtin_rule_sets
from binarize.studies.grid.expand import chosen, trials_of
from binarize.studies.grid.read import read_grid
from binarize.studies.grid.trial import Resources
from binarize.studies.run import run_trial
from binarize.trust import trusting

STUDIES = Path(__file__).parents[2] / "examples" / "studies"
# They name the networks beside them, so whoever runs them has to.
NETWORK = STUDIES / "network.py"
SMALL = ["data=digits", "input_shape=[1, 8, 8]", "images=64", "epochs=1", "batch_size=32", "seeds=[0]"]


@pytest.fixture(autouse=True)
def said() -> Iterator[None]:
    with trusting(NETWORK):
        yield


def test_the_reference_experiments_are_whole() -> None:
    gains = [trial.group for trial in trials_of(read_grid(STUDIES / "gains.yaml")) if trial.seed == 0]
    steps = ("none", "+WD", "+LS", "+RA", "-LS", "+LS+DP")
    assert gains == [f"{kind}/{step}" for kind in ("float", "binary", "distilled") for step in steps]
    schemes = {trial.group for trial in trials_of(read_grid(STUDIES / "schemes.yaml"))}
    assert schemes == {"float", *builtin_rule_sets()}
    assert len(trials_of(read_grid(STUDIES / "pruning.yaml"))) == 2 * 2 * 4
    ways = {trial.group for trial in trials_of(read_grid(STUDIES / "naive-bernoulli.yaml"))}
    random = {"soft", "soft-thesis", "full", "full-certain", "layerwise", "progressive"}
    assert ways == {"float", "straight-through", *random}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, only", [("gains", "*/+LS+DP"), ("pruning", "*prune=0.5"), ("schemes", "[bx]*")]
)
def test_their_trials_run_on_digits(name: str, only: str, tmp_path: Path) -> None:
    trials = chosen(trials_of(read_grid(STUDIES / f"{name}.yaml").changed(SMALL)), only)
    assert len(trials) >= 3
    for trial in trials:
        assert run_trial(trial, tmp_path, Resources())["state"] == "finished", trial.name
