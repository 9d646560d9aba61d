"""Bounds on log p(x) in a model of four latent states, where every expectation is a finite sum."""

import itertools
from math import factorial, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.bound import Likelihood, StreamingLogMeanExp, Terms, check_kl_weight, likelihood, terms
from reference.vocabulary import DomainError, ShapeError

# One image x and two binary units: p(z), p(x|z) and a posterior q(z|x) that is factorial, and so not the true one.
PRIOR = np.array([0.4, 0.1, 0.3, 0.2])
LIKELIHOOD = np.array([0.9, 0.05, 0.2, 0.6])
POSTERIOR = np.array([0.3 * 0.8, 0.3 * 0.2, 0.7 * 0.8, 0.7 * 0.2])
WEIGHTS = PRIOR * LIKELIHOOD / POSTERIOR
MARGINAL = float(PRIOR @ LIKELIHOOD)


def expected_bound(n_importance):
    """E[log mean weight] over all multisets of K draws, each with its multinomial probability; and E[mean weight]."""
    counts = np.array([c for c in itertools.product(range(n_importance + 1), repeat=4) if sum(c) == n_importance])
    ways = [factorial(n_importance) / prod(factorial(c) for c in row) for row in counts.tolist()]
    probability = np.array(ways, dtype=float) * np.prod(POSTERIOR**counts, axis=1)
    assert probability.sum() == pytest.approx(1, rel=1e-12)
    drawn = np.array([np.repeat(np.arange(4), row) for row in counts])
    result = likelihood(np.log(PRIOR * LIKELIHOOD)[drawn], np.log(POSTERIOR)[drawn])
    return (
        float(probability @ result.log_marginal),
        float(probability @ np.exp(result.log_marginal)),
        result,
        probability,
    )


# ---- the ELBO -------------------------------------------------------------------------------------------------------


def test_terms_are_the_elbo():
    log_likelihood = POSTERIOR @ np.log(LIKELIHOOD)
    kl = POSTERIOR @ np.log(POSTERIOR / PRIOR)
    both = terms([log_likelihood], [kl])
    assert both.elbo == pytest.approx(POSTERIOR @ np.log(WEIGHTS), rel=1e-14)
    assert both.elbo < np.log(MARGINAL)
    assert both.loss(1.0) == -both.elbo
    assert both.loss(0.0) == -log_likelihood
    true_posterior = PRIOR * LIKELIHOOD / MARGINAL  # makes the bound tight
    tight = terms([true_posterior @ np.log(LIKELIHOOD)], [true_posterior @ np.log(true_posterior / PRIOR)])
    assert tight.elbo == pytest.approx(np.log(MARGINAL), rel=1e-14)


def test_terms_by_hand():
    assert terms([-1.0, -3.0], [0.5, -0.25]) == Terms(-2.0, 0.125)
    assert Terms(-2.0, 0.5).loss(0.25) == 2.125
    assert Terms(-2.0, 0.5).elbo == -2.5
    single = terms(np.full(10, 0.1, np.float32), np.full(10, 0.1, np.float32))
    assert single.kl == pytest.approx(float(np.float32(0.1)), rel=1e-15)  # summed in double


# ---- the importance-weighted bound ----------------------------------------------------------------------------------


def test_one_draw_is_the_elbo():
    bound, mean, result, probability = expected_bound(1)
    assert bound == pytest.approx(POSTERIOR @ np.log(WEIGHTS), rel=1e-14)
    assert mean == pytest.approx(MARGINAL, rel=1e-14)
    assert probability @ result.log_weight == pytest.approx(bound, rel=1e-14)
    np.testing.assert_array_equal(result.standard_error, np.inf)
    np.testing.assert_array_equal(result.effective_sample_size, 1)


def test_two_draws_by_a_double_sum():
    bound, mean, _, _ = expected_bound(2)
    pairs = [(POSTERIOR[a] * POSTERIOR[b], (WEIGHTS[a] + WEIGHTS[b]) / 2) for a in range(4) for b in range(4)]
    assert bound == pytest.approx(sum(p * np.log(w) for p, w in pairs), rel=1e-13)
    assert mean == pytest.approx(MARGINAL, rel=1e-13)


