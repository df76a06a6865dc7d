"""One architecture that fits is used and named, of several none, and where none does the nearest are named."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from binarize.errors import SourceError
from binarize.sources import Source, build, load

State = dict[str, Tensor]


def weights(arch: str, **options: Any) -> State:
    """A state dict of the architecture, with its modules' paths; the numbers are small and do not matter."""
    state = build(arch, meta=True, **options).state_dict()
    filled = OrderedDict((name, torch.zeros(value.shape, dtype=value.dtype)) for name, value in state.items())
    filled._metadata = state._metadata  # type: ignore[attr-defined]
    return filled


def plain(state: State) -> State:
    """Without what torch writes about the modules beside it."""
    return dict(state)


def guessed(path: Path, content: object) -> Source:
    torch.save(content, path / "w.pt")
    return load(str(path / "w.pt"), meta=True)


@pytest.mark.parametrize("classes", [1000, 15])
def test_one_that_fits_is_used_and_named_whatever_the_number_of_classes(classes: int, tmp_path: Path) -> None:
    source = guessed(tmp_path, plain(weights("torchvision:squeezenet1_1", num_classes=classes)))
    assert (source.arch, source.builder) == ("torchvision:squeezenet1_1",) * 2
    assert source.num_classes == (None if classes == 1000 else classes)
    assert any(note.startswith("took the architecture torchvision:squeezenet1_1") for note in source.notes)


def test_those_that_compute_the_same_are_one(tmp_path: Path) -> None:
    source = guessed(tmp_path, plain(weights("timm:densenet121")))
    assert source.arch == "torchvision:densenet121"
    assert any("(timm:densenet121 computes the same)" in note for note in source.notes)


@pytest.mark.parametrize("form", [plain, lambda state: state])
def test_several_that_compute_different_things_are_listed(
    form: Callable[[State], State], tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="several that compute different things take them") as caught:
        guessed(tmp_path, form(weights("torchvision:resnet50")))
    assert str(caught.value).splitlines()[1:] == [
        "  --arch torchvision:resnet50 (timm:resnet50 computes the same)",
        "  --arch timm:resnetaa50",
        "  --arch timm:resnetblur50",
    ]


def test_modules_in_the_file_rule_out_what_nobody_published_weights_of(tmp_path: Path) -> None:
    state = weights("torchvision:resnet18", num_classes=3)
    assert guessed(tmp_path, state).arch == "torchvision:resnet18"
    with pytest.raises(SourceError, match="--arch timm:resnetblur18"):
        guessed(tmp_path, plain(state))


def test_the_name_in_a_checkpoint_decides_between_several(tmp_path: Path) -> None:
    source = guessed(tmp_path, {"arch": "resnet50", "state_dict": plain(weights("torchvision:resnet50"))})
    assert source.arch == "torchvision:resnet50"
    assert "took the architecture torchvision:resnet50 that the checkpoint names" in source.notes


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


TINY = "timm:test_resnet"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: under("module.", state),
        lambda state: under("_orig_mod.", state),
        lambda state: {"model": under("module.", state)},
        lambda state: {"state_dict": under("model.", state) | {"loss.weight": torch.ones(5)}},
        lambda state: {"state_dict": under("model._orig_mod.", state)},
        lambda state: {"state_dict": under("model.module.", state)},
        lambda state: {"state_dict": under("backbone.", state)},
        lambda state: {"state_dict": under("student.", state) | under("teacher.", state)},
        lambda state: {"state_dict": under("model.", state) | under("model_ema.", state)},
        lambda state: {"model": None, "model_ema": state},
        lambda state: {
            name: value.half() if value.is_floating_point() else value for name, value in state.items()
        },
        lambda state: {
            name: value for name, value in state.items() if not name.endswith("num_batches_tracked")
        },
    ],
)
def test_wrapped_narrowed_and_averaged_weights_are_recognized(
    wrap: Callable[[State], Any], tmp_path: Path
) -> None:
    source = guessed(tmp_path, wrap(plain(weights(TINY, num_classes=5))))
    assert (source.arch, source.num_classes) == (TINY, 5)
    assert source.module.state_dict().keys() == build(TINY, meta=True).state_dict().keys()
    assert next(source.module.parameters()).dtype == torch.float32


def test_weights_without_a_head_are_of_the_model_without_one(tmp_path: Path) -> None:
    source = guessed(tmp_path, plain(weights("timm:test_resnet(num_classes=0)")))
    assert source.arch == "timm:test_resnet(num_classes=0)"


def test_a_part_of_a_larger_model_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    state = under("backbone.", plain(weights(TINY))) | {"decoder.weight": torch.ones(3, 3)}
    with pytest.raises(
        SourceError, match=r"those under 'backbone\.' fit timm:test_resnet, which leaves 1 others"
    ):
        guessed(tmp_path, state)


def test_the_nearest_are_named_with_what_differs(tmp_path: Path) -> None:
    state = plain(weights("torchvision:resnet18")) | {"conv1.weight": torch.zeros(64, 1, 7, 7)}
    with pytest.raises(SourceError, match="has none that takes them") as caught:
        guessed(tmp_path, state)
    assert (
        "torchvision:resnet18 has 101 of these 102 in the same shape; conv1.weight is 64x1x7x7 here"
        in str(caught.value)
    )
    del state["fc.weight"], state["fc.bias"]
    head = {"fc.0.weight": torch.zeros(9, 512), "fc.0.bias": torch.zeros(9)}
    with pytest.raises(
        SourceError, match=r"torchvision:resnet18 has 99 of these 102 .* and 2 more \(fc\.weight, \.\.\.\)"
    ):
        guessed(tmp_path, state | head)


def test_weights_like_nothing_known_name_no_architecture(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match="has none that takes them\n  say which it is, as in --arch"
    ) as caught:
        guessed(tmp_path, nn.Linear(3, 3).state_dict())
    assert "nearest" not in str(caught.value)


def test_boxes_have_several_numbers_a_class(tmp_path: Path) -> None:
    state = plain(weights("torchvision:retinanet_resnet50_fpn", num_classes=4))
    source = guessed(tmp_path, state)
    assert (source.arch, source.num_classes) == ("torchvision:retinanet_resnet50_fpn", 4)
