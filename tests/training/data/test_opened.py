"""How images are opened for a model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from binarize.training.data import Preprocessing
from binarize.training.data.kinds.made_up import is_made_up
from binarize.training.data.opened import opening


def test_only_the_name_fake_stands_for_made_up_images() -> None:
    names = ("fake", "fake:", "fake:64", "fake:x", "fakes", "fake_photos", "digits")
    assert [name for name in names if is_made_up(name)] == ["fake", "fake:", "fake:64"]
    assert not is_made_up(Path("fake")) and not is_made_up(None)


def test_the_model_is_asked_for_its_classes_only_where_images_are_made_up(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(7))
    # A folder whose name begins like that of made-up data.
    folder = opening(model, str(tmp_path / "fake_photos"), None, "data", False)
    assert folder == {"size": (3, 224, 224), "root": "data", "download": False}
    assert isinstance(model[1], nn.LazyLinear), "it ran"
    shown = Preprocessing((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 7))
    assert opening(model, "fake:8", shown, "data", True) == {
        "size": (3, 8, 8),
        "root": "data",
        "download": True,
        "classes": 7,
    }
