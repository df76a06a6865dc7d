"""The input when nobody gave it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from binarize.inputs.arguments import Arguments, TensorKind
from binarize.inputs.shapes import asked_for, example_input, infer
from binarize.sources import load


class Positions(nn.Module):
    """Tokens with a vector for each of nine positions, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(30, 4), nn.Embedding(9, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))


def flattened(channels: int, side: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * side * side, 3))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(3, 4, 3), (1, 3, 224, 224)),
        (flattened(3, 32), (1, 3, 32, 32)),
        (flattened(1, 28), (1, 1, 28, 28)),
        (flattened(1, 8), (1, 1, 8, 8)),
        (nn.Linear(7, 3), (1, 7)),
        (nn.Conv3d(3, 4, 3), (1, 3, 16, 112, 112)),
        (nn.Conv1d(5, 4, 3), (1, 5, 16000)),
        (nn.ReLU(), None),
        (nn.ConvTranspose2d(8, 4, 4), (1, 8, 1, 1)),
        (nn.LSTM(6, 5), (1, 16, 6)),
        (nn.Sequential(nn.Linear(6, 5), nn.LayerNorm((16, 5))), (1, 16, 6)),
        (nn.Embedding(40, 4), (1, 16)),
        (nn.Embedding(4, 4), (1, 4)),
        (Positions(), (1, 9)),
    ],
)
def test_shape_is_inferred_from_the_first_layer_and_tried(
    module: nn.Module, shape: tuple[int, ...] | None
) -> None:
    found = infer(module)
    assert (None if found is None else [kind.shape for kind in found.kinds]) == (
        None if shape is None else [shape]
    )


def test_no_shape_is_claimed_that_the_forward_refuses() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("only on weekdays")

    assert infer(Odd()) is None


def test_trial_leaves_the_module_alone() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    seen: list[object] = []
    module.register_forward_hook(lambda *_: seen.append(1))
    assert infer(module) == Arguments((TensorKind((1, 3, 224, 224)),))
    assert seen == []
    assert module.training
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("torchvision:inception_v3", [(1, 3, 299, 299)]),
        ("torchvision:r3d_18", [(1, 3, 16, 112, 112)]),
        ("torchvision:swin_v2_t", [(1, 3, 256, 256)]),
        ("torchvision:fcn_resnet50", [(1, 3, 224, 224)]),
        ("torchvision:ssd300_vgg16", [(1, 3, 300, 300)]),
        ("torchvision:raft_small", [(1, 3, 128, 128), (1, 3, 128, 128)]),
    ],
)
def test_shapes_that_the_libraries_know(name: str, shapes: list[tuple[int, ...]]) -> None:
    assert [tuple(x.shape) for x in load(name, meta=True).inputs()] == shapes


def test_example_is_seeded_and_in_the_modules_precision() -> None:
    module = nn.Linear(4, 2).to(torch.bfloat16)
    (first,), (second,) = (example_input((3, 4), module) for _ in range(2))
    assert first.dtype == torch.bfloat16
    assert torch.equal(first, second)
    assert not torch.equal(first, example_input((3, 4), module, seed=1)[0])


def test_token_numbers_lie_within_the_vocabulary() -> None:
    found = infer(Positions())
    assert found is not None
    (ids,), _ = found.make(Positions())
    assert ids.dtype == torch.int64
    assert set(ids.flatten().tolist()) <= set(range(30))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.conv(left) - scale * self.conv(right)


def test_every_required_argument_is_given_the_same_shape_or_asked_for_by_name() -> None:
    assert infer(Pair()) == Arguments((TensorKind((1, 3, 224, 224)),) * 2)
    assert "its forward takes left, right: give a shape for each" in asked_for(Pair())
    assert "example_input=(left, right)" in asked_for(Pair())


def test_a_forward_that_looks_at_values_is_tried_with_real_tensors() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) if x.mean().item() > -100 else x

    assert infer(Looking()) == Arguments((TensorKind((1, 1, 224, 224)),))


@pytest.mark.parametrize("size", [1 << 40, 1 << 63, 1 << 70, -1])
@pytest.mark.parametrize("attribute", ["in_channels", "num_embeddings", "in_features"])
def test_no_size_that_a_layer_claims_is_allocated_or_raised(attribute: str, size: int) -> None:
    layer = {"in_channels": nn.Conv2d(3, 2, 3), "num_embeddings": nn.Embedding(4, 2)}.get(
        attribute, nn.Linear(3, 2)
    )
    setattr(layer, attribute, size)
    assert (infer(layer) is None) == (attribute != "num_embeddings" or size < 0)
