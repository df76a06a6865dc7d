"""Rule text: YAML 1.2 without its traps, and messages that point at the place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binarize.errors import RuleError
from binarize.rules.text import MAX_BYTES, RuleText, flow, parse, parse_value, plain, read_text
from binarize.rules.yaml.document import Document, Fault


def read(text: str) -> Any:
    return parse(RuleText(text, "f.yaml")).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        (".5", 0.5),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("null", None),
        ("'3'", "3"),
        ("[1, a]", [1, "a"]),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
        ("1: x", {"1": "x"}),
    ],
)
def test_yaml_is_version_1_2(text: str, value: Any) -> None:
    assert read(text) == value
    assert type(read(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", 'f.yaml:3:1  duplicate key "a"; it stands in line 1 already'),
        ("a: &x 1\nb: *x", "f.yaml:2:4  *x reads as an alias; put a pattern into quotes"),
        ("a: !!int 3", "f.yaml:1:4  tag:yaml.org,2002:int is a tag; rule files have none"),
        ("a:\n\tb: 1", "f.yaml:2:1  this is no YAML: a tab; YAML is indented with spaces"),
        ("[a]: 1", "f.yaml:1:1  a key is a word"),
        ("a: .nan", "f.yaml:1:4  .nan is no number that a rule can use"),
        ("a: -.inf", "f.yaml:1:4  -.inf is no number that a rule can use"),
        ("a: 1e999", "f.yaml:1:4  1e999 is no number that a rule can use"),
        ("a: " + "9" * 25, "f.yaml:1:4  this number has too many digits"),
        ("a\n---\nb", "f.yaml:2:1  a second document begins here; a rule file is one document"),
        ("a: b\x01", "f.yaml:1:5  the character U+0001 is not allowed"),
        ('"\\ud800"', "f.yaml:1:1  half of a surrogate pair is no character"),
        ("[" * 100, "f.yaml:1:26  nested deeper than 24"),
        ("[" + "1," * 20_000 + "]", "f.yaml:1:40000  more than 20000 values"),
        (
            "a: [1,\n",
            "f.yaml:2:1  this is no YAML: the text ends in the middle of a value; is a bracket or quote left open?",
        ),
        ("", 'f.yaml is empty; it should begin with "schema: 1"'),
        ("# nothing\n", 'f.yaml is empty; it should begin with "schema: 1"'),
    ],
)
def test_fault_names_file_line_and_column(text: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        read(text)
    assert str(caught.value).splitlines()[0] == message


def test_fault_shows_the_lines_and_a_caret() -> None:
    document = parse(RuleText('a:\n  name: "layer1.*"\n  kernal: 1\n', "rules.yaml"))
    assert str(document.error(Fault("unknown selector", ("a", "kernal"), at_key=True))) == (
        'rules.yaml:3:3  unknown selector\n    2 |   name: "layer1.*"\n    3 |   kernal: 1\n      |   ^'
    )


def test_fault_at_a_value_points_at_the_value_and_long_lines_are_cut() -> None:
    text = "a: {" + "x" * 200 + ": [1, 2]}"
    lines = str(parse(RuleText(text, "f")).error(Fault("two", ("a", "x" * 200, 1)))).splitlines()
    assert lines[0] == "f:1:211  two"
    assert len(lines[1]) <= 110
    assert lines[1][lines[2].index("^")] == "2"


def test_several_faults_stand_in_the_order_of_the_text() -> None:
    document = parse(RuleText("a: 1\nb: 2", "f"))
    message = str(document.error(Fault("second", ("b",)), Fault("first", ("a",))))
    assert message.index("first") < message.index("second")


def test_fault_in_python_data_names_the_path() -> None:
    assert (
        str(Document("rules", {}).error(Fault("bad", ("rules", 3, "match")))) == "rules: rules[3].match: bad"
    )


def test_lines_break_where_yaml_breaks_them() -> None:
    with pytest.raises(RuleError, match=r"^f\.yaml:4:1  duplicate") as caught:
        read("a: 1\r\nb: 'x\u2028y'\rc: 3\na: 4")
    assert "    3 | c: 3\n    4 | a: 4\n" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("no", "no"), ("[1, 2]", [1, 2]), ("", None), ("*.conv1", "*.conv1"), ("**", "**")],
)
def test_value_on_the_command_line_is_yaml(text: str, value: Any) -> None:
    assert parse_value(text, "--set") == value


def test_file_must_be_there_small_and_utf8(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="no such file or directory"):
        read_text(tmp_path / "none.yaml")
    with pytest.raises(RuleError, match="is a directory"):
        read_text(tmp_path)
    with pytest.raises(RuleError, match="is no path"):
        read_text("a\0b")
    path = tmp_path / "f.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(RuleError, match=r"f\.yaml:2:4  the byte 0xff is not UTF-8"):
        read_text(path)
    path.write_bytes(b"a" * 10_000_000)
    with pytest.raises(RuleError, match="is larger than 256 KiB"):
        read_text(path)
    path.write_bytes("\ufeffa: é".encode())
    assert parse(read_text(path)).data == {"a": "é"}


def test_text_has_the_size_limit_of_files() -> None:
    with pytest.raises(RuleError, match="larger than 256 KiB"):
        parse(RuleText(" " * (MAX_BYTES + 1)))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
@settings(max_examples=150, deadline=None)
def test_flow_is_read_back_as_the_same_data(data: Any) -> None:
    assert read(f"a: {flow(data)}") == {"a": data}


def test_plain_refuses_what_no_file_could_hold() -> None:
    assert plain({"a": (1, Path("x"))}, "rules") == {"a": [1, "x"]}
    for wrong in ({1: 2}, {"a": object()}, math.nan, [math.inf]):
        with pytest.raises(RuleError):
            plain(wrong, "rules")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RuleError, match="nested deeper"):
        plain(loop, "rules")
