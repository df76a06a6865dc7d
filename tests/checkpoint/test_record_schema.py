"""A record that holds what no record holds is refused by the path of the first such value, and by nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
from torch import nn

import binarize
from binarize.checkpoint.fingerprint import record_digest
from binarize.checkpoint.record import read_record
from binarize.conversion.source_record import SourceRecord
from binarize.errors import CheckError, SourceError
from binarize.inputs.seen import Seen
from binarize.planning.plan import Plan

Converted = Callable[..., nn.Module]
DEEP: Any = 0
for _ in range(200):
    DEEP = [DEEP]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = binarize.convert(
        nets.BasicBlocks().eval(), "adabin_paper", example_input=nets.pictures(), calibrate=False
    )
    return binarize.save(model, tmp_path_factory.mktemp("record") / "net")


def sealed(folder: Path, target: Path, keys: tuple[str | int, ...], value: object) -> Path:
    """A copy of the folder in which one value of the record is another, sealed anew; `...` takes it out."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    record = json.loads((folder / "binarize.json").read_text())
    at: Any = record
    for key in keys[:-1]:
        at = at[key]
    if value is ...:
        del at[keys[-1]]
    else:
        at[keys[-1]] = value
    record["fingerprint"]["record"] = record_digest(record)
    (target / "binarize.json").write_text(json.dumps(record))
    return target


@pytest.mark.parametrize(
    "keys, value, message",
    [
        (("plan", "decisions", 0, "action"), "binarise", "plan.decisions.0.action: expected 'binarize' or 'keep', found"),
        (("plan", "decisions", 0, "layer", "groups"), True, "plan.decisions.0.layer.groups: expected a whole number, found"),
        (("plan", "decisions", 0, "layer", "kernel"), [3, -3], "plan.decisions.0.layer.kernel.1: expected greater than or"),
        (("plan", "decisions", 0, "layer", "kernal"), 3, "plan.decisions.0.layer.kernal: unknown key"),
        (("plan", "decisions", 0, "layer", "name"), ..., "plan.decisions.0.layer: damaged: it has no 'name'"),
        (("plan", "decisions", 0, "layer", "padding"), {}, "plan.decisions.0.layer.padding: expected a list, found"),
        (("plan", "edits", 0, "container"), None, "plan.edits.0.container: expected text, found empty"),
        (("plan", "schemes", "adabin_paper", "clip"), 3, "plan: schemes.adabin_paper.clip: "),
        (("plan", "schemes", "adabin_paper", "weight"), {"part": "x.Y", "n": DEEP}, "plan.schemes.adabin_paper.weight is"),
        (("plan", "capture", "sources"), {"": "x"}, "plan.capture.sources.: expected"),
        (("rules", "rules"), 3, "rules: rules: rules is 3; expected a list"),
        (("source", "example", "args", 0, "tensor"), [1 << 20, 1 << 20], "source.example.args.0"),
        (("source", "example", "args", 0, "tensor"), [1, 3.5], "source.example.args.0.tensor.1: expected a whole number"),
        (("source", "example", "args", 0, "dtype"), "float9", "source.example.args.0.dtype is"),
        (("source", "example", "args", 0), {}, "source.example.args.0: expected a mapping with one of tensor"),
        (("source", "num_classes"), "10", "source.num_classes: expected a whole number, found"),
        (("modes",), [], "modes: expected a mapping, found a list"),
        (("seed",), 1 << 64, "seed: expected less than"),
        (("tied",), [[]], "tied.0: expected"),
        (("absent",), {"x": float("nan")}, "absent.x: expected a finite number, found nan"),
        (("command",), "\ud800", "command: expected text without halves of characters"),
        (("fingerprint", "tensors"), 3, "fingerprint.tensors: expected text, found 3"),
        (("sed",), 3, 'sed: unknown key; did you mean "seed"?'),
        (("plan",), ..., "damaged: it has no 'plan'"),
    ],
    ids=lambda _: None,
)  # fmt: skip
def test_a_value_that_no_record_holds_is_named_by_its_keys(
    folder: Path, tmp_path: Path, keys: tuple[str | int, ...], value: object, message: str
) -> None:
    changed = sealed(folder, tmp_path / "net", keys, value)
    with pytest.raises(SourceError) as caught:
        read_record(changed)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{changed / 'binarize.json'}: ")
    assert str(caught.value).isprintable() or "\n" in str(caught.value)


