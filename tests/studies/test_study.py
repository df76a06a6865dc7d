"""A whole study by Ray, and what surrounds it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import binarize
from binarize.cli import app
from binarize.errors import SourceError, UsageError
from binarize.studies.results import Results, rows_of
from binarize.studies.study import Study

HERE = Path(__file__).parent
# The grid file names our own code, so whoever runs it has to.
NETWORK = [HERE / "network.py"]
GRID = f"""
schema: 1
name: small
settings:
  {{data: digits, images: 64, epochs: 1, batch_size: 16, scheme: bireal, overrides: tiny.use=bireal, input_shape: [1, 8, 8]}}
axes:
  model: ["{HERE / "network.py"}:Tiny", "{HERE / "network.py"}:broken"]
"""


def invoke(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(
        app, ["study", *words, "--trust", str(HERE / "network.py"), "--plain"], env={"COLUMNS": "200"}
    )
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("grid") / "small.yaml"
    path.write_text(GRID)
    return path


@pytest.fixture(scope="module")
def told() -> list[tuple[str, str, int, int]]:
    return []


@pytest.fixture(scope="module")
def done(
    file: Path, told: list[tuple[str, str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> Study:
    def listen(result: Mapping[str, Any], number: int, of: int) -> None:
        told.append((result["name"], result["state"], number, of))

    out = tmp_path_factory.mktemp("study") / "out"
    return binarize.study(file, out, jobs=2, listen=listen, trust=NETWORK)


@pytest.mark.slow
def test_a_failed_trial_does_not_stop_the_others(done: Study, told: list[tuple[str, str, int, int]]) -> None:
    assert sorted((name, state) for name, state, _, _ in told) == [
        ("Tiny/float/seed0", "finished"),
        ("Tiny/seed0", "finished"),
        ("broken/float/seed0", "failed"),
        ("broken/seed0", "failed"),
    ]
    assert [(number, of) for _, _, number, of in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "no such network" in done.failures["broken/float/seed0"]
    assert done.failures["broken/seed0"] == "its float network broken/float/seed0 failed"


@pytest.mark.slow
def test_results_tables_and_a_picture_are_written(done: Study) -> None:
    lines = [json.loads(line) for line in (done.folder / "results.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == {trial.id for trial in done.trials} and len(lines) == 4
    rows = list(csv.DictReader((done.folder / "table.csv").open()))
    assert [row["name"] for row in rows] == ["Tiny/float", "broken/float", "Tiny", "broken"]
    data = json.loads((done.folder / "table.json").read_text())
    assert data[0]["top1"] == pytest.approx(float(rows[0]["top1"]), rel=0, abs=0)
    assert "| broken | 0 of 1 | failed |" in (done.folder / "table.md").read_text()
    assert (done.folder / "plot.svg").read_text().lstrip().startswith("<?xml")


@pytest.mark.slow
def test_nothing_runs_twice(done: Study, file: Path) -> None:
    before = (done.folder / "results.jsonl").read_bytes()
    code, out, error = invoke(str(file), "-o", str(done.folder), "--json")
    assert set(json.loads(out)["failed"]) == {"broken/float/seed0", "broken/seed0"}
    assert code == 7 and "2 trials failed (--retry runs them once more)" in error
    assert "every trial is there already" in error
    assert (done.folder / "results.jsonl").read_bytes() == before
    code, out, _ = invoke(str(file), "-o", str(done.folder), "--dry-run", "--json")
    assert [line["state"] for line in json.loads(out)["trials"]] == ["finished", "failed"] * 2
    again = done.unfinished(retry=True)
    assert [trial.name for trial in again] == ["broken/float/seed0", "broken/seed0"]


def test_a_dry_run_lists_the_trials_and_writes_nothing(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    code, said, error = invoke(str(file), "-o", str(out), "--dry-run", "--only", "Tiny", "--set", "epochs=3")
    assert code == 0, error
    assert [line.split()[0] for line in said.splitlines()] == ["Tiny/float/seed0", "Tiny/seed0"]
    assert "epochs 3" in said and "2 trials, 2 to be run" in error
    assert not out.exists()


def test_without_ray_it_says_what_to_install(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, error = invoke(str(file), "-o", str(tmp_path / "study"))
    assert code == 2 and "pip install 'torch-binarize[study]'" in error


def test_a_mistake_in_the_grid_is_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("schema: 1\naxes: {shceme: [adabin]}\n")
    code, _, error = invoke(str(tmp_path / "g.yaml"))
    assert code == 3 and 'g.yaml:2:8  unknown setting "shceme" (did you mean "scheme"?)' in error
    (tmp_path / "g.yaml").write_text("")
    code, _, error = invoke(str(tmp_path / "g.yaml"))
    assert code == 3 and "is empty" in error


def test_a_folder_of_other_files_is_left_alone(file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        binarize.study(file, tmp_path, trust=NETWORK)


def test_a_line_that_was_cut_short_is_no_result(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    assert results.read() == {}
    results.append({"id": "a", "state": "failed"})
    with results.path.open("a") as file:
        file.write('{"id": "b", "sta')
    results.append({"id": "a", "state": "finished"})
    assert results.read() == {"a": {"id": "a", "state": "finished"}}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"id": 3}, "id: expected text, found 3"),
        ({"state": "lost"}, "state: expected 'finished' or 'failed', found \"lost\""),
        ({"seconds": 7}, "seconds: expected a list, found 7"),
        ({"seconds": [1.0, "x"]}, 'seconds.1: expected a number, found "x"'),
        ({"costs": None}, "costs: expected a mapping, found empty"),
        ({"costs": {"flops": -1}}, "costs.flops: "),
        ({"top1": "high"}, 'top1: expected a number, found "high"'),
        ({"top1": float("nan")}, "top1: "),
        ({"memory": [1]}, "memory: expected a whole number"),
        ({"reason": {}}, "reason: expected text"),
        ({"settings": 1 << 70}, "result.settings"),
    ],
)
def test_a_line_that_is_no_result_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.append({"id": "a", "state": "finished"})
    results.append({"id": "b", "state": "finished", **changes})
    with pytest.raises(SourceError) as raised:
        results.read()
    assert str(raised.value).startswith(f"{results.path}: line 2: {words}")
    assert "remove it" in str(raised.value)


@pytest.mark.parametrize("missing", ["seed", "seconds", "costs", "state", "minutes", "top1", "reason"])
def test_a_result_that_lacks_something_still_has_a_row(missing: str, file: Path, tmp_path: Path) -> None:
    found = binarize.study(file, tmp_path / "study", dry_run=True, trust=NETWORK, only="Tiny/float")
    [trial] = found.trials
    whole = {
        "state": "finished",
        "seed": 0,
        "seconds": [1.0],
        "costs": {},
        "minutes": 1.0,
        "top1": 0.5,
        "reason": "",
    }
    found.folder.mkdir()
    Results(found.folder / "results.jsonl").append(
        {"id": trial.id, **{k: v for k, v in whole.items() if k != missing}}
    )
    [row] = found.rows
    is_done = missing != "state"
    assert (row.seeds, row.failed, row.missing) == ((trial.seed,) * is_done, 0, not is_done)


def test_results_go_through_no_link_and_a_line_of_many_lists_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("[" * 200_000 + "\n")
    (tmp_path / "results.jsonl").symlink_to("mine")
    results = Results(tmp_path / "results.jsonl")
    assert results.read() == {}
    with pytest.raises(UsageError, match="is a link"):
        results.append({"id": "a", "state": "failed"})
    assert (tmp_path / "mine").stat().st_size == 200_001


def test_rows_are_means_and_spreads_over_seeds(file: Path) -> None:
    found = binarize.study(file, dry_run=True, trust=NETWORK, only="Tiny/float", changes=["seeds=[0, 1, 2]"])
    common = {"state": "finished", "loss": 1.0, "memory": 5, "costs": {"flops": 3}, "minutes": 2.0}
    results = {
        trial.id: {**common, "seed": trial.seed, "top1": top1, "seconds": [1.0 + trial.seed, 2.0]}
        for trial, top1 in zip(found.trials, (0.5, 0.7))
    }
    [row] = rows_of(found.trials, results)
    assert (row.seeds, row.failed, row.missing) == ((0, 1), 0, 1)
    assert row.top1 == pytest.approx(0.6, abs=1e-12)
    # The root of (0.1 ** 2 + 0.1 ** 2) / (2 - 1).
    assert row.spread == pytest.approx(0.02**0.5, abs=1e-12)
    assert (row.top1_min, row.top1_max, row.epoch_seconds_min, row.epoch_seconds_max) == (0.5, 0.7, 1.0, 2.0)
    assert row.flops == 3 and row.bops is None and row.val_top1 is None


def test_the_table_says_what_is_missing_and_the_picture_depends_on_the_rows_alone(
    file: Path, tmp_path: Path
) -> None:
    found = binarize.study(file, tmp_path / "study", dry_run=True, trust=NETWORK, changes=["seeds=[0, 1]"])
    found.folder.mkdir()
    results = Results(found.folder / "results.jsonl")
    # The float networks of one seed; of the other model it failed.
    for trial, top1 in zip(found.trials, (0.91, 0.93, None)):
        state = {"state": "failed", "reason": "no"} if top1 is None else {"state": "finished", "top1": top1}
        costs = {"ops": 1500.0, "packed_bytes": 2048}
        results.append({"id": trial.id, "seed": trial.seed, "seconds": [12.0], "costs": costs, **state})
    written = found.write()
    assert [path.name for path in written] == ["table.md", "table.csv", "table.json", "plot.svg"]
    lines = [line for line in written[0].read_text().splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in line.split("|")[1:6]] for line in lines[2:]] == [
        ["Tiny/float", "2", "92.00 ± 1.41", "91.00", "93.00"],
        ["broken/float", "0 of 2", "failed", "", ""],
        ["Tiny", "0 of 2", "", "", ""],
        ["broken", "0 of 2", "", "", ""],
    ]
    assert "| 1.50 k |" in lines[2] and "| 2.00 KiB |" in lines[2]
    picture = written[3].read_bytes()
    assert found.write()[3].read_bytes() == picture


def test_what_is_to_be_run_is_what_has_no_result_and_what_that_needs(file: Path, tmp_path: Path) -> None:
    found = binarize.study(file, tmp_path / "study", dry_run=True, trust=NETWORK)
    names = ["Tiny/float/seed0", "broken/float/seed0", "Tiny/seed0", "broken/seed0"]
    assert [trial.name for trial in found.unfinished()] == names
    found.folder.mkdir()
    results = Results(found.folder / "results.jsonl")
    for trial, state in zip(found.trials, ("finished", "failed", "finished", "failed")):
        results.append({"id": trial.id, "state": state, "reason": ""})
    assert found.unfinished() == []
    # A float network whose weights are gone is trained anew where another trial needs it.
    assert [trial.name for trial in found.unfinished(retry=True)] == [names[1], names[3]]
    results.append({"id": found.trials[2].id, "state": None})
    assert [trial.name for trial in found.unfinished()] == [names[0], names[2]]
    weights = found.trials[0].home(found.folder) / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert [trial.name for trial in found.unfinished()] == [names[2]]
