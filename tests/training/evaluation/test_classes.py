"""Class folders and the outputs of a model: matched by name, or by place where there is one for each, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_images import pictures

from binarize.errors import UsageError
from binarize.training.data import ImageData, open_data
from binarize.training.data.kinds.folders import FolderImages
from binarize.training.evaluation.classes import imagenet_names, imagenet_numbers, to_outputs


def labels(data: ImageData) -> dict[str, int]:
    """Class folder -> number of its images."""
    assert isinstance(data.dataset, FolderImages)
    return {path.parent.name: label for path, label in data.dataset.files}


def opened(root: Path, *classes: str) -> ImageData:
    data = open_data(str(pictures(root, list(classes), count=1)))
    assert data is not None
    return data


def test_every_number_of_wordnet_is_its_place_in_imagenet() -> None:
    numbers = imagenet_numbers()
    assert [numbers[name] for name in ("n01440764", "n01443537", "n15075141")] == [0, 1, 999]
    assert numbers["great white shark"] == 2
    # Two classes are called so.
    assert "crane" not in numbers and "maillot" not in numbers
    assert len(imagenet_names()) == 1000


@pytest.mark.parametrize(
    ("folders", "places"),
    [
        (("n01443537", "n01440764"), (1, 0)),
        (("great_white_shark", "tench"), (2, 0)),
        (("Goldfish", "n15075141"), (1, 999)),
    ],
)
def test_folders_of_imagenet_names_find_their_outputs(
    tmp_path: Path, folders: tuple[str, ...], places: tuple[int, ...]
) -> None:
    data = to_outputs(opened(tmp_path / "x", *folders), lambda: 1000, ())
    assert labels(data) == dict(zip(folders, places))
    assert data.classes == imagenet_names()
    assert any("2 of the model's 1,000 classes" in note for note in data.notes)


def test_folders_find_the_outputs_that_the_model_remembers(tmp_path: Path) -> None:
    known = ("dog", "cat", "bee", "ant")
    data = to_outputs(opened(tmp_path / "few", "ant", "cat"), lambda: 4, known)
    assert labels(data) == {"ant": 3, "cat": 1} and data.classes == known
    data = to_outputs(opened(tmp_path / "all", *known), lambda: 4, known)
    assert labels(data) == {"dog": 0, "cat": 1, "bee": 2, "ant": 3}
    other = to_outputs(opened(tmp_path / "other", "a", "b", "c", "d"), lambda: 4, known)
    assert labels(other) == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert any("are not those that the model remembers (dog, cat, bee, ...)" in note for note in other.notes)


@pytest.mark.parametrize(
    ("outputs", "known"), [(1000, ()), (10, ()), (10, tuple("0123456789")), (5, ("a", "b", "c", "d", "e"))]
)
def test_fewer_folders_of_other_names_are_refused(
    tmp_path: Path, outputs: int, known: tuple[str, ...]
) -> None:
    data = opened(tmp_path / "x", "mine", "n01440764", "yours")
    with pytest.raises(
        UsageError, match=r"(?s)3 class folders \(mine, n01440764, yours\).*--num-classes 3"
    ) as error:
        to_outputs(data, lambda: outputs, known)
    assert f"{outputs:,} outputs" in str(error.value) and error.value.exit_code == 2


def test_empty_folders_count_only_where_the_model_has_outputs_for_them(tmp_path: Path) -> None:
    data = opened(tmp_path / "x", "ant", "cat")
    (tmp_path / "x" / "bee").mkdir()
    for count, places in ((3, {"ant": 0, "cat": 2}), (2, {"ant": 0, "cat": 1})):
        data = open_data(str(tmp_path / "x"))
        assert data is not None
        assert labels(to_outputs(data, lambda count=count: count, ())) == places


def test_data_that_numbers_itself_is_told_of(tmp_path: Path) -> None:
    digits = open_data("digits")
    assert digits is not None
    assert to_outputs(digits, lambda: 10, ()) == digits and not digits.notes
    (note,) = to_outputs(digits, lambda: 1000, ()).notes
    assert "10 classes, and the model has 1,000 outputs" in note


def test_a_flat_folder_has_images_where_no_labels_are_asked_for(tmp_path: Path) -> None:
    flat = pictures(tmp_path / "x", ["ant"], count=3) / "ant"
    data = open_data(str(flat), labelled=False)
    assert data is not None and len(data) == 3 and not data.labelled and data.classes == ()
    assert len(data.dataset[0]) == 1
    with pytest.raises(UsageError, match="its 3 images have no labels"):
        open_data(str(flat))
    both = open_data(str(tmp_path / "x"), labelled=False)
    assert both is not None and both.labelled


def test_a_folder_whose_name_is_no_utf8_is_a_class_of_text(tmp_path: Path) -> None:
    opened(tmp_path / "x", "ant", "cat")
    (tmp_path / "x" / "cat").rename(os.fsdecode(os.fsencode(tmp_path / "x") + b"/\xff\xfe"))
    data = open_data(str(tmp_path / "x"))
    assert data is not None and data.classes == ("ant", r"\xff\xfe")
    assert list(labels(data).values()) == [0, 1]
