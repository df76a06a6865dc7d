"""The command line: parsing, messages, exit codes, and what goes to which stream."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import binarize
from binarize.cli import app
from binarize.commands.console import complete
from binarize.commands.convert import model_name
from binarize.demo.digits import DigitsVGG, load_digits, trained_vgg

SHAPE = ("-i", "1,3,8,8")


def run(*words: str | Path, input: str | None = None) -> Result:
    """One command in this process; stdout and stderr apart."""
    return CliRunner().invoke(app, [str(word) for word in words], input=input, env={"COLUMNS": "160"})


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five layers, of which the three in the middle become binary."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    path = tmp_path_factory.mktemp("models") / "five.pt"
    torch.save(nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10)), path)
    return path


@pytest.fixture(scope="module")
def converted(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `convert` wrote."""
    folder = tmp_path_factory.mktemp("converted") / "five"
    result = run("convert", model_file, *SHAPE, "--add-shortcuts", "-o", folder)
    assert result.exit_code == 0, result.stderr
    return folder


# Help, spelling, streams


def test_help_lists_every_command() -> None:
    text = run("--help").stdout
    for name in (
        "convert",
        "plan",
        "rules",
        "schemes",
        "finetune",
        "eval",
        "report",
        "demo",
        "doctor",
        "version",
    ):
        assert f" {name} " in text


