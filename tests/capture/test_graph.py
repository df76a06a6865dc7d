"""Recording the whole model: without data where that works, with data where not, and with a clear word where neither."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

from binarize.capture import capture
from binarize.errors import CaptureError


def test_a_model_is_recorded_without_data() -> None:
    model = nets.BasicBlocks()
    graph = capture(model, model.arguments())
    assert (graph.level, graph.notes) == ("meta", ())
    assert all(p.is_meta for p in graph.shadow.parameters())
    assert graph.evaluation.output.is_meta


def test_code_that_looks_at_values_is_recorded_with_data_and_a_note() -> None:
    model = nets.seeded(nets.DataDependent)
    graph = capture(model, nets.example(model))
    assert graph.level == "device"
    assert len(graph.notes) == 1
    assert graph.notes[0].startswith(
        "not recordable without data (RuntimeError: Tensor.item() cannot be called on meta"
    )
    assert "at nets.py:" in graph.notes[0]
    assert graph.calls["conv1"] == 1


def test_training_is_recorded_beside_evaluation() -> None:
    model = nets.AuxiliaryHead()
    graph = capture(model, model.arguments(1))
    assert graph.training is not None
    assert graph.calls["aux_conv"] == 1
    assert "aux_conv" not in graph.evaluation.calls
    # A batch of one is doubled, since BatchNorm cannot train on one.
    assert graph.training.output[0].shape[0] == 2 * graph.evaluation.output.shape[0]
    assert not graph.shadow.training


def test_a_model_that_cannot_run_in_training_mode_is_recorded_in_evaluation() -> None:
    class NeedsTargets(nets.ConvRelu):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("targets should not be None")
            return super().forward(x)

    model = NeedsTargets()
    graph = capture(model, model.arguments())
    assert graph.training is None
    assert graph.notes[0].startswith(
        "not recordable in training mode (ValueError: targets should not be None at test_graph.py:"
    )


@pytest.mark.parametrize(
    "model, shape, words",
    [
        (nn.Conv2d(5, 3, 3), (2, 3, 8, 8), ["(2, 3, 8, 8)", "expected input[2, 3, 8, 8] to have 5 channels"]),
        (nets.BasicBlocks(), (2, 3), ["(2, 3)", "at nets.py:"]),
    ],
)
def test_a_model_that_does_not_run_is_an_error_that_names_input_and_line(
    model: nn.Module, shape: tuple[int, ...], words: list[str]
) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(model, (torch.randn(shape),))
    assert all(word in str(caught.value) for word in ["the model does not run on the example input", *words])
    assert "example_input" in str(caught.value)


def test_the_examples_are_not_changed() -> None:
    class Overwriting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(0) if x.sum() != 5 else x

    x = torch.ones(2, 3)
    capture(Overwriting(), (x,))
    assert torch.equal(x, torch.ones(2, 3))