READ_BY_KEY = [
    *(("plan", key) for key in ("edits", "schemes", "unmatched", "warnings", "capture", "other_params")),
    *(("seen", key) for key in ("preprocessing", "shown_by", "classes", "data")),
    ("source", "example"),
]


@pytest.mark.parametrize("keys", READ_BY_KEY, ids=".".join)
def test_a_missing_key_that_is_read_is_named(folder: Path, tmp_path: Path, keys: tuple[str, str]) -> None:
    with pytest.raises(SourceError, match=f"binarize.json: {keys[0]}: damaged: it has no {keys[1]!r}"):
        read_record(sealed(folder, tmp_path / "net", keys, ...))


def test_any_missing_key_is_an_error_that_names_it_or_has_a_default(folder: Path, tmp_path: Path) -> None:
    """The code behind the check finds all that it reads by key: a lack gives an error of ours, or a default."""
    record = json.loads((folder / "binarize.json").read_text())
    lacks: list[tuple[str | int, ...]] = [(key,) for key in record]
    for outer in ("plan", "source", "seen", "fingerprint", "rules"):
        lacks += [(outer, key) for key in record[outer]]
    lacks += [("plan", "decisions", 0, key) for key in record["plan"]["decisions"][0]]
    lacks += [("plan", "decisions", 0, "layer", key) for key in record["plan"]["decisions"][0]["layer"]]
    lacks += [("plan", "edits", 0, key) for key in record["plan"]["edits"][0]]
    path = tmp_path / "net" / "binarize.json"
    sealed(folder, path.parent, ("seed",), 0)
    for keys in lacks:
        changed = json.loads((folder / "binarize.json").read_text())
        at = changed
        for key in keys[:-1]:
            at = at[key]
        del at[keys[-1]]
        if "fingerprint" in changed:
            changed["fingerprint"]["record"] = record_digest(changed)
        path.write_text(json.dumps(changed))
        try:
            read = read_record(path.parent)
            Plan.from_json(read["plan"]), SourceRecord.from_json(read["source"]), Seen.from_json(read["seen"])
        except SourceError as error:
            assert str(keys[-1]) in str(error), keys
        except CheckError as error:
            assert keys == ("fingerprint", "record"), error


@pytest.mark.parametrize(
    "keys, value, message",
    [
        (("modes",), {"nothing": True}, "modes: the rebuilt model has no 'nothing'"),
        (("frozen",), ["stem"], "frozen: the rebuilt model has no 'stem'"),
        (("strides",), {"stem.weight": [1 << 40, 1, 1, 1]}, "stem.weight: expected a tensor that fills its memory"),
        (("strides",), {"stem.weight": [1]}, "stem.weight: expected a tensor that fills its memory"),
        (("strides",), {"nothing": [1]}, "nothing: expected a tensor"),
    ],
)  # fmt: skip
def test_a_name_that_the_model_has_not_is_refused(
    folder: Path, tmp_path: Path, keys: tuple[str | int, ...], value: object, message: str
) -> None:
    with pytest.raises(CheckError) as caught:
        binarize.load(sealed(folder, tmp_path / "net", keys, value), model=nets.BasicBlocks())
    assert message in str(caught.value)


def edits(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "binarize.json").read_text())["plan"]["edits"]
    return found


def test_an_edit_that_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "swap": {"norm": "BatchNorm3d"},
        "add_shortcut": {"layer": "no.such"},
        "replace_operand": {"node": "x"},
        "open": {"opened": ["conv1"]},
    }
    for i, edit in enumerate(edits(folder)):
        changes = wrong.pop(edit["op"], {})
        for key, value in changes.items():
            changed = sealed(folder, tmp_path / f"{i}", ("plan", "edits", i, "args", key), value)
            with pytest.raises(
                (CheckError, SourceError),
                match=r"does not fit BasicBlocks|differs from the saved one|does not fit the rebuilt",
            ):
                binarize.load(changed, model=nets.BasicBlocks())
    assert len(wrong) <= 1


def test_a_record_of_an_older_format_may_be_damaged_too(folder: Path, tmp_path: Path) -> None:
    path = sealed(folder, tmp_path / "net", ("source",), "abc") / "binarize.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(SourceError, match="it is no record of format 2"):
        read_record(path.parent)
