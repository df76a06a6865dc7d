"""What docs/architecture.md and CONTRIBUTING.md name is there: files, names in files, and the order of rooms."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from test_imports import ROOMS
from torch import nn

import binarize
from binarize.binarizers.nonlinearity import piecewise_of, start_as_relu

ROOT = Path(__file__).parents[1]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("docs/architecture.md", "CONTRIBUTING.md")
}
PAGE = PAGES["docs/architecture.md"]
FILE = r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:md|cfg|toml|txt))`"
# `a`, `b` and `c` in `file`
NAMED = re.compile(rf"(`\w+`(?:(?:, | and |, and )`\w+`)*)\s+in\s+{FILE}")
OUTSIDE = {"rules/NAME.yaml"}


def python_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def names_in(path: Path) -> set[str]:
    if path.suffix == ".py":
        return python_names(path)
    return set(re.findall(r"^[a-z].*?(\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE))


def named() -> Iterator[tuple[str, str]]:
    for page in PAGES.values():
        for words, file in NAMED.findall(page):
            yield from ((name, file) for name in re.findall(r"`(\w+)`", words))


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    files = set(re.findall(FILE, PAGES[page])) - OUTSIDE
    assert len(files) > 5
    assert not [file for file in files if not (ROOT / file).exists()]


def test_every_name_is_in_the_file_beside_it() -> None:
    found = list(named())
    assert len(found) > 60
    assert not [f"{name} in {file}" for name, file in found if name not in names_in(ROOT / file)]


def test_each_of_ten_questions_is_answered_by_at_most_three_files() -> None:
    rows = PAGE.partition("## Ten questions")[2].partition("##")[0].splitlines()[4:]
    rows = [row for row in rows if row]
    assert len(rows) == 10
    for row in rows:
        assert len(set(re.findall(FILE, row))) <= 3, row


def test_each_way_has_at_most_ten_stops() -> None:
    for heading in ("The way of a conversion", "A training step", "A packed call"):
        part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        assert 5 < len(re.findall(r"^\d+\. ", part, re.MULTILINE)) <= 10


def test_the_drawing_holds_every_room_in_its_order() -> None:
    drawing = PAGE.partition("## The rooms")[2].split("```")[1]
    drawn = [
        word
        for line in reversed(drawing.splitlines())
        for word in reversed(line[12:].split("    ")[0].split())
    ]
    assert drawn == list(ROOMS)


def blocks(heading: str, language: str) -> list[str]:
    part = PAGE.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


def test_the_scheme_of_the_page_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code], [rules] = blocks("A scheme", "python"), blocks("A scheme", "yaml")
    (tmp_path / "steep.py").write_text(code, encoding="utf-8")
    (tmp_path / "steep.yaml").write_text(rules, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)]
    given = {"rules": str(tmp_path / "steep.yaml"), "trust": ["steep"], "input_shape": (2, 3, 8, 8)}
    bnn = binarize.convert(nn.Sequential(*layers), **given)
    sign = bnn[2].input_binarizer
    assert (type(sign).__name__, sign.slope, bnn.report.row("2").scheme) == ("SteepSign", 3, "steep")
    x = torch.tensor([-0.4, -0.3, 0.0, 0.3, 0.4], requires_grad=True)
    sign(x).sum().backward()
    assert x.grad.tolist() == [0, 3, 3, 3, 0]


def test_the_nonlinearity_of_the_page_starts_as_relu() -> None:
    scope: dict[str, type[nn.Module]] = {}
    exec(compile(blocks("A nonlinearity", "python")[0], "docs/architecture.md", "exec"), scope)
    part = scope["ShiftedPReLU"](2)
    x = torch.tensor([[-2.0, 3.0]])
    assert torch.equal(part(x), x.relu())
    part.slope.data.fill_(0.3)
    form = piecewise_of(part)
    assert isinstance(form, nn.Module) and torch.equal(form(x), part(x))
    assert start_as_relu(part) and torch.equal(part(x), x.relu())


def test_the_layer_class_of_the_page_takes_the_place_of_its_layer() -> None:
    scope: dict[str, object] = {}
    exec(
        "from binarize.layers.foreign import *\nfrom binarize.layers.foreign import BinaryConv2d, Tensor",
        scope,
    )
    exec(compile(blocks("A layer class", "python")[0], "docs/architecture.md", "exec"), scope)
    binary = scope["BinaryGainConv2d"]
    own = type("GainConv2d", (nn.Conv2d,), {"__module__": "mylib"})
    layer = own(2, 2, 1)
    layer.gain = nn.Parameter(torch.tensor([1.0, -1.0])[:, None, None, None])
    assert binary.accepts(layer)
    made = binary.from_float(layer, weight_binarizer=nn.Identity())
    assert torch.equal(made.real_weight(), layer.weight * layer.gain)


def test_versions_are_pinned_once() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins.values())
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"].values()
    needed = "\n".join([config["options"]["install_requires"], *extras]).split()
    names = {re.split("[<>=]", need)[0].lower().replace("_", "-").replace(".", "-") for need in needed}
    assert not names - pins.keys()
    hooks = YAML(typ="safe").load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    asked = {
        need for repo in hooks["repos"] for hook in repo["hooks"] for need in hook["additional_dependencies"]
    }
    assert asked == {f"ruff=={pins['ruff']}"}


def test_make_help_tells_of_every_target_and_check_names_tests_that_exist() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert sorted(re.findall(r"^([a-z-]+):.* ## \w", text, re.MULTILINE)) == sorted(phony.split())
    [checked] = re.findall(r"^CHECKED := ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    paths = checked.replace("\\", " ").split()
    assert len(paths) > 5
    assert not [path for path in paths if not list(ROOT.glob(path))]
