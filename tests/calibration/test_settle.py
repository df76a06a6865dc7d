"""One pass: what is measured, decided and written at each layer, on numbers one can check by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from binarize.binarizers.bireal import ScaledSign
from binarize.binarizers.reactnet import RPReLU, RSign
from binarize.calibration.follow import record_targets
from binarize.calibration.progress import Watch
from binarize.calibration.result import Settled
from binarize.calibration.settle import settle
from binarize.calibration.steps import Fitting, Steps
from binarize.layers.linear import BinaryLinear


def binary(layer: nn.Linear) -> BinaryLinear:
    return BinaryLinear.from_float(
        layer, weight_binarizer=ScaledSign(), input_binarizer=RSign(layer.in_features, channel_dim=-1)
    )


class Pair(nn.Module):
    """A float stem, a layer with its norm, a head; `layer` is what becomes binary."""

    def __init__(self, layer: nn.Module, norm: nn.Module, behind: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.layer, self.norm, self.head = nn.Linear(4, 6), layer, norm, nn.Linear(6, 2)
        self.behind = behind

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        out: Tensor = self.head(self.behind(self.norm(self.layer(x)), x))
        return out


def alone(y: Tensor, x: Tensor) -> Tensor:
    return y.relu()


def added(y: Tensor, x: Tensor) -> Tensor:
    return (y + x).relu()


def one_more(y: Tensor, x: Tensor) -> Tensor:
    """What is added is wrong by 1."""
    return (y + (x + 1)).relu()


def pair(
    behind: Callable[[Tensor, Tensor], Tensor] = alone, norm: nn.Module | None = None
) -> tuple[nn.Module, nn.Module, Tensor]:
    """(float model, binary model on the same weights, input)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = Pair(nn.Linear(6, 6, bias=False), norm or nn.BatchNorm1d(6), behind).eval()
        x = torch.randn(40, 4)
        theirs.stem.bias.data.fill_(1)
    ours = copy.deepcopy(theirs)
    ours.layer = binary(ours.layer)
    return theirs, ours.eval(), x


def fitted(
    theirs: nn.Module, ours: nn.Module, x: Tensor, head: bool = False, watch: Watch | None = None, **how: Any
) -> tuple[Settled, list[Tensor]]:
    """(what was set, what the binary model gave in that very pass)."""
    seen: list[Tensor] = []
    with torch.no_grad():
        targets, output = record_targets(theirs, lambda: theirs(x))
        classifiers = {"head": output} if head else {}
        found = settle(
            ours, lambda: seen.append(ours(x)), targets, Fitting(**how), classifiers, watch or Watch()
        )
    return found, seen


def value_of(model: nn.Module, x: Tensor) -> Tensor:
    """norm(layer(relu(stem(x))))."""
    with torch.no_grad():
        return model.norm(product_of(model, x))


def product_of(model: nn.Module, x: Tensor) -> Tensor:
    """layer(relu(stem(x)))."""
    with torch.no_grad():
        return model.layer(model.stem(x).relu())


@pytest.mark.parametrize("behind", [alone, added])
@pytest.mark.parametrize("how", [{}, {"signs": True}, {"fit": "variance"}])
def test_the_pass_goes_on_with_what_the_settled_model_gives(
    behind: Callable[[Tensor, Tensor], Tensor], how: dict[str, Any]
) -> None:
    theirs, ours, x = pair(behind)
    found, seen = fitted(theirs, ours, x, head=True, **how)
    with torch.no_grad():
        torch.testing.assert_close(seen[-1], ours(x), rtol=1e-5, atol=1e-5)
    assert (found.inputs, found.norms, found.fitted) == (["layer"], ["norm"], ["layer", "head"])


def test_what_stands_before_the_first_binary_layer_stays() -> None:
    theirs, ours, x = pair()
    fitted(theirs, ours, x, signs=True, head=True)
    assert torch.equal(ours.stem.weight, theirs.stem.weight) and torch.equal(ours.stem.bias, theirs.stem.bias)


def test_a_threshold_lies_halfway_from_the_mean_to_the_best_split() -> None:
    theirs, ours, _ = pair()
    # The stem copies its first input to all channels.
    for model in (theirs, ours):
        model.stem.weight.data.zero_()[:, 0] = 1
        model.stem.bias.data.zero_()
    x = torch.zeros(5, 4)
    x[:, 0] = torch.tensor([0.0, 0.0, 1.0, 9.0, 10.0])
    fitted(theirs, ours, x)
    # The mean is 4, and the best split 5.
    torch.testing.assert_close(ours.layer.input_binarizer.tau.detach(), torch.full((6,), 4.5))


def test_a_norm_takes_the_statistics_of_what_it_reads() -> None:
    theirs, ours, x = pair()
    fitted(theirs, ours, x)
    z = product_of(ours, x)
    torch.testing.assert_close(ours.norm.running_mean, z.mean(0))
    torch.testing.assert_close(ours.norm.running_var, z.var(0))


