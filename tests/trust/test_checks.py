"""No file runs code, opens an address or writes elsewhere; what the user says in the same call may."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import binarize
from binarize.checkpoint.fingerprint import record_digest
from binarize.cli import app
from binarize.conversion.conversion import conversion_of
from binarize.errors import BinarizeError, RuleError, SourceError, UntrustedSourceError
from binarize.rules.load import load_rule_set
from binarize.rules.text import RuleText
from binarize.schemes.part import Part
from binarize.schemes.shipped import shipped_parts
from binarize.sources import build, load, load_file
from binarize.sources.state_dicts import find_weights
from binarize.studies.grid.read import read_grid
from binarize.training.prepare import prepare
from binarize.training.recipe import chosen_recipe, read_recipe
from binarize.training.teachers.find import find_teachers
from binarize.trust import check_data, is_builder, is_teacher, is_trusted, trusting

# What a file may not name where a builder or a teacher stands. P is where a run of code would leave its mark.
CODE = (
    "os:system('touch P')",
    "builtins:exec(\"open('P', 'w')\")",
    "evil.py:make",
    "evil:make",
    "./evil.py:Net(10)",
    "subprocess:check_output(['touch', 'P'])",
    "torchvision:resnet18(weights='DEFAULT')",
    "torchvision:resnet18('DEFAULT')",
    "torchvision:resnet18(**{'weights': 'DEFAULT'})",
    "torchvision:fcn_resnet50(weights_backbone='DEFAULT')",
    "timm:resnet18(pretrained=True)",
    "timm:resnet18(1)",
    "timm:resnet18(checkpoint_path='P')",
    "timm:resnet18(cache_dir='P')",
    "timm:resnet18(num_classes=10, pretrained_cfg={'url': 'http://localhost/x'})",
    "timm:resnet18(pretrained_cfg_overlay={'file': 'P'})",
    "timm:resnet18(features_only=True)",
    "timm:resnet18(num_classes='10')",
    "timm:resnet18(num_classes=10**9)",
    "timm:resnet18(num_classes=99999999999)",
    "timm:resnet18(num_classes=-1)",
    "timm:resnet18(drop_rate=1e999)",
    "timm:resnet18(layers=[[2], 2])",
    "timm:resnet18)(num_classes=10",
    "timm:resnet18(num_classes=__import__('os').system('touch P'))",
    "timm:hf-hub:someone/net",
    "timm:../net",
    "timm:resnet18\n",
    "hf-hub:someone/net",
    "local-dir:.",
    "http://localhost/net.pt",
    "",
    "\0",
)
HONEST = (
    "torchvision:resnet18",
    "torchvision:googlenet(aux_logits=False, transform_input=True)",
    "torchvision:deeplabv3_resnet50(aux_loss=True)",
    "torchvision:resnet50(replace_stride_with_dilation=[False, False, True])",
    "timm:resnet18",
    "timm:resnet18.a1_in1k",
    "timm:test_resnet(num_classes=0)",
    "timm:vit_tiny_patch16_224(img_size=(64, 64), depth=2, embed_dim=48, num_heads=2, drop_path_rate=0.1)",
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Here lies code that leaves a mark when it is imported; no socket opens."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a socket was opened")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    here = tmp_path / "here"
    here.mkdir()
    mark = (
        "import pathlib\nfrom torch import nn\n"
        "pathlib.Path(__file__).with_name('P').touch()\n"
        "class Thing(nn.Hardtanh):\n    pass\n"
        "def make():\n    return nn.Linear(2, 2)\n"
    )
    for name in ("evil.py", "evilpart.py"):
        (here / name).write_text(mark)
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))  # as under `python -m`
    for name in ("evil", "evilpart"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return here


def untouched(place: Path) -> bool:
    return not list(place.rglob("P"))


@pytest.mark.parametrize("text", CODE)
def test_a_file_names_builders_with_plain_numbers_alone(text: str, place: Path) -> None:
    assert not is_builder(text) and not is_teacher(text)
    with pytest.raises(UntrustedSourceError):
        build(text)
    assert untouched(place)


@pytest.mark.parametrize("text", HONEST)
def test_honest_builders_stay_nameable(text: str) -> None:
    assert is_builder(text) and is_teacher(text)


def test_a_builder_that_no_file_may_name_is_kept_as_a_structure(place: Path) -> None:
    plain = load("timm:test_resnet(num_classes=4)", meta=True)
    assert plain.builder == "timm:test_resnet(num_classes=4)"
    model = binarize.convert(
        "timm:test_resnet(num_classes=4, act_layer='relu')", "bireal", example_input=nets.pictures(4, 64)
    )
    folder = binarize.save(model, place / "net")
    assert json.loads((folder / "binarize.json").read_text())["source"]["builder"] is None
    again = binarize.load(folder)
    with torch.no_grad():
        x = nets.pictures(2, 64)
        assert torch.equal(model.eval()(x), again.eval()(x))


# --- checkpoints


@pytest.mark.parametrize(
    "arch",
    [
        f"resnet18(pretrained=True, cache_dir='P', pretrained_cfg={'{'}'url': 'data:,x'{'}'})",
        "resnet18(weights='DEFAULT')",
        "resnet18(checkpoint_path='P')",
        "hf-hub:someone/net",
        "evil.py:make",
        "os:system('touch P')",
        7,
        ["resnet18"],
    ],
)
def test_the_architecture_in_a_checkpoint_is_a_bare_name(arch: Any, place: Path) -> None:
    state = {"w": torch.zeros(1)}
    named = [{"arch": arch}, {"args": argparse.Namespace(model=arch, arch=arch)}]
    for one in named:
        assert find_weights({"state_dict": state, **one}, "x").archs == ()
        torch.save({"state_dict": state, **one}, "net.pth")
        with pytest.raises(SourceError, match="has none that takes them"):
            load("net.pth")
    assert find_weights({"state_dict": state, "arch": "resnet18"}, "x").archs == (
        "torchvision:resnet18",
        "timm:resnet18",
    )
    assert untouched(place)


# --- saved folders


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 10)
    )  # fmt: skip
    model = binarize.convert(net, "adabin", example_input=torch.rand(4, 1, 8, 8))
    return binarize.save(model, tmp_path_factory.mktemp("saved") / "net")


def resealed(saved: Path, place: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of the folder whose record was changed and signed again."""
    folder = place / "net"
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    record = json.loads((folder / "binarize.json").read_text())
    change(record)
    del record["fingerprint"]["record"]
    fingerprint = record.pop("fingerprint")
    record["fingerprint"] = {**fingerprint, "record": record_digest(record)}
    (folder / "binarize.json").write_text(json.dumps(record))
    return folder


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(BinarizeError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("kind", ["state_dict", "pickle", "safetensors", "torchvision", "timm", "factory"])
@pytest.mark.parametrize(
    "spec", ["os:system('touch P')", "evil.py:make", "evil:make", "timm:resnet18(pretrained=True)"]
)
def test_the_source_of_a_folder_is_never_run(kind: str, spec: str, saved: Path, place: Path) -> None:
    source = {"spec": spec, "kind": kind, "weights": "default", "sha256": None}
    model = binarize.load(resealed(saved, place, lambda r: r["source"].update(source)))
    assert refused(lambda: find_teachers(model, "source"))
    assert untouched(place)


@pytest.mark.parametrize(
    "arch", ["evil.py:make", "os:system('touch P')", "timm:resnet18(checkpoint_path='P')"]
)
def test_the_architecture_of_a_folder_is_never_run(arch: str, saved: Path, place: Path) -> None:
    torch.save({"w": torch.zeros(1)}, "net.pth")
    source = {"spec": "net.pth", "kind": "state_dict", "arch": arch}
    model = binarize.load(resealed(saved, place, lambda r: r["source"].update(source)))
    assert "source.arch" in refused(lambda: find_teachers(model, "source"))
    assert "source.arch" in refused(lambda: load_file("net.pth", arch=arch))
    assert untouched(place)


@pytest.mark.parametrize(
    ("spec", "weights"), [("torchvision:resnet18", "DEFAULT"), ("timm:resnet18", "default")]
)
def test_published_weights_are_not_fetched_because_a_folder_says_so(
    spec: str, weights: str, saved: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(place))
    source = {"spec": spec, "kind": spec.partition(":")[0], "weights": weights}
    model = binarize.load(resealed(saved, place, lambda r: r["source"].update(source)))
    assert "are not on this machine" in refused(lambda: find_teachers(model, "source"))


@pytest.mark.parametrize(
    "builder", ["evil.py:make", "timm:resnet18(checkpoint_path='P')", "os:system('touch P')", "hf-hub:x/y"]
)
def test_the_builder_of_a_folder_is_never_code(builder: str, saved: Path, place: Path) -> None:
    folder = resealed(saved, place, lambda r: r["source"].update(builder=builder))
    assert "source.builder" in refused(lambda: binarize.load(folder))
    assert untouched(place)


@pytest.mark.parametrize("number", [10**12, -3, True, 1.5, "10"])
def test_the_classes_of_a_folder_are_a_sensible_number(number: Any, saved: Path, place: Path) -> None:
    changes = {"builder": "torchvision:resnet18", "num_classes": number}
    folder = resealed(saved, place, lambda r: r["source"].update(changes))
    assert refused(lambda: binarize.load(folder))


@pytest.mark.parametrize(
    "builder", ["timm:vit_tiny_patch16_224(embed_dim=16383)", "torchvision:vgg11(num_classes=1000000)"]
)
def test_a_builder_is_bounded_by_the_weights_beside_it(builder: str, saved: Path, place: Path) -> None:
    folder = resealed(saved, place, lambda r: r["source"].update(builder=builder))
    assert "bytes cannot hold" in refused(lambda: binarize.load(folder))


def command(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*words, "--plain"], env={"COLUMNS": "200"})
    assert isinstance(done.exception, (SystemExit, type(None)))
    return done.exit_code, done.stderr