@pytest.mark.parametrize(
    ("words", "answer"),
    [(["convrt"], "Did you mean 'convert'"), (["plan", "x.pt", "--schem", "adabin"], "--scheme")],
)
def test_a_misspelt_command_or_option_is_answered(words: list[str], answer: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert answer in result.stderr


def test_json_is_one_document_on_stdout_and_the_rest_on_stderr(model_file: Path) -> None:
    result = run("plan", model_file, *SHAPE, "--json")
    assert json.loads(result.stdout)["report"]["totals"]["binary_layers"] == 3
    assert "3 of 5 layers binary" in result.stderr


def test_an_error_is_a_json_document_too() -> None:
    result = run("plan", "nothing.pt", "--json")
    error = json.loads(result.stdout)["error"]
    assert (error["type"], error["exit_code"], result.exit_code) == ("SourceError", 4, 4)
    assert error["message"] in result.stderr.replace("error  ", "")


def test_plain_output_has_no_escape_sequences() -> None:
    assert "\x1b" not in run("schemes", "--plain").stdout


def test_quiet_leaves_the_result(model_file: Path) -> None:
    result = run("plan", model_file, *SHAPE, "-q")
    assert "3 of 5 layers binary" in result.stdout
    assert result.stderr == ""


def test_verbose_says_what_took_how_long(model_file: Path) -> None:
    assert " s  reading" in run("plan", model_file, *SHAPE, "-v").stderr


# Exit codes


def untrusted(folder: Path) -> Path:
    path = folder / "foreign.pt"
    torch.save({"model": pickle.PickleBuffer}, path)
    return path


@pytest.mark.parametrize(
    ("code", "options"),
    [
        (2, ["--add-shortcuts", "--shortcuts", "every"]),
        (2, ["-i", "3,x"]),
        (2, ["--shortcuts", "sometimes"]),
        (3, ["--scheme", "adabn"]),
        (3, ["--rules", "nothing.yaml"]),
        (3, ["--set", "first.use=nothing"]),
        (6, ["--keep", "**"]),
        (6, ["--keep", "layer9", "--strict"]),
    ],
)
def test_exit_codes_of_wrong_options(model_file: Path, code: int, options: list[str]) -> None:
    result = run("plan", model_file, *SHAPE, *options)
    assert result.exit_code == code, result.stderr
    assert result.stderr.startswith("error  ")
    assert "Traceback" not in result.stderr


def test_strict_names_the_nearest_layers(model_file: Path) -> None:
    loose, strict = (run("plan", model_file, *SHAPE, "--keep", "22", *more) for more in ((), ("--strict",)))
    complaint = 'rule "keep-1" (--keep 22) matched no layer: name "22"'
    assert loose.exit_code == 0 and complaint in loose.stdout
    assert strict.exit_code == 6 and complaint in strict.stderr
    assert "nearest: 2" in strict.stderr


@pytest.mark.parametrize("device", ["xpu9", "nothing"])
def test_a_device_that_is_not_there_is_a_usage_error(device: str, model_file: Path, tmp_path: Path) -> None:
    result = run("convert", model_file, *SHAPE, "--device", device, "-o", tmp_path / "out")
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert result.stderr.startswith(f"error  device {device}: ")


@pytest.mark.parametrize("place", ["", ".", "/", "..", "{file}/x"])
def test_a_place_where_nothing_can_be_made_is_a_usage_error(place: str, model_file: Path) -> None:
    result = run("convert", model_file, *SHAPE, "-o", place.format(file=model_file), "--force")
    assert result.exit_code == 2, result.stderr
    assert "fault of binarize" not in result.stderr


def test_what_the_users_code_prints_is_no_part_of_the_document(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    print('made')\n"
        "    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)]\n"
        "    return nn.Sequential(*layers)\n"
    )
    result = run("plan", f"{tmp_path}/chatty.py:make", *SHAPE, "--json")
    assert json.loads(result.stdout)["report"]["totals"]["binary_layers"] == 1
    assert "made" in result.stderr


def test_a_full_stdout_is_told_on_stderr(model_file: Path) -> None:
    words = [sys.executable, "-m", "binarize", "plan", str(model_file), *SHAPE, "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_detector_is_planned_though_it_looks_at_values() -> None:
    result = run("plan", "torchvision:ssdlite320_mobilenet_v3_large", "-i", "1,3,64,64", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["report"]["totals"]["binary_layers"] > 30


def test_exit_code_of_a_source_that_cannot_be_loaded(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pt"
    empty.touch()
    for source in ("nothing.pt", "torchvision:resnet81", empty, tmp_path, untrusted(tmp_path)):
        assert run("plan", source).exit_code == 4, source


def test_exit_code_of_a_model_that_does_not_run(model_file: Path) -> None:
    assert run("plan", model_file, "-i", "1,4,8,8").exit_code == 5


def test_a_fault_of_ours_has_a_traceback_only_with_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    # Raised without a line of anybody else's code in between.
    monkeypatch.setattr("binarize.commands.doctor.examine", {}.popitem)
    quiet, loud = run("doctor"), run("doctor", "--debug")
    assert quiet.exit_code == loud.exit_code == 1
    assert "Traceback" not in quiet.stderr and "--debug" in quiet.stderr
    assert "Traceback" in loud.stderr


def test_an_interruption_is_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("binarize.commands.doctor.examine", interrupt)
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (130, "error  interrupted\n")


# convert, plan, report


def test_nothing_is_asked_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    for source in ("torchvision:squeezenet1_1", "timm:resnet10t"):
        result = run("convert", source, "-i", "1,3,64,64", "-o", tmp_path / source.partition(":")[2])
        assert result.exit_code == 0, result.stderr


def test_convert_writes_what_load_reads(converted: Path, model_file: Path) -> None:
    model = binarize.load(converted)
    floats = torch.load(model_file, weights_only=False).state_dict()
    assert {path.name for path in converted.iterdir()} >= {"model.safetensors", "report.json", "rules.yaml"}
    assert torch.equal(model.state_dict()["2.weight"], floats["2.weight"])


def test_convert_refuses_to_overwrite_before_it_reads(converted: Path) -> None:
    result = run("convert", "nothing.pt", "-o", converted)
    assert result.exit_code == 2
    assert "--force" in result.stderr


def test_force_overwrites(converted: Path, model_file: Path) -> None:
    result = run("convert", model_file, *SHAPE, "--add-shortcuts", "-o", converted, "--force")
    assert result.exit_code == 0, result.stderr


def test_the_folder_is_named_after_model_and_scheme(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("convert", model_file, *SHAPE, "--scheme", "bireal").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["five-bireal"]


@pytest.mark.parametrize(
    ("src", "name"),
    [
        ("torchvision:vgg11", "vgg11"),
        ("timm:resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18", "resnet18"),
        ("nets.py:make_model", "make_model"),
        ("package.nets:Net(num_classes=10)", "Net"),
    ],
)
def test_model_names(src: str, name: str) -> None:
    assert model_name(src) == name


@pytest.mark.parametrize("words", [["plan"], ["inspect"], ["convert", "--dry-run"]])
def test_a_dry_run_writes_nothing(
    words: list[str], model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words, model_file, *SHAPE)
    assert "3 of 5 layers binary" in result.stdout
    assert not list(tmp_path.iterdir())


def test_report_formats_leave_out_what_was_not_asked_for(model_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = run("convert", model_file, *SHAPE, "-o", folder, "--report", "json,md")
    assert "layers binary" not in result.stdout
    assert (folder / "report.md").exists() and not (folder / "report.html").exists()


def test_emit_pt_writes_a_module_that_torch_loads(model_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run("convert", model_file, *SHAPE, "-o", folder, "--emit", "pt").exit_code == 0
    assert not folder.exists()
    assert torch.load(tmp_path / "out.pt", weights_only=False)(torch.zeros(1, 3, 8, 8)).shape == (1, 10)


def test_emit_pt_alone_takes_the_name_as_it_is(model_file: Path, tmp_path: Path) -> None:
    assert run("convert", model_file, *SHAPE, "--emit", "pt", "-o", tmp_path / "net.pt").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_report_shows_it_again(converted: Path) -> None:
    assert "3 of 5 layers binary" in run("report", converted).stdout
    assert "3 of 5 layers binary" in run("report", converted, "--format", "md").stdout
    assert json.loads(run("report", converted, "--json").stdout)["totals"]["binary_layers"] == 3


def test_report_of_two_says_what_differs(converted: Path, model_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert run("convert", model_file, *SHAPE, "--keep", "4", "-o", other).exit_code == 0
    assert "no difference" in run("report", converted, converted).stdout
    assert "binarize" in run("report", converted, other).stdout
    assert json.loads(run("report", converted, other, "--json").stdout)["layers"]


def test_report_of_anything_else_is_exit_4(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    assert run("report", tmp_path).exit_code == 4
    assert run("report", tmp_path / "nowhere").exit_code == 4


# rules, schemes, completion


def test_rules_show_is_rerunnable(tmp_path: Path, model_file: Path) -> None:
    text = run("rules", "show", "adabin").stdout
    result = run("plan", model_file, *SHAPE, "--rules", "-", input=text)
    assert "3 of 5 layers binary" in result.stdout


def test_rules_new_writes_a_valid_file_and_does_not_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert run("rules", "new", path).exit_code == 0
    assert run("rules", "validate", path).exit_code == 0
    assert run("rules", "new", path).exit_code == 2


def test_rules_validate_points_at_the_mistake() -> None:
    result = run("rules", "validate", "-", input="schema: 1\nrules:\n  - {match: {kernal: 1}, use: keep}\n")
    assert result.exit_code == 3
    assert "<stdin>:3:" in result.stderr and 'did you mean "kernel"' in result.stderr


def test_rules_explain_marks_the_winner(model_file: Path) -> None:
    result = run("rules", "explain", model_file, "0", *SHAPE, "--json")
    explained = json.loads(result.stdout)
    assert [rule["id"] for rule in explained["matching"]] == ["body", "first"]
    assert explained["action"] == "keep"


def test_rules_explain_answers_a_misspelt_layer() -> None:
    result = run("rules", "explain", "binarize.demo.digits:trained_vgg", "features.22")
    assert result.exit_code == 2
    assert 'did you mean "features.2"' in result.stderr


def test_schemes_are_listed_and_shown() -> None:
    listed: dict[str, Any] = json.loads(run("schemes", "--json").stdout)
    assert {"adabin", "bireal"} <= listed.keys()
    assert "AdaptiveWeight" in run("schemes", "show", "adabin").stdout
    assert 'did you mean "adabin"' in run("schemes", "show", "adabn").stderr


def test_completed_model_names_are_those_of_the_libraries() -> None:
    import timm
    import torchvision

    known = [name for name in torchvision.models.list_models() if not name.startswith("quantized_")]
    assert complete.model_names("torchvision") == sorted(known)
    assert complete.model_names("timm") == sorted(timm.list_models())


def test_completion_offers_schemes_libraries_and_models() -> None:
    assert complete.schemes("adab")[0] == "adabin"
    assert complete.models("tor") == ["torchvision:"]
    assert "torchvision:vgg11_bn" in complete.models("torchvision:vgg11")
    assert complete.models("./tor") == []


# The demonstration's parts; its whole is `make demo`


def test_the_bundled_network_reads_99_of_100_held_out_digits() -> None:
    digits = load_digits()
    with torch.no_grad():
        found = trained_vgg()(digits.held_out_images).argmax(1)
    assert (found == digits.held_out_labels).float().mean() >= 0.99
    assert sum(p.numel() for p in DigitsVGG().parameters()) < 300_000


def test_the_digits_are_split_without_overlap() -> None:
    digits = load_digits()
    assert [len(part) for part in digits] == [1438, 1438, 359, 359]
    assert digits.train_images.min() == -1 and digits.train_images.max() == 1
    images = torch.cat([digits.train_images, digits.held_out_images]).flatten(1)
    assert len(images.unique(dim=0)) == len(images)


@pytest.mark.parametrize("epochs", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_demo_trains_to_95_of_100_and_reloads(epochs: int, tmp_path: Path) -> None:
    result = run("demo", "--json", "-o", tmp_path / "digits", "--epochs", str(epochs))
    accuracy = json.loads(result.stdout)["accuracy"]
    assert accuracy["float"] >= 0.99
    assert accuracy["as converted"] < accuracy["calibrated"]
    if epochs == 8:
        assert accuracy["calibrated"] < accuracy["trained"]
    assert accuracy["trained"] >= 0.95
    assert (tmp_path / "digits" / "model.safetensors").exists()