def test_alone_the_norm_comes_nearest_to_the_float_norm() -> None:
    theirs, ours, x = pair()
    fitted(theirs, ours, x)
    y, t = value_of(ours, x), value_of(theirs, x)
    torch.testing.assert_close((y - t).mean(0), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(((y - t) * y).mean(0), torch.zeros(6), rtol=0, atol=1e-5)


def test_where_the_float_model_adds_half_of_the_residuals_error_is_made_good() -> None:
    theirs, ours, x = pair(added)
    ours.behind = one_more
    fitted(theirs, ours, x)
    y, t = value_of(ours, x), value_of(theirs, x)
    torch.testing.assert_close((y - t).mean(0), torch.full((6,), -0.5), rtol=0, atol=1e-4)


def test_a_layer_of_real_inputs_makes_all_of_it_good() -> None:
    theirs, ours, x = pair(added)
    ours.layer = BinaryLinear.from_float(copy.deepcopy(theirs.layer), weight_binarizer=ScaledSign()).eval()
    ours.behind = one_more
    fitted(theirs, ours, x)
    y, t = value_of(ours, x), value_of(theirs, x)
    torch.testing.assert_close((y - t).mean(0), torch.full((6,), -1.0), rtol=0, atol=1e-4)


def test_a_shared_layer_and_norm_keep_scale_and_shift() -> None:
    theirs, ours, x = pair()
    for model in (theirs, ours):
        layer, norm = model.layer, model.norm
        model.behind = lambda y, x, layer=layer, norm=norm: norm(layer(y))
    before = {name: value.clone() for name, value in ours.norm.named_parameters()}
    found, _ = fitted(theirs, ours, x)
    assert all(torch.equal(before[name], value) for name, value in ours.norm.named_parameters())
    # Its statistics are those of all calls, and taken at the end.
    assert (found.inputs, found.norms, found.fitted) == (["layer"], [], [])


def test_a_layer_without_a_counterpart_gets_thresholds_and_statistics_alone() -> None:
    _, ours, x = pair()
    weight = ours.layer.weight.detach().clone()
    with torch.no_grad():
        found = settle(ours, lambda: ours(x), {}, Fitting(signs=True), {}, Watch())
    assert (found.inputs, found.norms, found.fitted, found.flipped) == (["layer"], ["norm"], [], {})
    assert torch.equal(ours.layer.weight, weight) and bool((ours.norm.weight == 1).all())
    torch.testing.assert_close(ours.norm.running_mean, product_of(ours, x).mean(0))


def test_beside_a_norm_without_scale_and_shift_the_weight_takes_the_scale() -> None:
    theirs, ours, x = pair(norm=nn.BatchNorm1d(6, affine=False))
    found, _ = fitted(theirs, ours, x)
    y, t = (value - value.mean(0) for value in (value_of(ours, x), value_of(theirs, x)))
    torch.testing.assert_close((y * t).mean(0) / (y * y).mean(0), torch.ones(6), rtol=1e-4, atol=1e-4)
    assert (found.norms, found.fitted) == (["norm"], ["layer"])


def test_the_pass_goes_on_with_a_float_layer_whose_norm_has_no_scale() -> None:
    theirs, ours, x = pair()
    for model in (theirs, ours):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            last = nn.Sequential(nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6, affine=False)).eval()
        model.last = last
        model.behind = lambda y, x, last=last: last(y.relu())
    found, seen = fitted(theirs, ours, x)
    assert found.fitted == ["layer", "last.0"]
    with torch.no_grad():
        torch.testing.assert_close(seen[-1], ours(x), rtol=1e-5, atol=1e-5)


def test_searched_signs_are_counted() -> None:
    theirs, ours, x = pair()
    before = ours.layer.weight.detach().sign()
    found, _ = fitted(theirs, ours, x, signs=True)
    changed = int((ours.layer.weight.detach().sign() != before).sum())
    assert changed and found.flipped == {"layer": (changed, 36)}


def test_steps_tell_the_error_before_and_after() -> None:
    theirs, ours, x = pair()
    told: list[tuple[str, int, int]] = []
    found, _ = fitted(theirs, ours, x, watch=Watch(lambda *now: told.append(now)), steps=Steps(40))
    ((name, (before, after)),) = found.errors.items()
    assert name == "layer" and after < before and told == [("layer", 1, 1)]
    # The statistics are those of what the norm reads after the steps.
    torch.testing.assert_close(ours.norm.running_mean, product_of(ours, x).mean(0))


def test_a_nonlinearity_that_stands_for_a_relu_begins_as_one() -> None:
    theirs, ours, x = pair()
    act = RPReLU(6, channel_dim=-1)
    ours.act, ours.behind = act, lambda y, x: act(y)
    fitted(theirs, ours, x)
    values = torch.tensor([[-2.0], [0.0], [3.0]]).expand(3, 6)
    with torch.no_grad():
        assert torch.equal(act(values), values.relu())


def test_the_head_is_refitted_only_behind_a_binary_layer() -> None:
    theirs, ours, x = pair()
    ours.layer = copy.deepcopy(theirs.layer)
    found, seen = fitted(theirs, ours, x, head=True)
    with torch.no_grad():
        assert found == Settled() and torch.equal(seen[-1], theirs(x))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))


def test_a_pass_that_fails_leaves_no_hook_behind() -> None:
    theirs, ours, x = pair()

    def fail(y: Tensor, x: Tensor) -> Tensor:
        raise ValueError("stopped")

    with torch.no_grad():
        targets, _ = record_targets(theirs, lambda: theirs(x))
        ours.behind = fail
        with pytest.raises(ValueError, match="stopped"):
            settle(ours, lambda: ours(x), targets, Fitting(), {}, Watch())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in ours.modules())
