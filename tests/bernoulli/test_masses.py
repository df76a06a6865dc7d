from __future__ import annotations

import pytest
import torch

from binarize.bernoulli.masses import least_positives, leave_one_out, mass_function
from binarize.errors import UsageError

GROUPS = ("nb_N6", "nb_N5_odd", "nb_N8_half", "nb_N8_confident")


@pytest.mark.parametrize("group", GROUPS)
def test_mass_function_equals_its_vector(vectors, group):
    v, s0 = torch.tensor(vectors[group]["V"]).double(), vectors[group]["s0"]
    y = mass_function(torch.tensor(vectors[group]["V"], dtype=torch.float64))
    torch.testing.assert_close(y, torch.tensor(vectors[group]["pmf"]).double(), rtol=0, atol=1e-7)
    assert least_positives(len(v)) == s0
    assert float(y[s0:].sum()) == pytest.approx(vectors[group]["P_nonneg"], abs=1e-10)


@pytest.mark.parametrize(
    ("mode", "key"),
    [("exact", "c_exact"), ("exact", "c_recur"), ("thomas", "c_exact"), ("central3", "c_3"), ("central5", "c_5"),
     ("clt", "c_clt")],
)  # fmt: skip
@pytest.mark.parametrize("group", GROUPS)
def test_leave_one_out_masses_equal_their_vectors(vectors, group, mode, key):
    if (group, mode) == ("nb_N8_confident", "clt"):
        pytest.skip("a normal density of so small a variance is bounded here")
    found = leave_one_out(torch.tensor(vectors[group]["V"], dtype=torch.float64), mode)
    expected = torch.tensor(vectors[group][key], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("certain", [0.0, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 2, 17, 300, 2048])
def test_masses_sum_to_one(count, certain):
    generator = torch.Generator().manual_seed(7)
    v = torch.rand(2, count, generator=generator)
    v = torch.where(torch.rand(2, count, generator=generator) < certain, v.round(), v)
    total = mass_function(v).double().sum(-1)
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["exact", "thomas"])
@pytest.mark.parametrize("s0", [0, 1, 3, 5, 6])
def test_leave_one_out_is_the_mass_function_without_that_value(mode, s0):
    v = torch.tensor([0.1, 0.5, 0.9, 0.0, 1.0], dtype=torch.float64)
    expected = []
    for j in range(5):
        rest = mass_function(torch.cat((v[:j], v[j + 1 :])))
        expected.append(float(rest[s0 - 1]) if 1 <= s0 <= 5 else 0.0)
    found = leave_one_out(v, mode, s0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_central_rows_take_the_whole_system_where_it_is_no_larger():
    v = torch.tensor([0.2, 0.7, 0.6, 0.35, 0.9], dtype=torch.float64)
    torch.testing.assert_close(leave_one_out(v, "central5"), leave_one_out(v, "exact"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["exact", "thomas", "central3", "central5", "clt"])
@pytest.mark.parametrize("s0", [-40, -1, 0, 1, 4, 5, 40])
def test_thresholds_beyond_all_sums_have_no_gradient(mode, s0):
    found = leave_one_out(torch.tensor([0.3, 0.6, 0.5, 0.9], dtype=torch.float64), mode, s0)
    assert bool(found.isfinite().all())
    if not 1 <= s0 <= 4 and mode != "clt":
        assert not bool(found.any())


def test_unknown_mode_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match='did you mean "central5"'):
        leave_one_out(torch.rand(3), "central7")
