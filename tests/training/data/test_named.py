"""Data by name, and folders with files that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from binarize.errors import SourceError, UsageError
from binarize.inputs.noise import looks_like_noise
from binarize.training.data import (
    Augment,
    ImageData,
    Preprocessing,
    evaluation_loader,
    open_data,
    training_loader,
)
from binarize.training.data.image_data import divided, limited, numbered, without_empty_classes
from binarize.training.data.samples import Samples
from binarize.training.data.tensors import TensorImages

RGB = Preprocessing((3, 8, 8), (0.5,) * 3, (0.5,) * 3)


def opened(*arguments: Any, **options: Any) -> ImageData:
    data = open_data(*arguments, **options)
    assert data is not None
    return data


def images_of(data: ImageData) -> torch.Tensor:
    assert isinstance(data.dataset, TensorImages)
    return data.dataset.images


def test_digits_are_the_bundled_ones() -> None:
    from binarize.demo.digits import load_digits

    train, held_out = opened("digits"), opened("digits", "validation")
    assert (len(train), len(held_out), train.classes) == (1438, 359, tuple("0123456789"))
    grey = Preprocessing((1, 8, 8), (0.5,), (0.5,))
    batch = next(iter(evaluation_loader(held_out, grey, batch_size=359)))
    assert torch.equal(batch.images, load_digits().held_out_images)
    assert torch.equal(batch.labels, load_digits().held_out_labels)


def test_fake_images_are_made_alike_and_no_noise() -> None:
    data, again = (
        opened("fake:64", size=(3, 16, 16), classes=4),
        opened("fake:64", size=(3, 16, 16), classes=4),
    )
    assert torch.equal(images_of(data), images_of(again))
    assert (
        len(opened("fake", size=(1, 8, 8))) == 256 and len(opened("fake", "validation", size=(1, 8, 8))) == 64
    )
    assert looks_like_noise([((images_of(data).float(),), {})]) is None
    labels = data.dataset.labels  # type: ignore[union-attr]
    means = torch.stack([images_of(data)[labels == c].float().mean(0) for c in range(4)])
    # Images of a class lie nearer to its mean than to the others'.
    distances = torch.cdist(images_of(data).float().flatten(1), means.flatten(1))
    assert (distances.argmin(1) == labels).all()


def test_tensors_are_taken_as_they_are_unless_they_are_bytes() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    assert opened((images, labels)).ready
    assert not opened(((images * 255).byte(), labels)).ready
    assert opened(images).dataset.labels is None  # type: ignore[union-attr]
    assert open_data((images, labels), "validation") is None
    with pytest.raises(UsageError, match="4 images and 3 labels"):
        open_data((images, labels[:3]))
    with pytest.raises(UsageError, match="holds no image"):
        open_data(images[:0])


@pytest.mark.parametrize(
    "name, message",
    [
        ("digit", 'did you mean "digits"?'),
        ("nowhere/at/all", "no such folder"),
        ("torch/cifar11", "Unknown torchvision dataset cifar11"),
        ("wds/somewhere", "needs the package webdataset: pip install webdataset"),
        ("fake:many", "no such folder"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_data(name)
    assert name in str(caught.value) and message in str(caught.value)


def test_nothing_is_downloaded_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"torch/cifar10: Dataset not found(.|\n)*--download fetches it"):
        open_data("torch/cifar10", root=tmp_path)


def test_other_types_are_refused() -> None:
    with pytest.raises(UsageError, match="data is a int; expected a name"):
        open_data(3)


def pictures(root: Path, *classes: str, count: int = 3) -> Path:
    for position, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (9, 9), (80 * position, 10 * number, 0)).save(root / name / f"{number}.png")
    return root


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    data = opened(str(pictures(tmp_path, "9", "10")))
    assert data.classes == ("10", "9")
    assert open_data(str(tmp_path), "validation") is None
    batch = next(iter(evaluation_loader(data, RGB, batch_size=6)))
    assert batch.images.shape == (6, 3, 8, 8) and batch.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert "numbered as text" in data.notes[0]


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_a_folder_with_splits(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "train", "a", "b"), pictures(tmp_path / name, "a", "b", count=1)
    assert (len(opened(str(tmp_path))), len(opened(str(tmp_path), "validation"))) == (6, 2)


def test_grey_models_read_grey(tmp_path: Path) -> None:
    data = opened(str(pictures(tmp_path, "a")), size=(1, 8, 8))
    grey = Preprocessing((1, 8, 8), (0.5,), (0.5,))
    assert next(iter(evaluation_loader(data, grey, batch_size=3))).images.shape == (3, 1, 8, 8)


def test_empty_folders_and_other_files_are_noted(tmp_path: Path) -> None:
    pictures(tmp_path, "a", "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "a" / "readme.txt").write_text("x")
    notes = opened(str(tmp_path)).notes
    assert "no image in 1 class folders: c" in notes[0] and "1 files are no images" in notes[1]


def test_validation_images_are_numbered_as_the_training_images(tmp_path: Path) -> None:
    pictures(tmp_path / "train", "a", "b", "c")
    pictures(tmp_path / "val", "b", "c")
    (tmp_path / "val" / ".ipynb_checkpoints").mkdir()
    data = opened(str(tmp_path), "validation")
    assert data.classes == ("a", "b", "c")
    assert [data.dataset[i][1] for i in range(6)] == [1, 1, 1, 2, 2, 2]
    pictures(tmp_path / "val", "d")
    with pytest.raises(UsageError, match="its folder d is no class of the training images"):
        open_data(str(tmp_path), "validation")


@pytest.mark.parametrize(("outputs", "labels"), [(3, [0, 2]), (2, [0, 1])])
def test_empty_classes_are_none_where_a_model_has_no_outputs_for_them(
    outputs: int, labels: list[int], tmp_path: Path
) -> None:
    pictures(tmp_path, "a", "c", count=1)
    (tmp_path / "b").mkdir()
    data = without_empty_classes(opened(str(tmp_path)), lambda: outputs)
    assert [data.dataset[i][1] for i in range(2)] == labels
    assert len(data.classes) == outputs


def test_a_class_that_is_empty_in_training_may_be_missing_in_validation(tmp_path: Path) -> None:
    pictures(tmp_path / "train", "a", "c", count=1)
    (tmp_path / "train" / "b").mkdir()
    pictures(tmp_path / "val", "c", "a", count=1)
    train = without_empty_classes(opened(str(tmp_path)), lambda: 2)
    held = numbered(opened(str(tmp_path), "validation"), train.classes)
    assert held.classes == train.classes == ("a", "c")
    assert [held.dataset[i][1] for i in range(2)] == [0, 1]
    assert numbered(held, ()) is held


def test_a_link_that_leads_nowhere_is_an_unreadable_image(tmp_path: Path) -> None:
    pictures(tmp_path, "a", "b")
    (tmp_path / "a" / "9.png").symlink_to(tmp_path / "gone.png")
    batches = list(evaluation_loader(opened(str(tmp_path)), RGB, batch_size=4))
    (unreadable,) = (name for batch in batches for name in batch.unreadable)
    assert unreadable.startswith(str(tmp_path / "a" / "9.png")) and "No such file" in unreadable


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no folder"):
        open_data(str(tmp_path))
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError, match="its 1 folders hold no image"):
        open_data(str(tmp_path))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Six images; one of them empty, one cut off, one text."""
    pictures(tmp_path, "a", "b")
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "0.png").write_bytes(b"")
    (tmp_path / "a" / "2.png").write_bytes(whole[:40])
    (tmp_path / "b" / "1.png").write_text("this is no image")
    return tmp_path


