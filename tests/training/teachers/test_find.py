"""Who teaches: the float model, as long as it can be had, and what is said where it cannot."""

from __future__ import annotations

import copy
import gc
import io
from pathlib import Path

import nets
import pytest
import torch
from torch import nn

import binarize
from binarize.demo.digits import trained_vgg
from binarize.errors import SourceError, UsageError
from binarize.training.data import Preprocessing, preprocessing_of
from binarize.training.teachers.find import find_teachers


def test_the_float_model_teaches_while_it_lives() -> None:
    float_model = nets.seeded(nets.ALL["ConvRelu"])
    model = binarize.convert(float_model, "bireal", example_input=nets.pictures(2))
    for student in (model, copy.deepcopy(model)):
        found = find_teachers(student, "source")
        assert [teacher.model for teacher in found.teachers] == [float_model] and str(found) == "source"
    del float_model, found
    with pytest.raises(
        UsageError, match=r"ConvRelu\) that was to teach is not at hand(.|\n)*teacher=float_model"
    ):
        find_teachers(model, "source")


def test_a_converted_model_can_still_be_pickled() -> None:
    float_model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 3)
    )
    model = binarize.convert(float_model, "bireal", example_input=nets.pictures(2))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again(nets.pictures(2)), model(nets.pictures(2)))


def test_a_model_from_a_file_is_taught_by_the_file(tmp_path: Path) -> None:
    state = tmp_path / "vgg.safetensors"
    from safetensors.torch import save_file

    save_file(trained_vgg().state_dict(), state)
    model = binarize.convert(str(state), "bireal", arch="binarize.demo.digits:DigitsVGG")
    gc.collect()
    (teacher,) = find_teachers(model, "source").teachers
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(teacher(x), trained_vgg()(x))
    save_file({name: value + 1 for name, value in trained_vgg().state_dict().items()}, state)
    with pytest.raises(SourceError, match="another file than the one that was converted"):
        find_teachers(model, "source")


def test_random_weights_have_nothing_to_teach() -> None:
    model = binarize.convert("torchvision:mobilenet_v3_small", "bireal", input_shape=(1, 3, 64, 64))
    found = find_teachers(model, "source")
    assert not found.teachers
    assert str(found) == "none (the weights of torchvision:mobilenet_v3_small are random)"


def test_no_teacher_is_no_teacher() -> None:
    model = nn.Linear(2, 2)
    assert str(find_teachers(model, "none")) == str(find_teachers(model, None)) == "none"
    assert "was not converted" in str(find_teachers(model, "source"))
    with pytest.raises(UsageError, match="its own teacher"):
        find_teachers(model, model)


def test_several_and_folders(tmp_path: Path) -> None:
    float_model = trained_vgg()
    model = binarize.convert(float_model, "bireal")
    folder = binarize.save(model, tmp_path / "net")
    found = find_teachers(model, [float_model, folder])
    assert len(found.teachers) == 2 and found.names == ("DigitsVGG", str(folder))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(found.teachers[1](x), model.eval()(x))


def test_a_teacher_with_another_normalization_sees_the_same_pixels() -> None:
    import timm

    taught = timm.create_model("mobilenetv3_small_050", num_classes=3).eval()
    student = Preprocessing((3, 32, 32), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    (teacher,) = find_teachers(nn.Linear(1, 1), taught, student).teachers
    own = preprocessing_of(taught)
    pixels = torch.rand(2, 3, 32, 32)

    def normalized(preprocessing: Preprocessing) -> torch.Tensor:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
        return (pixels - mean) / std

    with torch.no_grad():
        wanted = taught(normalized(own))
    torch.testing.assert_close(teacher(normalized(student)), wanted, rtol=1e-4, atol=1e-4)


def test_the_source_sees_images_as_its_conversion_does() -> None:
    float_model = nets.seeded(nets.ALL["ConvRelu"])
    float_model.pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    model = binarize.convert(float_model, "bnn")
    said = Preprocessing((3, 16, 16), (0.5,) * 3, (0.5,) * 3)
    (own,) = find_teachers(model, [float_model], said).teachers
    assert own.scale is None and own.shift is None
    other = nets.seeded(nets.ALL["ConvRelu"], 1)
    other.pretrained_cfg = float_model.pretrained_cfg
    (another,) = find_teachers(model, [other], said).teachers
    assert another.scale is not None
