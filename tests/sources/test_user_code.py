"""Models from the user's own code: literal arguments, and errors that say where."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from binarize.errors import SourceError, UsageError
from binarize.sources import load
from binarize.sources.calls import Call, parse_call
from binarize.sources.user_code import is_user_code

CODE = """
from torch import nn
from neighbour_of_nets import WIDTH

class Net(nn.Sequential):
    def __init__(self, num_classes=10, width=WIDTH):
        super().__init__(nn.Linear(4, width), nn.Linear(width, num_classes))

class Shelf:
    Net = Net

def fixed():
    return Net()

def broken():
    raise KeyError("no such backbone")

def stops():
    raise SystemExit(3)

def number():
    return 3

ready = Net()
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "nets_of_mine.py").write_text(CODE)
    (tmp_path / "neighbour_of_nets.py").write_text("WIDTH = 6\n")
    for name in ("nets_of_mine", "neighbour_of_nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    return "nets_of_mine.py"


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        ("Net", (10, 6)),
        ("Net()", (10, 6)),
        ("Net(3)", (3, 6)),
        ("Net(num_classes=3, width=2)", (3, 2)),
        ("Shelf.Net(7)", (7, 6)),
        ("fixed", (10, 6)),
        ("ready", (10, 6)),
    ],
)
def test_functions_classes_and_modules_are_called(call: str, shape: tuple[int, int], code: str) -> None:
    for place in (code, str(Path(code).resolve()), "nets_of_mine"):
        source = load(f"{place}:{call}")
        assert (source.kind, source.input_shape) == ("factory", (1, 4))
        assert tuple(source.module[1].weight.shape) == shape


def test_ready_model_is_not_emptied(code: str) -> None:
    load(f"{code}:ready", meta=True)
    assert not any(p.is_meta for p in load(f"{code}:ready").module.parameters())


def test_search_path_is_left_as_it_was(code: str) -> None:
    before = list(sys.path)
    load(f"{code}:Net")
    load("nets_of_mine:Net")
    assert sys.path == before


def test_number_of_classes_is_passed_where_it_is_taken(code: str) -> None:
    source = load(f"{code}:Net", num_classes=4)
    assert (source.num_classes, source.module[1].out_features) == (4, 4)
    with pytest.raises(UsageError, match="takes no num_classes"):
        load(f"{code}:fixed", num_classes=4)
    with pytest.raises(UsageError, match="a ready model"):
        load(f"{code}:ready", num_classes=4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nets_of_mine.py:Nett", "has no 'Nett'; did you mean \"Net\"?"),
        ("nets_of_mine.py:zzz", "has no 'zzz'; it has Net, Shelf, fixed"),
        ("nets_of_mine.py:broken", "broken raised KeyError: 'no such backbone' ("),
        ("nets_of_mine.py:stops", "stops raised SystemExit: 3"),
        ("nets_of_mine.py:number", "gave a int; expected a torch.nn.Module"),
        ("nets_of_mine.py:Net(classes=3)", "unexpected keyword argument 'classes'"),
        ("nets_of_min.py:Net", "no such file; nearest there: nets_of_mine.py"),
        ("no_such_package.nets:Net", "no file, library or Python package of this name"),
        ("torch.nn:Lineer(2, 2)", 'did you mean "Linear"?'),
    ],
)
def test_errors_of_the_users_code_say_where(spec: str, message: str, code: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(spec)
    assert message in str(caught.value)


def test_broken_file_is_reported_with_its_line_and_not_kept(code: str, tmp_path: Path) -> None:
    (tmp_path / "half_done.py").write_text("x = 1\ny = undefined\n")
    with pytest.raises(SourceError, match=r"raised NameError: .*half_done\.py:2\)"):
        load("half_done.py:Net")
    assert "half_done" not in sys.modules


def test_file_of_a_taken_name_gets_another(tmp_path: Path) -> None:
    (tmp_path / "pytest.py").write_text("from torch import nn\nnet = nn.Linear(2, 2)\n")
    assert type(load(f"{tmp_path / 'pytest.py'}:net").module) is nn.Linear
    assert sys.modules["pytest"] is pytest


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("Net", Call("Net")),
        ("Net()", Call("Net")),
        ("a.b.Net( 1, 'x', [2, None])", Call("a.b.Net", (1, "x", [2, None]))),
        ("Net(a=-1.5, b={'c': (1, 2)})", Call("Net", (), (("a", -1.5), ("b", {"c": (1, 2)})))),
    ],
)
def test_calls_are_parsed(text: str, call: Call) -> None:
    assert parse_call(text) == call


@pytest.mark.parametrize(
    "text", ["Net(x)", "Net(f())", "Net(__import__('os'))", "Net(**{})", "Net(*[1])", "Net(", "Net()()"]
)
def test_only_literals_are_arguments(text: str) -> None:
    with pytest.raises(UsageError, match="arguments must be literals"):
        parse_call(text)


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("net.py:Net", True),
        ("a/b/net.py:make(1)", True),
        ("pkg.mod:Net", True),
        ("net.pt", False),
        ("a/b.pt", False),
        ("net.py", False),
        ("pkg.mod:", False),
        (":Net", False),
    ],
)
def test_user_code_is_recognised(spec: str, answer: bool) -> None:
    assert is_user_code(spec) is answer


def test_code_that_takes_itself_and_its_folder_away_raises_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text(
        "import sys\nsys.path.pop(0)\ndel sys.modules[__name__]\nraise ValueError('mine')\n"
    )
    before = list(sys.path)
    with pytest.raises(SourceError, match="raised ValueError: mine"):
        load(f"{tmp_path / 'gone.py'}:make")
    assert sys.path == before