def test_evaluation_leaves_unreadable_images_out_and_names_them(damaged: Path) -> None:
    batches = list(evaluation_loader(opened(str(damaged)), RGB, batch_size=2))
    assert [0 if batch.images is None else len(batch.images) for batch in batches] == [1, 1, 1]
    assert [label for batch in batches for label in batch.labels.tolist()] == [0, 1, 1]
    named = [line.partition(": ")[0] for batch in batches for line in batch.unreadable]
    assert named == [str(damaged / name) for name in ("a/0.png", "a/2.png", "b/1.png")]


def test_a_batch_without_any_readable_image_is_none(damaged: Path) -> None:
    batches = list(evaluation_loader(opened(str(damaged)), RGB, batch_size=1))
    assert [batch.images is None for batch in batches] == [True, False, True, False, True, False]


def test_training_takes_the_next_readable_image_instead(damaged: Path) -> None:
    data = opened(str(damaged))
    loader = training_loader(data, RGB, batch_size=3, augment=Augment.parse("none"))
    batches = list(loader)
    assert [len(batch.images) for batch in batches] == [3, 3]
    assert sum(len(batch.unreadable) for batch in batches) == 3
    # a/0 -> a/1, a/2 -> b/0, b/1 -> b/2.
    labels = sorted(label for batch in batches for label in batch.labels.tolist())
    assert labels == [0, 0, 1, 1, 1, 1]


def test_a_data_set_that_cannot_be_read_at_all_is_an_error(tmp_path: Path) -> None:
    pictures(tmp_path, "a")
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"none of the \d+ images can be read: .*a/"):
        next(iter(training_loader(opened(str(tmp_path)), RGB, batch_size=1)))


def test_subsets_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for data in (opened("digits"), opened(str(pictures(tmp_path, "a", "b")))):
        few = limited(data, 4, seed=3)
        assert len(few) == 4 and len(limited(data, None)) == len(limited(data, 10**6)) == len(data)
        rest, share = divided(data, 0.5, seed=3)
        assert len(rest) + len(share) == len(data)
    name = few.dataset.name(0)  # type: ignore[union-attr]
    assert Path(name).is_file()
    with pytest.raises(UsageError, match="both parts need some"):
        divided(data, 0.01)


def test_opened_data_is_data_too() -> None:
    digits = opened("digits")
    assert open_data(digits) is digits and open_data(digits, "validation") is None


def test_parts_share_no_image() -> None:
    data = opened((torch.arange(20.0)[:, None], torch.arange(20)))
    rest, share = divided(data, 0.25)
    assert sorted([*images_of(rest).flatten().tolist(), *images_of(share).flatten().tolist()]) == list(
        range(20)
    )


def test_a_data_set_of_images_alone_has_no_labels() -> None:
    data = opened(TensorDataset(torch.rand(4, 3)))
    batch = next(iter(training_loader(data, None, batch_size=2)))
    assert batch.images.shape == (2, 3) and batch.labels is None


def test_items_are_transformed_by_their_first_member() -> None:
    samples = Samples(TensorDataset(torch.ones(2, 1), torch.tensor([5, 6])), lambda x: -x)
    batch = samples.__getitems__([(0, 1)])
    assert (batch.images.tolist(), batch.labels.tolist()) == ([[-1.0]], [6])
