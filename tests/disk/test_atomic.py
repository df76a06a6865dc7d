"""A file or folder has its final name whole or not at all."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from binarize.disk import atomic, claim, leftovers, replacement
from binarize.disk.atomic import whole_file, whole_folder
from binarize.disk.claim import claimed
from binarize.disk.exchange import exchange
from binarize.disk.owner import is_owned, token
from binarize.disk.replacement import recover
from binarize.errors import UsageError


class Interrupted(Exception):
    pass


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_is_written_whole_or_left_as_it_was(before: str | None, tmp_path: Path) -> None:
    target = tmp_path / "file"
    if before is not None:
        target.write_text(before)
    with pytest.raises(Interrupted), whole_file(target) as draft:
        draft.write_text("half")
        raise Interrupted
    assert tree(tmp_path) == ({} if before is None else {"file": before})
    with whole_file(target) as draft:
        draft.write_text("new")
    assert tree(tmp_path) == {"file": "new"}


@pytest.mark.parametrize("before", [None, "old"])
def test_a_folder_is_written_whole_or_left_as_it_was(before: str | None, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    if before is not None:
        target.mkdir(parents=True)
        (target / before).write_text(before)
    found = tree(tmp_path)
    with pytest.raises(Interrupted), whole_folder(target) as draft:
        (draft / "part").write_text("half")
        raise Interrupted
    assert tree(tmp_path) == found
    with whole_folder(target) as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "part").write_text("new")
    assert tree(tmp_path) == {"deep/folder/inner/part": "new"}


@pytest.mark.parametrize("name", ["file", "folder/file", "folder"])
def test_whom_the_umask_lets_may_read_it(name: str, tmp_path: Path) -> None:
    with whole_file(tmp_path / "file") as draft:
        draft.touch(0o600)
    with whole_folder(tmp_path / "folder") as draft:
        (draft / "file").touch(0o600)
    plain = tmp_path / "plain"
    plain.mkdir() if name == "folder" else plain.touch()
    assert (tmp_path / name).stat().st_mode == plain.stat().st_mode


def test_a_rename_that_fails_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "part").write_text("old")

    def refuse(one: Path, other: Path) -> bool:
        raise OSError("no")

    monkeypatch.setattr(replacement, "exchange", refuse)
    with pytest.raises(OSError, match="no"), whole_folder(target) as draft:
        (draft / "part").write_text("new")
    assert tree(tmp_path) == {"folder/part": "old"}


def test_two_names_are_exchanged_in_one_step_or_not_at_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text(name)
    done = exchange(tmp_path / "a", tmp_path / "b")
    assert tree(tmp_path) == ({"a/part": "b", "b/part": "a"} if done else {"a/part": "a", "b/part": "b"})
    with pytest.raises(OSError, match="missing"):
        exchange(tmp_path / "a", tmp_path / "missing")


OLD = {"part": "old", "inner/part": "old", "kept": "kept", "deep/kept": "kept"}
NEW = {"part": "new", "inner/part": "new", "added": "new"}
KEPT = {"kept": "kept", "deep/kept": "kept"}


def fill(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def visible(folder: Path) -> dict[str, str]:
    return {name: text for name, text in tree(folder).items() if not name.startswith(".")}


@pytest.fixture
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process leaves what it wrote without them too."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def killed_at(number: int, place: Path, work: Callable[[], None]) -> bool:
    """Whether a process that does this is killed at its file operation of that number below a place."""
    pid = os.fork()
    if pid:
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    left = number

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in OPERATIONS and any(str(place) in str(argument) for argument in arguments[:2]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    try:
        work()
    finally:
        os._exit(0)


OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "os.truncate"}


def write(target: Path, keep: bool) -> None:
    with whole_folder(target, keep=keep) as draft:
        fill(draft, NEW)


WAYS = [("exchanged", True), ("no exchange", False), ("must stay", True)]


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("way, keep", WAYS)
@pytest.mark.sampled
def test_killed_at_any_operation_the_folder_is_old_or_new_and_can_be_written_again(
    way: str, keep: bool, first: int, tmp_path: Path, no_syncs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at every third operation; a fork of this process takes long."""
    if way == "no exchange":
        monkeypatch.setattr(replacement, "exchange", lambda one, other: False)
    if way == "must stay":
        monkeypatch.setattr(atomic, "must_stay", lambda place: place.is_dir())
    new = NEW | KEPT if keep else NEW
    for number in itertools.count(first, 3):
        place = tmp_path / str(number)
        fill(place / "model", OLD)
        killed = killed_at(number, place, partial(write, place / "model", keep))
        if way == "exchanged":
            assert tree(place / "model") in (OLD, new)
        recover(place / "model")
        assert visible(place / "model") in (OLD, new)
        write(place / "model", keep)
        assert tree(place) == {f"model/{name}": text for name, text in new.items()}
        assert [path.name for path in place.iterdir()] == ["model"]
        if not killed:
            break
    assert number > 15


