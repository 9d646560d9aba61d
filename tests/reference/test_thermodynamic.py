"""Thermodynamic integration judged by enumeration, by derivatives of enumerated marginals, and by hand.

How the estimate and its standard error do on many machines is the subject of ``test_log_partition_study``.
"""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from reference import thermodynamic
from reference.partition import fitted_base
from reference.thermodynamic import clenshaw_curtis, slopes, thermodynamic_estimate
from reference.vocabulary import RBM, DomainError, ShapeError


def states(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def exponents(rbm):
    """-E of every pair of states, (2**N1, 2**N2)."""
    s1, s2 = states(rbm.n1), states(rbm.n2)
    return (s1 @ rbm.a1)[:, None] + s2 @ rbm.a2 + s1 @ rbm.W @ s2.T


def between(rbm, base, b):
    """The machine at b, from its definition: energies are mixed, state by state."""
    return (1 - b) * exponents(base) + b * exponents(rbm)


def machines():
    """Weakly and strongly coupled machines with fair and with fitted bases."""
    rng = np.random.default_rng(0)
    for scale in (0.3, 1.0, 3.0):
        n1, n2 = rng.integers(2, 6, size=2)
        W = scale * rng.normal(size=(n1, n2))
        rbm = RBM(rng.normal(size=n1) - W.sum(axis=1) / 2, 2 * rng.normal(size=n2) - W.sum(axis=0) / 2, W)
        yield rbm, fitted_base(np.full(n1, 0.5), np.full(n2, 0.5))
        yield rbm, fitted_base(rng.uniform(size=n1), rng.uniform(size=n2))


def log_sum(values):
    return np.logaddexp.reduce(values, axis=None)


# ---- quadrature


def test_the_smallest_rules_by_hand():
    simpson = clenshaw_curtis(3)
    np.testing.assert_allclose(simpson.nodes, [0, 1 / 2, 1], atol=1e-16)
    np.testing.assert_allclose(clenshaw_curtis(2).weights, [1 / 2, 1 / 2], rtol=1e-15)  # the trapezoid
    np.testing.assert_allclose(simpson.weights, [1 / 6, 4 / 6, 1 / 6], rtol=1e-14)
    np.testing.assert_allclose(clenshaw_curtis(5).weights, np.array([1, 8, 12, 8, 1]) / 30, rtol=1e-14)


@pytest.mark.parametrize("n_nodes", [3, 5, 9, 17, 33, 65])
def test_quadrature_is_exact_for_polynomials_and_nested(n_nodes):
    nodes, weights = clenshaw_curtis(n_nodes)
    assert (nodes[0], nodes[-1]) == (0, 1)
    assert (np.diff(nodes) > 0).all()
    assert (weights > 0).all()
    for degree in range(n_nodes):
        assert weights @ nodes**degree == pytest.approx(float(Fraction(1, degree + 1)), rel=1e-13)
    # One degree more, less by symmetry the odd one, is not integrated: the degree claimed is the degree there is.
    if n_nodes < 9:  # the error falls below rounding for the others
        assert abs(weights @ nodes ** (n_nodes + 1) - 1 / (n_nodes + 2)) > 1e-6
    if n_nodes > 3:
        np.testing.assert_allclose(nodes[::2], clenshaw_curtis(n_nodes // 2 + 1).nodes, atol=1e-15)


# ---- the integrand


def test_slopes_are_derivatives_of_enumerated_marginals():
    rng = np.random.default_rng(1)
    for rbm, base in machines():
        z1 = states(rbm.n1)
        b, step = rng.uniform(0.1, 0.9, size=len(z1)), 1e-5
        for row, (at, slope) in enumerate(zip(b, slopes(rbm, base, b, z1), strict=True)):
            # Central difference; relative error step**2 and rounding 1e-15 / step: both below 1e-8 of the curvature.
            up, down = (log_sum(between(rbm, base, at + sign * step)[row]) for sign in (1, -1))
            assert slope == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-6)


def test_slopes_by_hand_at_the_ends():
    rbm, base = RBM([1.0], [2.0], [[3.0]]), RBM([0.5], [0.0], [[0.0]])
    # b = 0: z2 is a fair coin. z1 = 0: 1/2 * 2; z1 = 1: 1/2 + 1/2 * 5.  b = 1, z1 = 0: 2 sigmoid(2).
    found = slopes(rbm, base, [0, 0, 1], [[0], [1], [0]])
    np.testing.assert_allclose(found, [1.0, 3.0, 2 / (1 + np.exp(-2.0))], rtol=1e-15)


def exact_integral(rbm, base, n_nodes):
    """log Z of the base plus the quadrature of exact expectations of ``slopes``."""
    nodes, weights = clenshaw_curtis(n_nodes)
    z1, mean_slopes = states(rbm.n1), []
    for b in nodes:
        marginal = np.logaddexp.reduce(between(rbm, base, b), axis=1)
        prob1 = np.exp(marginal - log_sum(marginal))
        mean_slopes.append(prob1 @ slopes(rbm, base, np.full(len(z1), b), z1))
    return log_sum(exponents(base)) + weights @ mean_slopes


def test_with_exact_expectations_the_integral_is_log_z():
    for rbm, base in machines():
        truth = log_sum(exponents(rbm))
        assert exact_integral(rbm, base, 33) == pytest.approx(truth, abs=1e-8)
        coarse, fine = (abs(exact_integral(rbm, base, n) - truth) for n in (5, 9))
        assert fine < max(coarse / 3, 1e-8)


def test_the_exact_integral_catches_a_wrong_slope(monkeypatch):
    rbm, base = list(machines())[3]
    truth = log_sum(exponents(rbm))
    right = slopes
    wrongs = [
        lambda m, o, b, z1: right(m, RBM(0 * o.a1, 0 * o.a2, o.W), b, z1),  # the base forgotten in the slope
        lambda m, o, b, z1: right(m, o, np.ones_like(b), z1),  # the second side at b = 1 throughout
        lambda m, o, b, z1: right(m, o, b, z1) - z1 @ (m.a1 - o.a1),  # a term missing
    ]
    for wrong in wrongs:
        monkeypatch.setitem(exact_integral.__globals__, "slopes", wrong)
        assert abs(exact_integral(rbm, base, 33) - truth) > 0.01


# ---- the estimate


def test_a_machine_that_is_its_base_needs_no_integral():
    rng = np.random.default_rng(2)
    base = RBM(3 * rng.normal(size=6), 3 * rng.normal(size=4), np.zeros((6, 4)))
    result = thermodynamic_estimate(base, base, n_chains=3, n_rounds=2, seed=0, burn_in=1, n_rungs=5)
    assert result.log_partition == pytest.approx(np.log1p(np.exp(base.a1)).sum() + np.log1p(np.exp(base.a2)).sum())
    assert (result.standard_error, result.quadrature_error) == (0, 0)
    assert (result.n_chains, result.effective_sample_size) == (3, 3)


def test_estimate_by_hand(monkeypatch):
    # Chains whose slopes are b**4 and 3 b**4: integrals 1/5 and 3/5, mean 2/5, sd sqrt(2)/5, standard error 1/5.
    # Every other of five nodes is Simpson's rule: (4 / 16 + 1) / 6 = 5/24 for b**4, twice that on average.
    monkeypatch.setattr(thermodynamic, "_mean_slopes", lambda m, o, b, *_: np.outer(b**4, [1.0, 3.0]))
    rbm = RBM([0.0], [0.0], [[1.0]])
    base = RBM([0.0], [0.0], [[0.0]])
    result = thermodynamic_estimate(rbm, base, n_chains=2, n_rounds=1, seed=0, n_rungs=5)
    assert result.log_partition == pytest.approx(2 * np.log(2) + 2 / 5, rel=1e-14)
    assert result.standard_error == pytest.approx(1 / 5, rel=1e-13)
    assert result.quadrature_error == pytest.approx(2 * (5 / 24 - 1 / 5), rel=1e-12)


def strong_machine():
    """Far modes of unequal weight, and a base that is not fair."""
    rng = np.random.default_rng(5)
    W = 4 * rng.normal(size=(5, 5))
    rbm = RBM(rng.normal(size=5) - W.sum(axis=1) / 2, rng.normal(size=5) - W.sum(axis=0) / 2, W)
    return rbm, RBM(0.5 * rng.normal(size=5), 0.5 * rng.normal(size=5), np.zeros((5, 5)))


def errors_off(result, rbm):
    return abs(result.log_partition - log_sum(exponents(rbm))) / result.standard_error


def test_states_at_every_rung_have_their_distribution(monkeypatch):
    """z1 of 512 independent chains at five rungs, by chi-square: a right run fails with probability 5e-6.

    States that are expected less than 5 times are pooled.
    """
    rbm, base = strong_machine()
    seen, n_chains = [], 512

    def recorded(m, o, b, z1):
        seen.append((b, z1))
        return slopes(m, o, b, z1)

    monkeypatch.setattr(thermodynamic, "slopes", recorded)
    thermodynamic_estimate(rbm, base, n_chains, n_rounds=1, seed=1, burn_in=60, n_rungs=17)
    ((b, z1),) = seen

    def p_value(rung, at):
        rows = slice(rung * n_chains, (rung + 1) * n_chains)
        assert (b[rows] == clenshaw_curtis(17).nodes[rung]).all()
        marginal = np.logaddexp.reduce(between(rbm, base, at), axis=1)
        expected = n_chains * np.exp(marginal - log_sum(marginal))
        counts = np.bincount((z1[rows] @ 2 ** np.arange(4, -1, -1)).astype(int), minlength=32)
        pool = np.where(expected < 5, 0, 1 + np.arange(32))
        pooled = np.bincount(pool, counts), np.bincount(pool, expected)
        observed, expected = (sums[np.bincount(pool, minlength=len(sums)) > 0] for sums in pooled)
        return stats.chisquare(observed, expected).pvalue

    for rung in (0, 4, 8, 12, 16):
        assert p_value(rung, clenshaw_curtis(17).nodes[rung]) > 1e-6
    assert p_value(4, at=0.5) < 1e-6  # 0.15 is told from 0.5, and 1 from 0.7
    assert p_value(16, at=0.7) < 1e-6


def test_what_goes_wrong_shows(monkeypatch):
    """4 standard errors are left with probability 6.3e-5 (Gaussian) by the right run, and surely by the wrong ones."""
    rbm, base = strong_machine()
    settings = {"n_chains": 64, "n_rounds": 30, "seed": 0, "n_rungs": 17}
    assert errors_off(thermodynamic_estimate(rbm, base, burn_in=60, **settings), rbm) < 4
    # Chains that have just left the base.
    assert errors_off(thermodynamic_estimate(rbm, base, burn_in=0, **settings | {"n_rounds": 1}), rbm) > 4
    # The base's log Z forgotten, and conditionals that are too certain.
    with monkeypatch.context() as patch:
        patch.setattr(thermodynamic, "independent_log_partition", lambda _: 0.0)
        assert errors_off(thermodynamic_estimate(rbm, base, burn_in=60, **settings), rbm) > 4
    monkeypatch.setattr(thermodynamic, "sigmoid", lambda logits: expit(1.3 * logits))
    assert errors_off(thermodynamic_estimate(rbm, base, burn_in=60, **settings), rbm) > 4


def test_the_estimate_is_a_function_of_the_seed():
    rbm, base = strong_machine()
    settings = {"n_chains": 2, "n_rounds": 1, "burn_in": 1, "n_rungs": 3}
    first, again, other = (thermodynamic_estimate(rbm, base, seed=seed, **settings) for seed in (3, 3, 4))
    assert first == again
    assert first.log_partition != other.log_partition


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"base": RBM([0.0], [0.0], [[0.5]])}, DomainError, r"base\.W must be 0, .*; entry \(0, 0\) is 0\.5"),
        ({"base": RBM([0.0], [0.0, 0.0], [[0.0, 0.0]])}, ShapeError, r"base must have as many units .* got \(1, 2\)"),
        ({"n_chains": 1}, DomainError, "n_chains must be a whole number of at least 2; got 1"),
        ({"n_rounds": 0}, DomainError, "n_rounds must be a whole number of at least 1; got 0"),
        ({"burn_in": -1}, DomainError, "burn_in must be a whole number of at least 0; got -1"),
        ({"burn_in": 0.5}, DomainError, r"burn_in must be a whole number of at least 0; got 0\.5"),
        ({"n_rungs": 4}, DomainError, "n_rungs must be odd, so that every other rung is a quadrature too; got 4"),
        ({"n_rungs": 1}, DomainError, "n_rungs must be a whole number of at least 3; got 1"),
        ({"seed": -1}, DomainError, "seed must lie in"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
    ],
)
def test_estimate_refuses(changes, error, match):
    rbm, base = RBM([0.0], [0.0], [[1.0]]), RBM([0.0], [0.0], [[0.0]])
    arguments = {"rbm": rbm, "base": base, "n_chains": 2, "n_rounds": 1, "seed": 0, "n_rungs": 3} | changes
    with pytest.raises(error, match=match):
        thermodynamic_estimate(**arguments)


def test_quadrature_refuses():
    with pytest.raises(DomainError, match="n_nodes must be a whole number of at least 2; got 1"):
        clenshaw_curtis(1)


def test_slopes_refuse():
    rbm, base = RBM([0.0], [0.0], [[1.0]]), RBM([0.0], [0.0], [[0.0]])
    with pytest.raises(ShapeError, match=r"inv_temps must be \(2,\), one for each row of z1; got \(1,\)"):
        slopes(rbm, base, [0.5], [[0], [1]])
    with pytest.raises(DomainError, match=r"inv_temps must lie in \[0, 1\]; entry 1 is nan"):
        slopes(rbm, base, [0.5, np.nan], [[0], [1]])
    with pytest.raises(DomainError, match=r"z1 must be 0 or 1; entry \(0, 0\) is 0\.5"):
        slopes(rbm, base, [0.5], [[0.5]])
    with pytest.raises(DomainError, match=r"base\.W must be 0"):
        slopes(rbm, rbm, [0.5], [[0]])
    with pytest.raises(TypeError, match="inv_temps must be float32 or float64"):
        slopes(rbm, base, np.array([0.5], np.float16), [[0]])