def test_more_draws_tighten_the_bound_towards_the_marginal():
    ks = (1, 2, 3, 4, 8, 16, 24)
    bounds = [expected_bound(k)[0] for k in ks]
    assert all(low < high for low, high in itertools.pairwise([*bounds, np.log(MARGINAL)]))
    # The gap is var(w) / (2 K p(x)^2) to first order: 24 draws leave a 24th of it, to a few per cent.
    first_order = (POSTERIOR @ WEIGHTS**2 / MARGINAL**2 - 1) / (2 * ks[-1])
    assert np.log(MARGINAL) - bounds[-1] == pytest.approx(first_order, rel=0.1)


def test_many_draws_lie_within_their_standard_error():
    """20,000 draws, one seed: 5 standard errors are left with probability 6e-7. Power: so is the ELBO, far away."""
    z = np.random.default_rng(0).choice(4, size=(1, 20_000), p=POSTERIOR)
    result = likelihood(np.log(PRIOR * LIKELIHOOD)[z], np.log(POSTERIOR)[z])
    error = result.log_marginal[0] - np.log(MARGINAL)
    assert abs(error) < 5 * result.standard_error[0]
    assert np.log(MARGINAL) - result.log_weight[0] > 5 * result.standard_error[0]
    # sd(w)/mean(w)/sqrt(K) and K/(1 + sd^2/mean^2), from the four states and not from the draws.
    relative = np.sqrt(POSTERIOR @ WEIGHTS**2 / MARGINAL**2 - 1)
    assert result.standard_error[0] == pytest.approx(relative / np.sqrt(20_000), rel=0.05)
    assert result.effective_sample_size[0] == pytest.approx(20_000 / (1 + relative**2), rel=0.02)


def test_numbers_worked_by_hand():
    # Weights 1, 2, 3, 6: mean 3, sample variance 14/3, so 3 -+ sqrt(14/12); (12)^2 / 50.
    result = likelihood(np.log([[1.0, 2.0, 3.0, 6.0]]), np.zeros((1, 4)))
    assert result.log_marginal[0] == pytest.approx(np.log(3.0), rel=1e-15)
    assert result.standard_error[0] == pytest.approx(np.sqrt(14 / 12) / 3, rel=1e-15)
    assert result.effective_sample_size[0] == pytest.approx(144 / 50, rel=1e-15)
    assert result.log_weight[0] == pytest.approx(np.log(36.0) / 4, rel=1e-15)
    assert result.n_importance == 4


def test_weights_of_any_size_and_weights_of_zero():
    result = likelihood([[-1e5, -1e5], [1e5, -1e5], [-np.inf, 0.0], [-np.inf, -np.inf]], np.zeros((4, 2)))
    np.testing.assert_allclose(result.log_marginal, [-1e5, 1e5 - np.log(2), -np.log(2), -np.inf], rtol=1e-15)
    np.testing.assert_array_equal(result.log_weight, [-1e5, 0, -np.inf, -np.inf])
    np.testing.assert_allclose(result.standard_error, [0, 1, 1, np.inf], rtol=1e-15)
    np.testing.assert_allclose(result.effective_sample_size, [2, 1, 1, 0], rtol=1e-15)


# ---- in pieces ------------------------------------------------------------------------------------------------------

log_weights = st.one_of(st.floats(-800, 800), st.just(-np.inf))


@given(st.lists(st.lists(log_weights, min_size=1, max_size=5), min_size=1, max_size=6))
def test_pieces_give_what_all_at_once_gives(pieces):
    stream = StreamingLogMeanExp(2)
    for piece in pieces:
        stream.add([piece, piece[::-1]])
    whole = np.array([w for piece in pieces for w in piece])
    result, expected = stream.likelihood(), likelihood(whole[None, :], np.zeros((1, len(whole))))
    np.testing.assert_array_equal(stream.result(), result.log_marginal)
    assert result.n_importance == len(whole)
    for name in ("log_marginal", "log_weight", "standard_error", "effective_sample_size"):
        # The spread of equal weights is 0 or a rounding; an ELBO near 0 is a sum of large terms.
        values = getattr(result, name)
        np.testing.assert_allclose(values, np.repeat(getattr(expected, name), 2), rtol=1e-12, atol=1e-12)
    finite = whole[whole > -np.inf]
    if finite.size:  # an independent log-mean-exp: shifted by the largest, in extended precision
        shifted = np.exp((finite - finite.max()).astype(np.longdouble))
        truth = float(finite.max() + np.log(shifted.sum() / len(whole)))
        np.testing.assert_allclose(result.log_marginal, truth, rtol=1e-14, atol=1e-13)