@pytest.mark.parametrize("spec", ["os:system('touch P')", "evil.py:make", "evil:make"])
def test_no_command_runs_what_a_folder_names(spec: str, saved: Path, place: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["source"].update(spec=spec, kind="state_dict", arch=spec, sha256="0" * 64)

    folder = str(resealed(saved, place, change))
    code, said = command("eval", folder, "--data", "digits", "--limit", "8")
    assert code == 0 and "without the float model" in said
    code, said = command("finetune", folder, "--data", "digits", "-e", "1", "-o", "out")
    assert code == 4 and "--teacher" in said
    assert (
        command("finetune", folder, "--data", "digits", "-e", "1", "-o", "out", "--teacher", "source")[0] == 4
    )
    # Its own weights are the float model's still.
    assert command("calibrate", folder, "--data", "digits", "--limit", "8", "--float", "source")[0] == 0
    assert untouched(place) and not Path("out").exists()


# --- teachers


def test_teachers_in_recipes_are_source_none_or_bare_builders(saved: Path, place: Path) -> None:
    for text in ("os:system('touch P')", "evil.py:make", "net.pth", "timm:resnet18(pretrained=True)"):
        Path("recipe.yaml").write_text(json.dumps({"teacher": text}))
        assert "teacher is" in refused(lambda: read_recipe("recipe.yaml"))
        Path("rules.yaml").write_text(
            json.dumps({"schema": 1, "extends": "bireal", "scheme": {"training": {"teacher": text}}})
        )
        assert "teacher is" in refused(lambda: load_rule_set(rules="rules.yaml"))
        Path("rules.yaml").write_text(
            json.dumps(
                {"schema": 1, "extends": "bireal", "scheme": {"training": {"stages": [{"teacher": text}]}}}
            )
        )
        assert "teacher is" in refused(lambda: load_rule_set(rules="rules.yaml"))
    for text in ("source", "none", "timm:resnet18"):
        Path("recipe.yaml").write_text(json.dumps({"teacher": text}))
        assert read_recipe("recipe.yaml") == {"teacher": text}
    assert untouched(place)


@pytest.mark.parametrize("text", ["os:system('touch P')", "evil.py:make", "evil:make"])
def test_the_teacher_in_a_folders_plan_is_not_called(text: str, saved: Path, place: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["plan"]["schemes"]["adabin"]["training"]["teacher"] = text

    assert "plan: schemes.adabin.training.teacher" in refused(
        lambda: binarize.load(resealed(saved, place, change))
    )
    assert untouched(place)
    # Who trains may say it, or say another.
    model = binarize.load(saved)
    assert chosen_recipe(model, {"teacher": text}).teacher == text
    assert chosen_recipe(model, None, {"teacher": "none"}).teacher == "none"


@pytest.mark.parametrize(
    "names", [["os:system('touch P')"], "evil.py:make", ["source", "evil:make"], [7], [["x"]]]
)
def test_the_teachers_of_a_training_to_resume_are_not_called(names: Any, saved: Path, place: Path) -> None:
    model = binarize.load(saved)
    recipe = chosen_recipe(model, {"teacher": "none", "epochs": 1})
    run = prepare(model, "digits", recipe, teacher="none")
    stored = {"record": {**run.record(), "teachers": names}, "stage": 1, "step": 0}
    words = refused(lambda: prepare(model, "digits", recipe, stored=stored))
    assert "the training to resume" in words
    stored["record"]["recipe"]["teacher"] = "evil.py:make"
    assert "the training to resume" in refused(lambda: chosen_recipe(model, stored=stored))
    assert untouched(place)
    stored["record"] = run.record()
    assert prepare(model, "digits", recipe, stored=stored).teachers.names == ()


@pytest.mark.parametrize(
    "text", ["hfds/x/y", "WDS/pipe:touch P", "wds/a.tar", "tfds/mnist", "torch/../x", "http://localhost/x", 3]
)
def test_data_in_a_file_is_made_up_or_lies_here(text: Any) -> None:
    with pytest.raises(UntrustedSourceError):
        check_data(text, "x")
    for honest in ("digits", "fake:8", "idx:some/where", "torch/cifar10", "some/folder"):
        assert check_data(honest, "x") == honest


# --- parts

NO_PARTS = (
    "evilpart.Thing",
    "evil.Thing",
    "subprocess.Popen",
    "os.System",
    "torch.nn.modules.module.Module",
    "torch.nn.parallel.DistributedDataParallel",
    "torch.nn.functional.Tensor",
    "torch.hub.Thing",
    "binarize.binarizers.adabin.torch.Tensor",
    "binarize.binarizers.adabin.torch.nn.Hardtanh",
    "binarize.exporters.export.Written",
)  # fmt: skip
# Of our modules, and still no part: another's class, a container, what holds modules or speaks to other machines.
NO_CLASSES = (
    "adabin.Tensor",
    "adabin.Estimator",
    "torch.nn.Module",
    "torch.nn.Sequential",
    "torch.nn.DataParallel",
    "torch.nn.SyncBatchNorm",
    "torch.nn.Parameter",
    "torch.nn.Transformer",
    "torch.nn.Linear",
    "torch.nn.MultiheadAttention",
    "binarize.binarizers.adabin.Tensor",
)


@pytest.mark.parametrize("name", [*NO_PARTS, *NO_CLASSES])
def test_a_part_is_a_class_of_our_binarizers_or_an_elementwise_one_of_torch(name: str, place: Path) -> None:
    with pytest.raises((RuleError, UntrustedSourceError)):
        Part(name).build(channels=3, channel_dim=1, axis=0)
    assert untouched(place) and not {"evil", "evilpart", "antigravity"} & sys.modules.keys()


@pytest.mark.parametrize("name", shipped_parts())
def test_every_part_of_ours_resolves_by_both_names(name: str) -> None:
    given = {"bernoulli.MaxPool": {"kernel_size": 2}, "fda.NoiseAdapter": {"features": 3}}.get(name, {})
    for one in (name, f"binarize.binarizers.{name}"):
        assert isinstance(Part(one, given).build(channels=3, channel_dim=1, axis=0), nn.Module)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("torch.nn.PReLU", {"num_parameters": 10**9}),
        ("torch.nn.PReLU", {"device": "cuda"}),
        ("torch.nn.Hardtanh", {"min_val": float("inf")}),
        ("torch.nn.GELU", {"approximate": "os.system"}),
        ("torch.nn.LayerNorm", {"normalized_shape": [2**20, 2**20]}),
        ("adabin.AdaptiveInput", {"form": ["code"]}),
        ("adabin.AdaptiveInput", {"form": {"a": 1}}),
        ("ienet.MultiSign", {"thresholds": 10**8}),
    ],
)
def test_arguments_of_parts_are_numbers_and_words(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(RuleError, match="more than numbers and words"):
        Part(name, given).build(channels=3, channel_dim=1)
    with pytest.raises(RuleError, match="more than numbers and words"):
        Part("adabin.Maxout").build(channels=10**9, channel_dim=1)


def rule_texts(name: str) -> list[dict[str, Any]]:
    head = {"schema": 1, "extends": "bireal"}
    body = {"match": {"name": "**"}, "use": "bireal"}
    return [
        {**head, "scheme": {"input": name}},
        {**head, "scheme": {"weight": {"binarizer": name}}},
        {**head, "scheme": {"nonlinearity": {"part": name, "position": "after_add"}}},
        {**head, "scheme": {"weight": {"binarizer": "bireal.ScaledSign", "estimator": name}}},
        {**head, "schemes": {"other": {"weight": name}}},
        {**head, "rules": [{**body, "with": {"input": {"part": name}}}]},
        {**head, "rules": [{**body, "activation": name}]},
    ]


@pytest.mark.parametrize("name", ["evilpart.Thing", "torch.nn.parallel.DataParallel", "os.Thing"])
def test_rule_files_name_no_module_of_ones_own(name: str, place: Path) -> None:
    for number, data in enumerate(rule_texts(name)):
        path = place / f"{number}.yaml"
        path.write_text(json.dumps(data))
        words = refused(lambda: load_rule_set(rules=path))  # noqa: B023
        assert "needs your word: --trust" in words
        assert refused(lambda: load_rule_set(rules=RuleText(json.dumps(data))))  # noqa: B023
        over = place / "over.yaml"
        over.write_text(json.dumps({"schema": 1, "extends": str(path)}))
        assert "needs your word" in refused(lambda: load_rule_set(rules=over))  # noqa: B023
    assert untouched(place)


def test_a_rule_file_under_python_dash_m_imports_nothing_from_here(place: Path) -> None:
    Path("rules.yaml").write_text("schema: 1\nextends: bireal\nscheme: {input: evilpart.Thing}\n")
    for library in ("torch", "timm", "apex", "rich"):
        Path(f"{library}.py").write_text("open('P', 'w')")
    words = [
        sys.executable,
        "-m",
        "binarize",
        "plan",
        "timm:test_resnet",
        "-i",
        "1,3,64,64",
        "--rules",
        "rules.yaml",
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}, check=False
    )
    assert done.returncode == 3 and "--trust evilpart" in done.stderr
    assert untouched(place)
    done = subprocess.run([*words, "--trust", "evilpart"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not untouched(place)


@pytest.mark.parametrize("word", ["evilpart", "evilpart.py"])
def test_the_users_word_lets_a_file_name_their_own_part(word: str, place: Path) -> None:
    Path("rules.yaml").write_text("schema: 1\nextends: bireal\nscheme: {input: evilpart.Thing}\n")
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 64, 3), nn.Flatten(), nn.Linear(64 * 16, 4))
    model = binarize.convert(net, rules="rules.yaml", trust=[word], example_input=torch.rand(4, 3, 8, 8))
    assert type(model[1].input_binarizer).__name__ == "Thing"
    folder = binarize.save(model, place / "net")
    # That the module is imported by now is nobody's word.
    assert "evilpart" in sys.modules
    assert 'trust=["evilpart"]' in refused(lambda: binarize.load(folder))
    x = torch.rand(2, 3, 8, 8)
    for again in (binarize.load(folder, trust=[word]), said(word, lambda: binarize.load(folder))):
        with torch.no_grad():
            assert torch.equal(model.eval()(x), again.eval()(x))


