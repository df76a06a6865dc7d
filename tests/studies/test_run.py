"""One trial: what it gives, that nothing else decides about it, and that it goes on where it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from binarize import load_source
from binarize.errors import SourceError, UsageError
from binarize.studies.grid.expand import trials_of
from binarize.studies.grid.read import read_grid
from binarize.studies.grid.trial import Resources, Trial
from binarize.studies.network import drop_before_classifier, prune, without_dropout
from binarize.studies.run import run_trial

HERE = Path(__file__).parent
SETTINGS = {
    "model": f"{HERE / 'network.py'}:Tiny", "input_shape": [1, 8, 8], "data": "digits", "images": 64, "epochs": 1,
    "batch_size": 16, "scheme": "bireal", "overrides": ["tiny.use=bireal"],
}  # fmt: skip


def trials(**keys: Any) -> dict[str, Trial]:
    settings = {**SETTINGS, **keys.pop("settings", {})}
    return {one.group: one for one in trials_of(read_grid({"schema": 1, "settings": settings, **keys}))}


def run(found: dict[str, Trial], folder: Path) -> dict[str, dict[str, Any]]:
    return {name: run_trial(one, folder, Resources()) for name, one in found.items()}


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    times = ("seconds", "minutes", "memory", "device_memory", "resumed")
    return {key: value for key, value in result.items() if key not in times}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return run(trials(axes={"train": ["float", "binary", "distilled"]}), tmp_path_factory.mktemp("study"))


def test_a_result_tells_accuracy_times_memory_and_costs(results: dict[str, dict[str, Any]]) -> None:
    assert list(results) == ["float", "binary", "distilled"]
    for name, result in results.items():
        assert result["state"] == "finished" and result["kind"] == name
        assert 0 <= result["top1"] <= 1 and result["loss"] > 0 and result["test_images"] == 359
        # A tenth of 1,438 training images is held out.
        assert result["val_images"] == 144 and result["images"] == 64
        assert len(result["seconds"]) == len(result["curve"]) == result["epochs"] == 1
        assert result["memory"] > 10**8
    assert [results[name]["teacher"] for name in results] == ["none", "none", "Tiny"]


def test_costs_count_what_is_binary(results: dict[str, dict[str, Any]]) -> None:
    # 8 * 9 * 64 + 16 * 8 * 9 * 16 + 16 * 16 * 9 * 4 + 160 products.
    macs = 4608 + 18432 + 9216 + 160
    costs = {name: results[name]["costs"] for name in results}
    assert (costs["float"]["flops"], costs["float"]["bops"]) == (macs, 0)
    assert (costs["binary"]["flops"], costs["binary"]["bops"]) == (4608 + 160, 18432 + 9216)
    assert costs["float"]["packed_bytes"] == costs["float"]["float_bytes"] > costs["binary"]["packed_bytes"]


def test_the_same_trial_gives_the_same_result_wherever_it_runs(
    results: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    torch.manual_seed(12345)
    again = run(trials(axes={"train": ["distilled"]}), tmp_path)
    assert without_times(again["distilled"]) == without_times(results["distilled"])


def test_a_finished_trial_is_not_run_again(tmp_path: Path) -> None:
    [found] = trials(axes={"train": ["float"]}).values()
    before = torch.get_num_threads()
    first = run_trial(found, tmp_path, Resources(cpus=before + 1))
    assert torch.get_num_threads() == before
    folder = found.home(tmp_path)
    assert not (folder / "checkpoints").exists()
    (folder / "model.safetensors").unlink()
    assert run_trial(found, tmp_path, Resources()) == first
    assert not (folder / "model.safetensors").exists()


def test_a_trial_that_broke_down_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    shutil.copy(HERE / "network.py", tmp_path)
    network = {"model": f"{tmp_path / 'network.py'}:Trapped", "epochs": 3}
    [found] = trials(axes={"train": ["float"]}, settings=network).values()
    whole = run_trial(found, tmp_path / "whole", Resources())
    # Four steps an epoch: in the second one.
    (tmp_path / "trap").write_text("7")
    with pytest.raises(RuntimeError, match="trapped"):
        run_trial(found, tmp_path / "broken", Resources())
    (tmp_path / "trap").unlink()
    resumed = run_trial(found, tmp_path / "broken", Resources())
    assert resumed["resumed"] and not whole["resumed"]
    assert len(resumed["seconds"]) == 3
    assert without_times(resumed) == without_times(whole)


def test_every_setting_of_a_chain_is_carried_out(tmp_path: Path) -> None:
    steps = {
        "WD": {"weight_decay": 1e-2},
        "LS": {"label_smoothing": 0.1},
        "RA": {"rand_augment": "rand-m9"},
        "DP": {"dropout": 0.5},
        "PR": {"prune": 0.5},
    }
    chains = {"gain": ["none", *(f"+{step}" for step in steps)]}
    found = run(trials(axes={"train": ["binary"]}, steps=steps, chains=chains, float={"epochs": 1}), tmp_path)
    losses = [result["val_loss"] for name, result in found.items() if name != "float"]
    assert len(set(losses)) == len(losses) == 6
    costs = [result["costs"] for result in found.values()]
    assert costs[-1]["ops"] < costs[-2]["ops"] and costs[-1]["packed_bytes"] < costs[-2]["packed_bytes"]


def test_dropout_goes_before_the_layer_that_runs_last_and_comes_off_again() -> None:
    model, images = load_source(SETTINGS["model"]).module, torch.rand(4, 1, 8, 8)
    names = list(model.state_dict())
    expected = model.eval()(images)
    dropped = drop_before_classifier(model, 0.5, images)
    assert isinstance(dropped.classifier, nn.Sequential) and dropped.classifier[0].p == 0.5
    torch.testing.assert_close(dropped.eval()(images), expected, rtol=0, atol=0)
    assert not torch.equal(dropped.train()(images), dropped(images))
    assert list(without_dropout(dropped, images).state_dict()) == names


def test_pruning_cuts_channels_and_leaves_the_outputs() -> None:
    model, images = load_source(SETTINGS["model"]).module.train(), torch.rand(4, 1, 8, 8)
    prune(model, 0.5, images)
    assert [layer.out_channels for layer in model.features if isinstance(layer, nn.Conv2d)] == [4, 8, 8]
    assert model(images).shape == (4, 10) and model.training


def test_random_weights_that_nobody_trains_cannot_teach(tmp_path: Path) -> None:
    settings = {
        "model": "timm:test_resnet",
        "data": "fake:8",
        "train": "distilled",
        "input_shape": [3, 16, 16],
    }
    [found] = trials(settings=settings, float="none").values()
    with pytest.raises(UsageError, match="has random weights and is not trained, so it cannot teach"):
        run_trial(found, tmp_path, Resources())


def test_a_model_that_cannot_be_made_ends_the_trial(tmp_path: Path) -> None:
    [found] = trials(settings={"model": f"{HERE / 'network.py'}:broken", "train": "float"}).values()
    with pytest.raises(SourceError, match="no such network"):
        run_trial(found, tmp_path, Resources())