def test_nearly_equal_weights_keep_their_spread():
    # 1 and 1 + 1e-9, a piece each: the sum of squares less the squared sum would leave no digit of 1e-18.
    stream = StreamingLogMeanExp(1)
    for w in (0.0, 1e-9):
        stream.add([[w]])
    assert stream.likelihood().standard_error[0] == pytest.approx(0.5e-9, rel=1e-6, abs=0)


def test_what_was_added_before_a_refusal_stays():
    stream = StreamingLogMeanExp(1)
    stream.add([[0.0, 1.0]])
    before = stream.likelihood()
    with pytest.raises(DomainError):
        stream.add([[0.0, np.nan]])
    assert stream.likelihood() is not before
    np.testing.assert_array_equal(stream.result(), before.log_marginal)


def test_no_rows():
    empty = likelihood(np.zeros((0, 3)), np.zeros((0, 3)))
    assert isinstance(empty, Likelihood)
    assert empty.log_marginal.shape == empty.standard_error.shape == (0,)


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_terms_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"log_likelihood \(2,\), kl \(3,\)"):
        terms(np.zeros(2), np.zeros(3))
    with pytest.raises(ShapeError, match=r"kl must be \(B,\), one number per image and at least one; got \(2, 1\)"):
        terms(np.zeros(2), np.zeros((2, 1)))
    with pytest.raises(ShapeError, match=r"log_likelihood must be \(B,\), .* got \(0,\)"):
        terms([], [])
    with pytest.raises(DomainError, match="kl must be finite; entry 1 is inf"):
        terms([0.0, 0.0], [0.0, np.inf])
    with pytest.raises(DomainError, match="log_likelihood must be finite; entry 0 is nan"):
        terms([np.nan], [0.0])
    with pytest.raises(TypeError, match="kl must be float32 or float64 numbers; got dtype float16"):
        terms([0.0], np.zeros(1, np.float16))


@pytest.mark.parametrize("kl_weight", [-0.1, 1.1, np.nan])
def test_kl_weights_outside_the_unit_interval_are_refused(kl_weight):
    for function in (check_kl_weight, Terms(0.0, 0.0).loss):
        with pytest.raises(DomainError, match=rf"kl_weight must lie in \[0, 1\]; it is {kl_weight}"):
            function(kl_weight)
    assert check_kl_weight(1) == 1.0


def test_weights_that_do_not_fit_are_refused():
    good = np.zeros((2, 3))
    bad = good.copy()
    bad[1, 2] = np.inf
    with pytest.raises(DomainError, match=r"log_joint must be real or -inf; entry \(1, 2\) is inf"):
        likelihood(bad, good)
    with pytest.raises(DomainError, match=r"log_q must be finite; entry \(1, 2\) is -inf"):
        likelihood(good, -bad)
    with pytest.raises(ShapeError, match=r"K >= 1; got log_joint \(2, 3\), log_q \(2, 2\)"):
        likelihood(good, good[:, :2])
    with pytest.raises(ShapeError, match=r"got log_joint \(2, 0\), log_q \(2, 0\)"):
        likelihood(good[:, :0], good[:, :0])
    with pytest.raises(ShapeError, match=r"got log_joint \(3,\)"):
        likelihood(good[0], good[0])
    with pytest.raises(TypeError, match="log_q must be float32 or float64"):
        likelihood(good, good.astype(complex))

    stream = StreamingLogMeanExp(2)
    for ask in (stream.result, stream.likelihood):
        with pytest.raises(DomainError, match="log_weights must have been added before they are averaged"):
            ask()
    with pytest.raises(ShapeError, match=r"log_weights must be \(B, K\) with B = 2 and K >= 1; got \(3, 3\)"):
        stream.add(np.zeros((3, 3)))
    with pytest.raises(ShapeError, match=r"K >= 1; got \(2, 0\)"):
        stream.add(good[:, :0])
    with pytest.raises(DomainError, match=r"log_weights must be real or -inf; entry \(1, 2\) is inf"):
        stream.add(bad)
    with pytest.raises(TypeError, match="log_weights must be float32 or float64"):
        stream.add(good.astype(np.float16))
    with pytest.raises(DomainError, match="n_rows must be a whole number of at least 0; got -1"):
        StreamingLogMeanExp(-1)
