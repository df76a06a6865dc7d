"""Edits are data: they come back from JSON, and the file's schema knows their fields."""

from __future__ import annotations

import json
from dataclasses import fields

import nets
import pytest
from plans import plan_of

from binarize.checkpoint.edit_schema import _ARGUMENTS
from binarize.errors import SourceError
from binarize.planning.record.edit_kinds import EDIT_KINDS, edit_from_json
from binarize.rules.load import load_rule_set


@pytest.mark.parametrize("name", ["BasicBlocks", "ConvRelu", "NormActivation", "SharedRelu", "Dense"])
def test_edits_come_back_from_json(name: str) -> None:
    edits = plan_of(nets.ALL[name](), load_rule_set("adabin", shortcuts="every")).edits
    assert tuple(edit_from_json(json.loads(json.dumps(edit.to_json()))) for edit in edits) == edits


@pytest.mark.parametrize("op", EDIT_KINDS)
def test_the_schema_of_a_file_has_the_fields_of_the_edit(op: str) -> None:
    kind = EDIT_KINDS[op]
    # An activation that is built at a path is written without a key of its own.
    own = {"part", "channels", "channel_dim"} if op in ("replace", "attach") else None
    assert _ARGUMENTS.keys() == EDIT_KINDS.keys()
    assert set(_ARGUMENTS[op].model_fields) == (own or {f.name for f in fields(kind)} - {"container"})


def test_an_edit_of_no_kind_is_named() -> None:
    with pytest.raises(SourceError, match=r"there is no edit 'swop'; did you mean .swap"):
        edit_from_json({"container": "", "op": "swop", "args": {}})
