"""The mode of shortcuts that was asked for, in a command and in Python alike."""

from __future__ import annotations

import itertools

import pytest

from binarize.errors import UsageError
from binarize.schemes.scheme import shortcut_mode

SHORT = {None: None, True: "missing", False: "never"}


@pytest.mark.parametrize(
    "add, mode", itertools.product([None, True, False], [None, "never", "missing", "every"])
)
def test_the_short_form_and_the_mode_may_say_the_same_and_nothing_else(
    add: bool | None, mode: str | None
) -> None:
    said = {SHORT[add], mode} - {None}
    if len(said) == 2:
        with pytest.raises(UsageError, match=f'means shortcuts="{SHORT[add]}", but shortcuts="{mode}"'):
            shortcut_mode(add, mode)
    else:
        assert shortcut_mode(add, mode) == (said.pop() if said else None)


def test_an_unknown_mode_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match='expected never, missing, every, residual; did you mean "every"'):
        shortcut_mode(None, "evry")