def test_killed_at_any_operation_a_new_folder_is_there_whole_or_not(tmp_path: Path, no_syncs: None) -> None:
    for number in itertools.count(1):
        place = tmp_path / str(number)
        place.mkdir()
        killed = killed_at(number, place, partial(write, place / "deep" / "model", False))
        assert not (place / "deep" / "model").exists() or tree(place / "deep" / "model") == NEW
        write(place / "deep" / "model", False)
        assert tree(place) == {f"deep/model/{name}": text for name, text in NEW.items()}
        if not killed:
            break
    assert number > 10


def test_killed_at_any_operation_a_file_is_old_or_new(tmp_path: Path, no_syncs: None) -> None:
    def work() -> None:
        with whole_file(place / "file") as draft:
            draft.write_text("new")

    for number in itertools.count(1):
        place = tmp_path / str(number)
        fill(place, {"file": "old"})
        killed = killed_at(number, place, work)
        assert (place / "file").read_text() in ("old", "new")
        work()
        assert tree(place) == {"file": "new"}
        if not killed:
            break
    assert number > 4


def _aged(folder: Path) -> None:
    before = time.time() - 3600
    os.utime(folder, (before, before))


@pytest.mark.parametrize("name", [".model.abcd1234.draft", ".model.{dead}.abcd1234.draft", ".model.draft"])
def test_what_nobody_owns_is_removed_at_once_and_what_a_living_process_holds_never(
    name: str, tmp_path: Path
) -> None:
    machine = token().split("-")[0]
    abandoned = tmp_path / name.format(dead=f"{machine}-{2**22 + 1}-1")
    other = tmp_path / ".model.v2.abcd1234.draft"
    for folder in (abandoned, other):
        fill(folder, {"weights": "half"})
    target = tmp_path / "model"
    with whole_folder(target) as held:
        _aged(held)
        with whole_folder(target) as second:
            fill(second, {"a": "2"})
        assert held.is_dir()
        fill(held, {"a": "1"})
    assert (target / "a").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, target.name]


def test_a_draft_with_the_number_of_another_process_is_nobodys(tmp_path: Path) -> None:
    machine, pid, start = token().split("-")
    draft = tmp_path / f".model.{machine}-{pid}-{int(start) + 1}.abcd1234.draft"
    draft.mkdir()
    assert not is_owned(draft)
    assert is_owned(draft.with_name(f".model.{token()}.abcd1234.draft"))


def test_what_an_older_version_set_aside_is_put_back(tmp_path: Path) -> None:
    fill(tmp_path / ".model.abcd1234.old" / "folder", OLD)
    fill(tmp_path / ".model.abcd1234.draft", NEW)
    recover(tmp_path / "model")
    assert tree(tmp_path / "model") == OLD
    write(tmp_path / "model", False)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_list_of_entries_names_nothing_outside_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, {"mine": "mine", "model/part": "old"})
    new = tmp_path / "model" / ".new"
    fill(new, {"part": "new", ".list": json.dumps({"owner": "", "names": ["part", "../mine"], "kept": []})})
    recover(tmp_path / "model")
    assert tree(tmp_path) == {"mine": "mine", "model/part": "new"}


def test_two_processes_do_not_write_one_folder_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "model", OLD)
    ready, go = os.pipe()
    pid = os.fork()
    if not pid:
        with whole_folder(tmp_path / "model"):
            os.write(go, b".")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    with pytest.raises(UsageError, match=rf"model: is being written by process {pid}"):
        write(tmp_path / "model", False)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    write(tmp_path / "model", False)
    assert tree(tmp_path) == {f"model/{name}": text for name, text in NEW.items()}


