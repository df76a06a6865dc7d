from __future__ import annotations

import nets
import pytest
import torch

import binarize
from binarize.binarizers.binaryconnect import IdentitySign, StochasticSign
from binarize.errors import UsageError
from binarize.packed.freeze import frozen_record


def test_deterministic_weights_equal_their_vectors(vectors, tensor, binarize_weight):
    wb, dw = binarize_weight(IdentitySign())
    torch.testing.assert_close(wb, tensor(vectors["w_binaryconnect_det"]["Wb"]), rtol=0, atol=0)
    torch.testing.assert_close(dw, tensor(vectors["w_binaryconnect_det"]["dW"]), rtol=0, atol=0)


@pytest.mark.parametrize(("probability", "key"), [("hard", "hard_sigmoid"), ("logistic", "logistic")])
def test_stochastic_weights_equal_their_vectors_for_given_draws(vectors, tensor, atol, probability, key):
    expected = vectors["w_binaryconnect_stoch"]
    w = tensor(vectors["w_common"]["W"]).requires_grad_()
    upstream = tensor(vectors["w_common"]["upstream_dL_dWb"])
    binarizer = StochasticSign(probability)
    torch.testing.assert_close(binarizer.p(w), tensor(expected[f"p_{key}"]), rtol=0, atol=atol)
    u = tensor(expected["uniform"])
    if w.dtype == torch.float32:
        # Two draws equal their probability; float32 rounds (w + 1) / 2 to the other side of them.
        u += 1e-7
    wb = binarizer.draw(w, u)
    wb.backward(upstream)
    torch.testing.assert_close(wb, tensor(expected[f"Wb_{key.split('_')[0]}"]), rtol=0, atol=0)
    torch.testing.assert_close(w.grad, upstream, rtol=0, atol=0)


def test_each_training_forward_draws_anew_and_evaluation_is_the_sign():
    torch.manual_seed(0)
    w = torch.zeros(64, 64)
    binarizer = StochasticSign()
    first, second = binarizer(w), binarizer(w)
    assert set(first.unique().tolist()) == {-1, 1}
    assert not torch.equal(first, second)
    assert torch.equal(binarizer.eval()(w), torch.ones_like(w))


def test_share_of_plus_one_is_the_probability():
    torch.manual_seed(0)
    w = torch.full((100_000,), 0.4)
    # p = 0.7; five standard errors are 0.0072.
    assert (StochasticSign()(w) > 0).float().mean().item() == pytest.approx(0.7, abs=0.0073)
    assert StochasticSign()(torch.full((1000,), 1.5)).min().item() == 1
    assert StochasticSign()(torch.full((1000,), -1.5)).max().item() == -1


def test_a_start_scales_weights_and_keeps_their_signs():
    torch.manual_seed(0)
    w = 0.03 * torch.randn(64, 64) + 0.01
    before = w.clone()
    StochasticSign().start(w)
    torch.testing.assert_close(w.square().mean().sqrt(), torch.tensor(StochasticSign.START_SIZE))
    torch.testing.assert_close(w, before * StochasticSign.START_SIZE / before.square().mean().sqrt())
    zeros = torch.zeros(4, 4)
    StochasticSign().start(zeros)
    assert torch.equal(zeros, torch.zeros(4, 4))


def test_evaluation_may_be_that_of_real_weights() -> None:
    w = torch.tensor([[0.25, -0.5]])
    binarizer = StochasticSign(eval="real")
    assert binarizer(w).abs().tolist() == [[1, 1]]
    assert torch.equal(binarizer.eval()(w), w)
    assert torch.equal(StochasticSign().eval()(w), w.sign())
    with pytest.raises(UsageError, match="expected sign or real"):
        StochasticSign(eval="float")  # type: ignore[arg-type]


def test_signs_are_packed_and_real_weights_are_told_to_stay_unpacked() -> None:
    for word, packed in (("sign", True), ("real", False)):
        rules = {
            "schema": 1,
            "name": "drawn",
            "extends": "binaryconnect_stochastic",
            "scheme": {"weight": {"eval": word}},
        }
        model = binarize.convert(
            nets.seeded(nets.ConvRelu), rules=rules, example_input=nets.pictures(2), calibrate=False
        ).eval()
        frozen = binarize.freeze(model, nets.pictures(2))
        record = frozen_record(frozen)
        assert record is not None
        why = set(record.kept.values())
        assert (why == set()) == packed
        assert packed or why == {"it evaluates with real weights (eval: real); eval: sign packs signs"}
        with torch.no_grad():
            torch.testing.assert_close(
                frozen(nets.pictures(2)), model(nets.pictures(2)), rtol=1e-4, atol=1e-4
            )
