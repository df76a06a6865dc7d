"""Patterns for names: what they match, and that none takes long."""

from __future__ import annotations

import re

import pytest

from binarize.rules.name_pattern import NOTHING, pattern


@pytest.mark.parametrize(
    "text, matched, others",
    [
        ("a.b", ["a.b"], ["a", "a.b.c", "aXb", ""]),
        ("a.*", ["a.b", "a."], ["a", "a.b.c"]),
        ("?.b", ["a.b"], ["..b", ".b", "aa.b"]),
        ("**.conv", ["conv", "a.conv", "a.b.conv"], ["xconv", "a.xconv", ".conv", "a..conv"]),
        ("a.**", ["a.b", "a.b.c", "a.\n"], ["a", "a."]),
        ("a**b", ["ab", "a.x.b"], ["a.x", "b"]),
        ("l[0-11].c", ["l0.c", "l9.c", "l11.c"], ["l12.c", "l00.c", "l.c", "l1x.c", "l\u0661.c"]),
        ("[1-1]1", ["11"], ["1", "111"]),
        ("re:a.c|b", ["abc", "b"], ["abcd", "a\nc"]),
        ("re:" + re.escape("a b#-\n\u00e9"), ["a b#-\n\u00e9"], ["a"]),
        (NOTHING, [], ["", "a", "(?!)"]),
    ],
)
def test_a_pattern_matches_whole_names(text: str, matched: list[str], others: list[str]) -> None:
    assert [name for name in [*matched, *others] if pattern(text).fullmatch(name)] == matched


@pytest.mark.parametrize(
    "text", ["re:((((.+)+)+)+)+!", "re:(a|a)*b", "*" * 900 + "x", "*a" * 400 + "b", "**a" * 300 + "b"]
)
def test_no_pattern_goes_back_over_a_name(text: str) -> None:
    assert not pattern(text).fullmatch("a" * 300 + "c")


@pytest.mark.parametrize(
    "text", ["re:(?=a)b", r"re:(a)\1", "re:(?<!a)b", "re:(", "re:\ud800", "re:((a{1,99}){1,99}){1,99}"]
)
def test_what_cannot_be_matched_in_linear_time_is_refused_in_words(text: str) -> None:
    with pytest.raises(
        ValueError, match="is no regular expression of RE2, which has no lookaround and no references: "
    ):
        pattern(text)