def said(word: str, action: Callable[[], nn.Module]) -> nn.Module:
    with binarize.trusting(word):
        return action()


def test_rules_in_python_are_the_users_word(place: Path) -> None:
    rules = {"name": "own", "extends": "bireal", "scheme": {"input": "evilpart.Thing"}}
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 64, 3), nn.Flatten(), nn.Linear(64 * 16, 4))
    planned = binarize.plan(net, rules=rules, example_input=torch.rand(4, 3, 8, 8))
    assert type(planned.apply()[1].input_binarizer).__name__ == "Thing"
    conversion = conversion_of(planned.apply())
    assert conversion is not None and conversion.rules.modules == ("evilpart",)
    assert not is_trusted("evilpart")


def test_a_word_covers_what_it_names_and_ends_with_its_call(place: Path) -> None:
    with trusting("package", "evil.py", place):
        assert is_trusted("package") and is_trusted("package.parts") and is_trusted(str(place / "evil.py"))
        assert is_teacher("evil.py:make") and is_teacher(str(place)) and is_teacher("package.nets:Net(10)")
        assert not is_trusted("packages") and not is_trusted("evil") and not is_teacher("evilpart.py:make")
        assert not is_teacher(str(place.parent))
    assert not is_trusted("package") and not is_teacher("evil.py:make")


