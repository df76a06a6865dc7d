"""Evaluation by hand-countable numbers, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import binarize
from binarize.demo.digits import load_digits, trained_vgg
from binarize.errors import UsageError
from binarize.training.data import Preprocessing
from binarize.training.evaluation.correlation import Correlation
from binarize.training.teachers.teacher import Taps

Converted = Callable[..., nn.Module]


class Says(nn.Module):
    """Scores as they come in: the images are the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x


def hot(*classes: int, of: int = 3) -> Tensor:
    return 4.0 * nn.functional.one_hot(torch.tensor(classes), of).float()


def test_counts_by_hand() -> None:
    # Labels 0 0 0 1 1 2, said 0 1 1 1 0 2.
    found = binarize.evaluate(Says(), (hot(0, 1, 1, 1, 0, 2), torch.tensor([0, 0, 0, 1, 1, 2])), batch_size=4)
    assert found.images == 6 and found.reference is None and found.model is not None
    scores = found.model
    assert scores.confusion == ((1, 2, 0), (1, 1, 0), (0, 0, 1))
    assert scores.top1 == pytest.approx(3 / 6) and scores.top5 is None and scores.mean_iou is None
    assert [(c.name, c.images, c.right) for c in scores.classes] == [("0", 3, 1), ("1", 2, 1), ("2", 1, 1)]
    assert scores.confused == (("0", "1", 2), ("1", "0", 1))
    logits = hot(0, 1, 1, 1, 0, 2)
    wanted = nn.functional.cross_entropy(logits, torch.tensor([0, 0, 0, 1, 1, 2]))
    assert scores.loss == pytest.approx(wanted.item(), rel=1e-5)


def test_top5_counts_the_five_highest() -> None:
    scores = torch.arange(7.0).repeat(7, 1)
    found = binarize.evaluate(Says(), (scores, torch.arange(7)))
    assert found.model is not None and found.model.top5 == pytest.approx(5 / 7)
    assert found.top1 == pytest.approx(1 / 7)


def test_segmentation_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 1, 255]]])
    said = torch.tensor([[[0, 1, 1, 0]]])
    logits = nn.functional.one_hot(said, 2).movedim(-1, 1).float()
    found = binarize.evaluate(Says(), (logits, labels))
    assert found.model is not None
    assert found.model.top1 == pytest.approx(2 / 3)
    assert [c.iou for c in found.model.classes] == [pytest.approx(1 / 2), pytest.approx(1 / 2)]
    assert found.model.mean_iou == pytest.approx(1 / 2)
    assert "pixel accuracy" in found.to_markdown()


def test_the_float_model_stands_beside() -> None:
    float_model = trained_vgg()
    digits = load_digits()
    model = binarize.convert(float_model, "adabin", example_input=digits.train_images[:64])
    found = binarize.evaluate(model, "digits", float_model)
    images, labels = digits.held_out_images, digits.held_out_labels
    with torch.no_grad():
        said = [m.eval()(images).argmax(1) for m in (model, float_model)]
    assert found.model is not None and found.reference is not None
    assert found.model.top1 == pytest.approx((said[0] == labels).float().mean().item(), abs=1e-6)
    assert found.reference.top1 == pytest.approx((said[1] == labels).float().mean().item(), abs=1e-6)
    assert found.agreement == pytest.approx((said[0] == said[1]).float().mean().item(), abs=1e-6)
    assert list(found.correlation) == [d.layer.name for d in model._binarize.plan.binarized]  # type: ignore[union-attr]
    assert all(0.2 < value <= 1 for value in found.correlation.values())
    assert found.costs["bops"] > 0
    again = binarize.evaluate(model, "digits", "source", limit=50)
    assert again.images == 50 and again.reference is not None


def test_a_model_agrees_with_itself(converted: Converted) -> None:
    import copy

    model = converted("BasicBlocks")
    found = binarize.evaluate(model, nets.pictures(8), copy.deepcopy(model))
    # No labels: nothing but the comparison.
    assert found.model is None and found.agreement == 1
    assert found.correlation and all(
        value == pytest.approx(1, abs=1e-6) for value in found.correlation.values()
    )


def test_correlation_knows_neither_scale_nor_shift() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 3, 4, 4)
    y = x * torch.tensor([2.0, -1.0, 0.5]).view(1, 3, 1, 1) + 7
    ours, theirs = nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity())
    similar = Correlation(["0"])
    for part in range(2):
        with Taps(ours, ["0"]) as a, Taps(theirs, ["0"]) as b:
            ours(x[part::2]), theirs(y[part::2])
            similar.add(a, b)
    # Channels correlate by 1, -1 and 1.
    assert similar.values()["0"] == pytest.approx(1 / 3, abs=1e-6)


def test_the_model_stays_as_it_is(converted: Converted) -> None:
    model = converted("ConvRelu").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    binarize.evaluate(model, "fake:16")
    assert torch.equal(torch.rand(1), wanted)
    assert model.training and all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_unreadable_images_are_named_and_do_not_count(tmp_path: Path, converted: Converted) -> None:
    for name in "abcdefghij":
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (16, 16)).save(tmp_path / name / "0.png")
    (tmp_path / "b" / "1.png").write_bytes(b"")
    found = binarize.evaluate(converted("ConvRelu"), str(tmp_path))
    assert found.images == 2 and found.model is not None
    assert found.unreadable[0].startswith(str(tmp_path / "b" / "1.png"))
    assert "1 image could not be read" in found.to_markdown()
    assert [c.name for c in found.model.classes[:3]] == ["a", "b", "c"]
    (tmp_path / "a" / "0.png").write_bytes(b""), (tmp_path / "b" / "0.png").write_bytes(b"")
    with pytest.raises(UsageError, match="none of its 3 images can be read"):
        binarize.evaluate(converted("ConvRelu"), str(tmp_path))


def test_data_of_other_classes_is_refused(converted: Converted) -> None:
    with pytest.raises(UsageError, match="the data has 12 classes and the model 10 outputs"):
        binarize.evaluate(converted("ConvRelu"), (nets.pictures(2), torch.tensor([0, 11])))


def test_the_result_is_json_and_markdown(converted: Converted) -> None:
    found = binarize.evaluate(converted("ConvRelu"), "fake:16", nets.seeded(nets.ALL["ConvRelu"]))
    data: dict[str, Any] = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["model"]["classes"][0]["name"] == "pattern 0" and data["images"] == 4
    text = found.to_markdown()
    for heading in ("top-1", "top-5", "says the same as the float model", "BOPs", "## Classes", "## Layers"):
        assert heading in text


def test_a_preprocessing_can_be_given(converted: Converted) -> None:
    model = converted("ConvRelu")
    black = Preprocessing((3, 16, 16), (0.0,) * 3, (1e9,) * 3)
    found = binarize.evaluate(model, "fake:64", preprocessing=black)
    assert found.model is not None
    # All images look alike, so all are said to be of one class.
    assert sum(any(column) for column in zip(*found.model.confusion)) == 1
