"""Folding against numbers worked out by hand: two-level sets with and without padding, and a BatchNorm in front of a sign."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from binarize.binarizers.adabin import AdaptiveInput
from binarize.binarizers.adabin_seed002 import LearnedWeight
from binarize.binarizers.reactnet import RSign
from binarize.layers.classes import binary_class
from binarize.packed.fold import freeze_layer

VECTORS = json.loads(
    (Path(__file__).parents[1] / "data" / "schemes_vectors.json").read_text(encoding="utf-8")
)


def test_sets_of_two_levels_fold_to_their_vectors_with_and_without_padding() -> None:
    given = VECTORS["fold_adabin"]
    conv = nn.Conv1d(1, 2, 6, padding=2, bias=False)
    weight, inputs = LearnedWeight(2), AdaptiveInput()
    with torch.no_grad():
        weight.alpha.copy_(torch.tensor(given["alpha_w"]))
        weight.beta.copy_(torch.tensor(given["beta_w"]))
        inputs.alpha.fill_(given["alpha_a"])
        inputs.beta.fill_(given["beta_a"])
        signs = torch.tensor(given["bw"])[:, None]
        conv.weight.copy_(weight.beta.view(2, 1, 1) + 0.01 * signs)
    cls = binary_class(conv)
    assert cls is not None
    layer = cls.from_float(conv, weight_binarizer=weight, input_binarizer=inputs).eval()
    frozen = freeze_layer(layer)
    assert isinstance(frozen, nn.Module)
    bits = torch.tensor(given["ba"])
    # The third of five windows lies inside; of the last one the first four taps do.
    whole, ended = bits, torch.cat([torch.tensor([1.0, -1.0]), bits[:4]])
    with torch.no_grad():
        for net in (layer, frozen):
            inside = net(_centred(whole))[0, :, 2]
            torch.testing.assert_close(inside, torch.tensor(given["y"]), rtol=0, atol=1e-6)
            last = net(_centred(ended))[0, :, 4]
            torch.testing.assert_close(last, torch.tensor(given["y_zero_padded_last2"]), rtol=0, atol=1e-6)


def _centred(bits: torch.Tensor) -> torch.Tensor:
    """Inputs whose signs around 0.25 are these. Shapes: (6,) -> (1, 1, 6)."""
    return (bits + 0.25).view(1, 1, -1)


@pytest.mark.parametrize("channel", [0, 1])
def test_a_norm_in_front_of_a_sign_is_a_comparison_with_one_number(channel: int) -> None:
    given = VECTORS["fold_bn_sign"]
    norm, sign = nn.BatchNorm1d(2, eps=given["eps"]).double().eval(), RSign(2).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(given["gamma"]))
        norm.bias.copy_(torch.tensor(given["beta"]))
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(torch.tensor(given["mean"]))
        norm.running_var.copy_(torch.tensor(given["var"]))
        sign.tau.copy_(torch.tensor(given["next_threshold"]))
    scale = torch.tensor(given["out_scale"], dtype=torch.float64)

    def signs(dots: list[float]) -> list[float]:
        dot = torch.tensor(dots, dtype=torch.float64)[:, None].expand(-1, 2)
        found: list[float] = sign(norm(dot * scale))[:, channel].tolist()
        return found

    assert signs(given["dot"]) == given["sign_out"][channel]
    limit, step = given["threshold_on_dot"][channel], 1e-6
    rising = given["gamma"][channel] > 0
    assert signs([limit - step, limit + step]) == ([-1, 1] if rising else [1, -1])