# --- studies

GRID = {"schema": 1, "settings": {"model": "timm:test_resnet", "data": "digits"}}


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "evil.py:make"},
        {"model": "evil:make"},
        {"model": "os:system('touch P')"},
        {"model": "timm:resnet18(checkpoint_path='P')"},
        {"model": "hf-hub:x/y"},
        {"model": "local-dir:."},
        {"arch": "evil.py:make"},
        {"teacher": ["source", "evil.py:make"]},
        {"teacher": "somewhere/net"},
        {"data": "wds/pipe:touch P"},
        {"data": "hfds/x"},
    ],
)
def test_a_grid_file_names_no_code(settings: dict[str, Any], place: Path) -> None:
    (key,) = settings
    for grid in (
        {**GRID, "settings": {**GRID["settings"], **settings}},
        {**GRID, "float": settings},
        {**GRID, "axes": {"kind": {"a": settings}}},
        {**GRID, "axes": {key: [settings[key]]}},
        {**GRID, "steps": {"X": settings}, "chains": {"c": ["none", "+X"]}},
    ):
        Path("grid.yaml").write_text(json.dumps(grid))
        words = refused(lambda: read_grid("grid.yaml"))
        assert "--trust" in words or "--set data" in words
    assert untouched(place)


def test_a_grid_file_may_name_what_the_user_says(place: Path) -> None:
    settings = {"model": "evil.py:make", "data": "digits", "teacher": ["evil:make"]}
    Path("grid.yaml").write_text(json.dumps({**GRID, "settings": settings}))
    with trusting("evil.py", "evil"):
        assert read_grid("grid.yaml").settings["model"] == "evil.py:make"
    Path("grid.yaml").write_text(json.dumps(GRID))
    found = read_grid("grid.yaml").changed(["model=evil.py:make", "teacher=evil.py:make"])
    assert found.final == {"model": "evil.py:make", "teacher": ["evil.py:make"]}
    assert read_grid({**GRID, "settings": settings}).settings["model"] == "evil.py:make"
    Path("net.pth").touch()
    Path("grid.yaml").write_text(json.dumps({**GRID, "settings": {"model": "net.pth", "data": "digits"}}))
    assert read_grid("grid.yaml").settings["model"] == "net.pth"