def test_threads_of_one_process_do_not_write_one_folder_at_once(tmp_path: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        try:
            write(tmp_path / "model", False)
        except UsageError as error:
            refused.append(str(error))

    with whole_folder(tmp_path / "model") as draft:
        fill(draft, OLD)
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert tree(tmp_path / "model") == OLD


def killed_in(place: Path, work: Callable[[], None]) -> None:
    """Do this in a process that is killed after it."""

    def die() -> None:
        work()
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed_at(1 << 30, place, die)


@pytest.mark.parametrize("before", [None, OLD])
@pytest.mark.parametrize("written", [False, True])
def test_the_same_words_after_a_kill_know_what_was_written(
    before: dict[str, str] | None, written: bool, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    if before is not None:
        fill(target, before)

    def die() -> None:
        with claimed(target, "convert", "words") as claim:
            claim.keep({"answer": 42})
            if written:
                write(target, True)
            os.kill(os.getpid(), signal.SIGKILL)

    killed_in(tmp_path, die)
    for words, again in (("words", True), ("words", False)):
        with claimed(target, "convert", words) as claim:
            assert (claim.written, claim.found) == (again and written, {"answer": 42} if again else {})
    killed_in(tmp_path, die)
    with claimed(target, "convert", "other words") as claim:
        assert (claim.written, claim.found) == (False, {})
    killed_in(tmp_path, die)
    shutil.rmtree(target, ignore_errors=True)
    fill(target, OLD)
    with claimed(target, "convert", "words") as claim:
        assert not claim.written
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_nothing_is_left_to_do_once_a_written_name_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever is killed in between would repeat words that had ended well.
    removed: list[Path] = []
    monkeypatch.setattr(Path, "rmdir", lambda folder: removed.append(folder))
    with claimed(tmp_path / "deep" / "er" / "model", "convert", "words", parents=True):
        (tmp_path / "deep" / "er" / "model").write_text("new")
    assert removed == []
    with claimed(tmp_path / "other" / "model", "convert", "words", parents=True):
        pass
    assert removed == [tmp_path / "other"]


def test_what_a_killed_process_did_not_remove_any_more_goes_with_the_same_words(tmp_path: Path) -> None:
    target = tmp_path / "model"
    fill(target, OLD)

    def die() -> None:
        leftovers.shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        with claimed(target, "calibrate", "words"):
            write(target, True)

    killed_in(tmp_path, die)
    assert len(list(tmp_path.iterdir())) == 3  # the model, the old one, the claim
    with claimed(target, "calibrate", "words") as claim:
        assert claim.written
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_system_without_locks_tells_owners_by_their_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "lock", lambda handle: None)
    with claimed(tmp_path / "model", "convert", "words"):
        key = next(iter(claim._HELD))
        held = claim._HELD.pop(key)
        with pytest.raises(UsageError, match=f"process {os.getpid()}"), claimed(tmp_path / "model"):
            pass
        claim._HELD[key] = held


def test_what_a_link_names_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    fill(tmp_path, {"real/model/part": "old", "real/file": "old"})
    (tmp_path / "model").symlink_to("real/model")
    (tmp_path / "file").symlink_to("real/file")
    write(tmp_path / "model", False)
    with whole_file(tmp_path / "file", follow=True) as draft:
        draft.write_text("new")
    assert (tmp_path / "model").is_symlink() and (tmp_path / "file").is_symlink()
    assert tree(tmp_path / "real") == {"file": "new"} | {f"model/{name}": NEW[name] for name in NEW}


@pytest.mark.parametrize("target", ["precious", "missing", "loop"])
def test_a_link_that_nobody_named_is_replaced_and_what_it_names_stays(target: str, tmp_path: Path) -> None:
    fill(tmp_path, {"precious": "old"})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "loop").symlink_to("loop")
    file = tmp_path / "model" / ("loop" if target == "loop" else "metrics.csv")
    if target != "loop":
        file.symlink_to(f"../{target}")
    with whole_file(file) as draft:
        draft.write_text("new")
    assert not file.is_symlink() and file.read_text() == "new"
    assert (tmp_path / "precious").read_text() == "old" and not (tmp_path / "missing").exists()


@pytest.mark.parametrize("name", [".", "", "../model", "inner/.."])
def test_the_folder_one_is_in_stays_the_same_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "model", OLD)
    number = (tmp_path / "model").stat().st_ino
    monkeypatch.chdir(tmp_path / "model")
    write(Path(name), True)
    assert tree(Path.cwd()) == NEW | KEPT
    assert (tmp_path / "model").stat().st_ino == number
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_deleted_meanwhile_is_written_all_the_same(tmp_path: Path) -> None:
    fill(tmp_path / "model", OLD)
    with whole_folder(tmp_path / "model", keep=True) as draft:
        fill(draft, NEW)
        shutil.rmtree(tmp_path / "model")
    assert tree(tmp_path / "model") == NEW


def test_a_file_that_is_linked_to_another_name_leaves_that_one_as_it_was(tmp_path: Path) -> None:
    fill(tmp_path, {"model/part": "old", "model/kept": "old"})
    for name in ("part", "kept"):
        os.link(tmp_path / "model" / name, tmp_path / name)
    write(tmp_path / "model", True)
    with whole_file(tmp_path / "model" / "kept") as draft:
        draft.write_text("new")
    assert ((tmp_path / "part").read_text(), (tmp_path / "kept").read_text()) == ("old", "old")


def test_a_full_disk_is_told_of_the_target(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, whole_folder(tmp_path / "model") as draft:
        raise OSError(errno.ENOSPC, "full", str(draft / "weights"))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "model" / "weights"))
    assert list(tmp_path.iterdir()) == []


def test_names_as_long_as_the_disk_has_them(tmp_path: Path) -> None:
    name = "n" * 255
    write(tmp_path / name, False)
    assert tree(tmp_path / name) == NEW


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, words in (("pipe", "is no plain file"), ("folder", "is a folder")):
        with pytest.raises(UsageError, match=words), whole_file(tmp_path / name) as draft:
            draft.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]
