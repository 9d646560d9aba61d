"""KL balancing in torch against the reference."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference.kl_balancing
from dvaepp.kl_balancing import coefficients
from reference.vocabulary import DomainError, ShapeError

mean_kls = st.lists(st.floats(-10, 1e4, width=32), min_size=1, max_size=6)


@given(mean_kls, st.floats(0, 1))
def test_the_references(mean_kl, kl_weight):
    expected = reference.kl_balancing.coefficients([mean_kl], kl_weight)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        ours = coefficients(torch.tensor(mean_kl, dtype=dtype), kl_weight)
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.numpy(), expected, rtol=tolerance, atol=torch.finfo(dtype).tiny)


def test_numbers_worked_by_hand():
    assert coefficients(torch.tensor([2.0, 4.0, 0.0, 2.0]), 0.5).tolist() == [1, 2, 0, 1]
    assert coefficients(torch.tensor([2.0, 4.0, 0.0, 2.0]), 1.0).tolist() == [1, 1, 1, 1]
    assert coefficients(torch.tensor([-1.0, 1.0, 5.0]), 0.0).tolist() == [0, 0.5, 2.5]
    assert coefficients(torch.tensor([-1.0, 0.0]), 0.5).tolist() == [1, 1]  # nobody carries anything
    assert coefficients(torch.tensor([3e38, 3e38, 0.0]), 0.5).tolist() == [1.5, 1.5, 0]  # their sum is no float32


def test_they_are_constants_for_the_gradient():
    mean_kl = torch.tensor([1.0, 3.0], requires_grad=True)
    c = coefficients(mean_kl, 0.5)
    assert not c.requires_grad
    (0.5 * c @ mean_kl).backward()
    assert mean_kl.grad.tolist() == [0.25, 0.75]


def test_a_broken_mean_shows():
    for broken in (torch.nan, torch.inf):
        assert coefficients(torch.tensor([1.0, broken]), 0.5).isnan().any()


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(
        ShapeError, match=r"mean_kl must be \(G,\), one mean for each group, with a group; got \(2, 1\)"
    ):
        coefficients(torch.ones(2, 1), 0.5)
    with pytest.raises(ShapeError, match=r"with a group; got \(0,\)"):
        coefficients(torch.ones(0), 0.5)
    for kl_weight in (-0.1, 1.5, float("nan")):
        with pytest.raises(DomainError, match=rf"kl_weight must lie in \[0, 1\]; it is {kl_weight}"):
            coefficients(torch.ones(2), kl_weight)
