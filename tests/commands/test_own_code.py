"""A model of the user's own: named once, then in every command that is printed; what its file says now is compared."""

from __future__ import annotations

import importlib
import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from small_images import pictures, run
from torch import nn
from typer.testing import Result

import binarize
from binarize.conversion.conversion import conversion_of
from binarize.inputs.seen import DataUse, Seen
from binarize.report.words import next_command, next_commands
from binarize.sources.user_code import call_user_code

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).relu().mean((2, 3)))

def build(num_classes=4):
    torch.manual_seed(0)
    return Net(num_classes)
"""


@pytest.fixture
def net(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file of the user's own, in a folder with a space in its name."""
    # A module goes by its file's name: one a test, so that none sees another's.
    path = tmp_path / "my nets" / f"net_{abs(hash(request.node.name))}.py"
    path.parent.mkdir()
    path.write_text(NET)
    return path


def printed(result: Result) -> list[list[str]]:
    """The words of the commands that were printed as next ones, without the program's name."""
    assert result.exit_code == 0, result.stderr
    lines = re.findall(r"^ *next: (.*)$", result.stdout + result.stderr, re.MULTILINE)
    commands = [shlex.split(line) for line in lines]
    verbs = ("calibrate", "eval", "export", "finetune", "pack")
    return [words[next(i for i, word in enumerate(words) if word in verbs) :] for words in commands]


def test_every_printed_command_runs_as_it_is_printed(net: Path, tmp_path: Path) -> None:
    images, folder = pictures(tmp_path / "my images", ["ant", "bee", "cat", "dog"]), tmp_path / "a net"
    result = run("convert", f"{net}:build", "-i", "1,3,8,8", "-o", folder, "--calibrate", images)
    finetune, pack = printed(result)
    assert finetune == ["finetune", str(folder), "--data", str(images), "--source", f"{net}:build"]
    assert pack == ["pack", str(folder), "--source", f"{net}:build"]
    assert run(*pack).exit_code == 0
    result = run(*finetune, "-e", "1")
    assert "teacher  source" in result.stdout
    (evaluate,) = printed(result)
    assert evaluate == ["eval", str(folder), "--data", str(images), "--source", f"{net}:build"]
    result = run(*evaluate)
    assert result.exit_code == 0, result.stderr
    assert "says the same as the float model" in result.stdout


def test_the_number_of_classes_is_given_once(net: Path, tmp_path: Path) -> None:
    images, folder = pictures(tmp_path / "images", ["ant", "bee"]), tmp_path / "net"
    spec = f"{net}:build"
    result = run("convert", spec, "-i", "1,3,8,8", "-o", folder, "--num-classes", "2")
    assert [words[0] for words in printed(result)] == ["calibrate", "finetune", "pack"]
    assert run("calibrate", folder, "--data", images, "--source", spec).exit_code == 0


def test_a_changed_file_is_named_and_its_model_must_fit(net: Path, tmp_path: Path) -> None:
    folder, spec = tmp_path / "net", f"{net}:build"
    assert run("convert", spec, "-i", "1,3,8,8", "-o", folder).exit_code == 0
    assert "has changed" not in run("pack", folder, "--source", spec).stderr
    net.write_text(NET + "# another line\n")
    with pytest.warns(binarize.errors.BinarizeWarning, match=f"{net.name} has changed since the conversion"):
        binarize.load(folder, source=spec)
    other = net.with_name(f"other_{net.name}")
    other.write_text(NET.replace("3, 8, 3)", "3, 8, 5)"))
    result = run("pack", folder, "--source", f"{other}:build", "--force")
    assert result.exit_code == 7 and "has changed since the conversion" in result.stderr


def test_a_folder_made_in_python_learns_its_source(net: Path, tmp_path: Path) -> None:
    class Own(nn.Sequential):
        pass

    torch.manual_seed(0)
    model = Own(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    folder = binarize.save(binarize.convert(model, input_shape=(1, 3, 8, 8)), tmp_path / "net")
    net.write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), "
        "nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))\n"
    )
    loaded = binarize.load(folder, source=f"{net}:build")
    conversion = conversion_of(
        binarize.load(binarize.save(loaded, tmp_path / "again"), source=f"{net}:build")
    )
    assert conversion is not None
    assert (conversion.source.kind, conversion.source.code) == ("factory", f"{net}:build")


