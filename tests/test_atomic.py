"""A file or folder has its final name whole or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from binarize.atomic import whole_file, whole_folder


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
    rename = Path.rename

    def refuse(self: Path, other: Path) -> Path:
        if self.name.endswith(".draft"):
            raise OSError("no")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no"), whole_folder(target) as draft:
        (draft / "part").write_text("new")
    assert tree(tmp_path) == {"folder/part": "old"}


def _old(folder: Path) -> None:
    before = time.time() - 3600
    os.utime(folder, (before, before))


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    target = tmp_path / "model"
    abandoned, other = tmp_path / ".model.abc.draft", tmp_path / ".another.abc.draft"
    for folder in (abandoned, other):
        folder.mkdir()
        (folder / "weights").write_text("half")
        _old(folder)
    with whole_folder(target) as held:
        _old(held)
        with whole_folder(target) as second:
            (second / "a").write_text("2")
        assert held.is_dir()
        (held / "a").write_text("1")
    assert (target / "a").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, target.name]
