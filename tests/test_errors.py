"""Errors: their words, wherever they were raised."""

from __future__ import annotations

import pickle

import pytest
from torch._utils import ExceptionWrapper

from binarize.errors import BinarizeWarning, SourceError, UsageError, without_traceback


@pytest.mark.parametrize("words", ["a/0.png: truncated", "one line\n  and a way out"])
def test_an_error_of_a_worker_says_what_it_said_there(words: str) -> None:
    try:
        raise SourceError(words)
    except SourceError:
        caught = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(SourceError) as found:
        caught.reraise()
    assert "Traceback" in str(found.value)
    alone = without_traceback(found.value)
    assert type(alone) is SourceError and str(alone) == words


def test_an_error_of_this_process_stays_itself() -> None:
    error = UsageError("binarize.errors.UsageError: of a user")
    assert without_traceback(error) is error


@pytest.mark.parametrize("kind", [UsageError, SourceError, BinarizeWarning])
def test_a_message_steers_no_terminal(kind: type[Exception]) -> None:
    error = kind("net\x1b]0;owned\x07.pt:\r\u202e a\n  a way out")
    assert str(error) == "net\\x1b]0;owned\\x07.pt:\\r\\u202e a\n  a way out"
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == str(kind(str(error)))