def test_data_is_named_where_it_can_be_opened_again() -> None:
    seen = Seen().using(DataUse("calibrate", "flat images", 5, labelled=False))
    calibrate, finetune, pack = next_commands("net", seen=seen)
    assert calibrate == "binarize calibrate net --data 'flat images'"
    assert finetune == "binarize finetune net --data DIR"
    assert pack == "binarize pack net"
    seen = seen.using(DataUse("finetune", "tensors", 9, by_name=False))
    assert next_commands("net", trained=True, seen=seen)[0] == "binarize eval net --data 'flat images'"
    rooted = DataUse("finetune", "torch/cifar10", 9, root="/my data")
    assert next_command("eval", "net", data=rooted).endswith("--data torch/cifar10 --data-root '/my data'")
    assert next_command("pack", "net", data=rooted) == "binarize pack net"


def test_a_pickled_model_of_ones_own_is_trusted_again_in_every_printed_command(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(net.parent)
    made, file = importlib.import_module(net.stem), net.with_suffix(".pt")
    torch.save(made.build(), file)
    images, folder = pictures(tmp_path / "my images", ["ant", "bee", "cat", "dog"]), tmp_path / "a net"
    said = ["--source", str(file), "--trust-pickle"]
    assert "--trust-pickle" in run("convert", file, "-i", "1,3,8,8", "-o", folder).stderr
    result = run("convert", file, "-i", "1,3,8,8", "-o", folder, "--trust-pickle", "--calibrate", images)
    finetune, pack = printed(result)
    assert finetune == ["finetune", str(folder), "--data", str(images), *said] and pack[2:] == said
    assert run(*finetune[:-1], "-e", "1").exit_code == 4
    result = run(*finetune, "-e", "1")
    assert "teacher  source" in result.stdout
    (evaluate,) = printed(result)
    assert evaluate[-3:] == said and run(*evaluate).exit_code == 0
    (export,) = printed(run(*pack))
    assert export == ["export", str(folder), "--format", "onnx", *said]
    assert run("calibrate", folder, "--data", images, "--force", *said).exit_code == 0


def test_weights_in_a_trusted_file_beside_a_function_are_those_of_the_record(
    net: Path, tmp_path: Path
) -> None:
    file, marker = tmp_path / "weights.pt", tmp_path / "ran"
    images, folder = pictures(tmp_path / "images", ["ant", "bee", "cat", "dog"]), tmp_path / "net"
    torch.save(call_user_code(f"{net}:build").state_dict(), file)
    said = ["--source", f"{net}:build", "--trust-pickle"]
    arch = ("--arch", f"{net}:build", "--trust-pickle")
    finetune = printed(run("convert", file, *arch, "-i", "1,3,8,8", "-o", folder))[1]
    assert finetune[-3:] == said
    words: tuple[str | Path, ...] = ("eval", folder, "--data", images, *said)
    assert "says the same as the float model" in run(*words).stdout
    file.write_bytes(pickle.dumps(Touch(marker)))
    result = run(*words, "--float", "source")
    assert result.exit_code == 4 and "sha256 differs" in result.stderr and not marker.exists()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


OTHER = ("torch.manual_seed(0)", "torch.manual_seed(int(open(__file__ + '.seed').read()))")
SAID = "gives other float weights than at the conversion"


def test_a_function_that_gives_other_weights_is_told_wherever_it_makes_the_float_model(
    net: Path, tmp_path: Path
) -> None:
    images, folder = pictures(tmp_path / "images", ["ant", "bee", "cat", "dog"]), tmp_path / "net"
    spec, seed = f"{net}:build", Path(f"{net}.seed")
    net.write_text(NET.replace(*OTHER))
    seed.write_text("0")
    run("convert", spec, "-i", "1,3,8,8", "-o", folder)
    commands: list[tuple[str | Path, ...]] = [
        ("eval", folder, "--data", images, "--source", spec),
        ("eval", folder, "--data", images, "--source", spec, "--float", spec),
        ("finetune", folder, "--data", images, "--source", spec, "-e", "1", "-o", tmp_path / "a"),
    ]
    for words in commands:
        same = run(*words)
        assert same.exit_code == 0 and SAID not in same.stderr, same.stderr
    seed.write_text("1")
    commands[-1] = (*commands[-1][:-1], tmp_path / "b")
    for words in commands:
        other = run(*words)
        assert other.exit_code == 0 and SAID in " ".join(other.stderr.split()), (words, other.stderr)
    # Fitted once, its weights are the float model's no longer, and only the function makes those.
    run("calibrate", folder, "--data", images, "--source", spec)
    again = run("calibrate", folder, "--data", images, "--source", spec)
    assert SAID in " ".join(again.stderr.split()), again.stderr
