"""The KL judged by its definition: every z enumerated, every zeta a later group has seen integrated by quadrature.

The smoothing is written out here by hand (two exponentials on [0, 1]), and so is the energy; nothing of the reference
is used in the judge.
"""

import itertools

import numpy as np
import pytest

from reference.boltzmann_kl import cross_entropy, group_slices, kl
from reference.vocabulary import RBM, DomainError, ShapeError

BETA = 3.0


class Posterior:
    """Groups of equal size; the logits of group g are an affine function of all zeta before it."""

    def __init__(self, n_units, n_groups, rng):
        self.n_units, self.size = n_units, n_units // n_groups
        group = np.arange(n_units) // self.size
        earlier = group[:, None] < group[None, :]
        self.offset = rng.normal(size=n_units)
        self.matrix = 2.0 * rng.normal(size=(n_units, n_units)) * earlier

    def logits(self, zeta):
        return self.offset + zeta @ self.matrix


def smoothing_density(zeta, z):
    """r(zeta | z): exponentials that decay from 0 (z = 0) or from 1 (z = 1), normalised on [0, 1]."""
    return BETA * np.exp(-BETA * np.where(z == 1, 1 - zeta, zeta)) / (1 - np.exp(-BETA))


def all_states(n):
    return np.array(list(itertools.product([0, 1], repeat=n)), dtype=float)


def energies(rbm, states):
    z1, z2 = states[:, : rbm.n1], states[:, rbm.n1 :]
    coupling = np.einsum("bi,ij,bj->b", z1, rbm.W, z2)
    return -np.einsum("i,bi->b", rbm.a1, z1) - np.einsum("j,bj->b", rbm.a2, z2) - coupling


def quadrature(posterior, n_nodes):
    """Grid over the zeta of all groups but the last, whose zeta nobody sees; returns zeta (P, N) and weights (P,)."""
    seen = posterior.n_units - posterior.size
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    grid = list(itertools.product((nodes + 1) / 2, repeat=seen))
    zeta = np.zeros((len(grid), posterior.n_units))
    zeta[:, :seen] = np.array(grid).reshape(len(grid), seen)
    product = np.array([np.prod(w) for w in itertools.product(weights / 2, repeat=seen)])
    return zeta, product, seen


def density_and_kl(rbm, posterior, n_nodes):
    """Grid, q(zeta) times quadrature weight on it, and KL(q(z, zeta) || p(z) r(zeta | z)) by definition."""
    zeta, weights, seen = quadrature(posterior, n_nodes)
    states = all_states(posterior.n_units)
    log_z = np.log(np.exp(-energies(rbm, states)).sum())
    prob_one = 1 / (1 + np.exp(-posterior.logits(zeta)))
    density, divergence = np.zeros(len(zeta)), 0.0
    for z, e in zip(states, energies(rbm, states), strict=True):
        q = np.where(z == 1, prob_one, 1 - prob_one).prod(axis=1)
        mass = weights * q * smoothing_density(zeta, z)[:, :seen].prod(axis=1)
        divergence += (mass * (np.log(q) + e + log_z)).sum()  # r cancels between q and p
        density += mass
    return zeta, density, divergence, log_z


def random_machine(n1, n2, rng, scale=1.5):
    return RBM(scale * rng.normal(size=n1), scale * rng.normal(size=n2), scale * rng.normal(size=(n1, n2)))


def nu_of(posterior, zeta):
    """q(z = 1 | zeta) by Bayes' rule, from the two densities."""
    prob_one = 1 / (1 + np.exp(-posterior.logits(zeta)))
    one = prob_one * smoothing_density(zeta, np.ones(1))
    return one / (one + (1 - prob_one) * smoothing_density(zeta, np.zeros(1)))


CASES = [  # N1, N2, groups, nodes per axis
    (2, 2, 1, 1),
    (1, 1, 2, 30),
    (2, 2, 2, 24),
    (2, 2, 4, 20),
    (1, 2, 3, 24),  # groups of one unit: two of them on the second side
    (3, 3, 3, 11),  # the middle group straddles the sides
    (1, 3, 2, 24),  # a group straddles because the sides are unequal
    (3, 3, 2, 18),
]


@pytest.mark.parametrize(("n1", "n2", "n_groups", "n_nodes"), CASES)
def test_mean_over_zeta_is_the_kl(n1, n2, n_groups, n_nodes):
    rng = np.random.default_rng([n1, n2, n_groups])
    rbm, posterior = random_machine(n1, n2, rng), Posterior(n1 + n2, n_groups, rng)
    zeta, density, truth, log_z = density_and_kl(rbm, posterior, n_nodes)
    assert density.sum() == pytest.approx(1, abs=1e-8)  # the judge's own check: q(zeta) integrates to one
    rows = kl(rbm, posterior.logits(zeta), nu_of(posterior, zeta), n_groups, log_z)
    assert density @ rows == pytest.approx(truth, abs=1e-7)
    assert truth > 0.1


@pytest.mark.parametrize(("n1", "n2", "n_groups", "n_nodes"), [case for case in CASES if case[2] > 1])
def test_the_judge_catches_mean_field(n1, n2, n_groups, n_nodes):
    rng = np.random.default_rng([n1, n2, n_groups])
    rbm, posterior = random_machine(n1, n2, rng), Posterior(n1 + n2, n_groups, rng)
    zeta, density, truth, log_z = density_and_kl(rbm, posterior, n_nodes)
    logits, nu = posterior.logits(zeta), nu_of(posterior, zeta)
    mean_field = kl(rbm, logits, 1 / (1 + np.exp(-logits)), n_groups, log_z)
    assert abs(density @ mean_field - truth) > 1e-3
    # nu within a group too, as if every unit were a group of its own: right on average, but never with less spread.
    rows, noisier = kl(rbm, logits, nu, n_groups, log_z), kl(rbm, logits, nu, n1 + n2, log_z)
    assert density @ noisier == pytest.approx(truth, abs=1e-7)
    if any(members.start < n1 < members.stop for members in group_slices(n1 + n2, n_groups)):
        assert density @ (noisier - rows) ** 2 > 1e-3


def test_one_draw_of_zeta_per_row_is_unbiased():
    """Monte Carlo over zeta as training does it: z by a coin, then zeta by the inverse of its exponential's cdf.

    Each row is compared with log q(z | zeta) - log p(z) at the same draw, so the mean difference is 0. It leaves 5.5
    standard errors with probability 4e-8; mean field, the same test finds 20 or more away.
    """
    n1, n2, n_groups, n_draws = 4, 4, 2, 100_000
    rng = np.random.default_rng(8)
    rbm, posterior = random_machine(n1, n2, rng, scale=1.0), Posterior(n1 + n2, n_groups, rng)
    zeta, z = np.zeros((2, n_draws, n1 + n2))
    log_q = np.zeros(n_draws)
    for g in range(n_groups):
        units = slice(g * posterior.size, (g + 1) * posterior.size)
        prob_one = 1 / (1 + np.exp(-posterior.logits(zeta)[:, units]))
        z[:, units] = rng.uniform(size=prob_one.shape) < prob_one
        log_q += np.log(np.where(z[:, units] == 1, prob_one, 1 - prob_one)).sum(axis=1)
        decay = -np.log1p(-rng.uniform(size=prob_one.shape) * (1 - np.exp(-BETA))) / BETA
        zeta[:, units] = np.where(z[:, units] == 1, 1 - decay, decay)
    log_z = np.log(np.exp(-energies(rbm, all_states(n1 + n2))).sum())
    sampled = log_q + energies(rbm, z) + log_z

    def distance(nu):
        difference = kl(rbm, posterior.logits(zeta), nu, n_groups, log_z) - sampled
        return abs(difference.mean()) / (difference.std() / np.sqrt(n_draws))

    assert distance(nu_of(posterior, zeta)) < 5.5
    assert distance(1 / (1 + np.exp(-posterior.logits(zeta)))) > 20


def test_by_hand_and_where_nu_enters():
    rbm = RBM([1.0, 2.0], [3.0, 4.0], [[1.0, 10.0], [100.0, 1000.0]])
    mu, nu = np.array([[0.5, 0.25, 1.0, 0.5]]), np.array([[0.0, 1.0, 0.125, 0.75]])
    biases = 0.5 + 0.5 + 3.0 + 2.0
    # One group: mu everywhere. 0.5 (1 + 5) + 0.25 (100 + 500) = 153.
    assert cross_entropy(rbm, mu, nu, 1)[0] == -(biases + 153.0)
    # Two or four groups: nu of the first side. 0 + 1 (100 + 500) = 600.
    assert cross_entropy(rbm, mu, nu, 2)[0] == -(biases + 600.0)
    assert cross_entropy(rbm, mu, nu, 4)[0] == -(biases + 600.0)
    # The nu of the second side is never needed.
    nu[:, 2:] = 0.3
    assert cross_entropy(rbm, mu, nu, 2)[0] == -(biases + 600.0)


def test_by_hand_where_a_group_straddles_the_sides():
    # Three groups of two: {1, 2}, {3 | 1}, {2, 3}. Only unit 3 of the first and unit 1 of the second share one.
    rbm = RBM(np.zeros(3), np.zeros(3), [[0, 0, 0], [1, 0, 0], [10, 100, 1000]])
    mu = np.array([[0.0, 0.0, 0.5, 1.0, 0.5, 0.25]])
    nu = np.array([[0.0, 0.25, 0.125, 0.0, 0.0, 0.0]])
    # nu_2 W mu_1' = 0.25; mu_3 10 mu_1' = 5; nu_3 (100 / 2 + 1000 / 4) = 37.5.
    assert cross_entropy(rbm, mu, nu, 3)[0] == -(0.25 + 5.0 + 37.5)


def test_certain_units_have_a_finite_kl():
    rbm = RBM([0.5], [-1.0], [[2.0]])
    log_z = np.log(1 + np.exp(0.5) + np.exp(-1.0) + np.exp(1.5))
    logits = np.array([[np.inf, np.inf], [-np.inf, np.inf], [-np.inf, -np.inf]])
    nu = (logits > 0).astype(float)
    np.testing.assert_allclose(kl(rbm, logits, nu, 2, log_z), log_z - np.array([1.5, -1.0, 0.0]), rtol=1e-15)


def test_groups_are_equal_and_in_order():
    assert group_slices(6, 3) == (slice(0, 2), slice(2, 4), slice(4, 6))
    assert group_slices(5, 1) == (slice(0, 5),)
    with pytest.raises(DomainError, match="n_groups must divide the number of units; 200 units do not make 3"):
        group_slices(200, 3)
    with pytest.raises(DomainError, match="n_groups must be a whole number of at least 1; got 0"):
        group_slices(4, 0)
    with pytest.raises(DomainError, match="n_units must be a whole number"):
        group_slices(-4, 2)


def test_arguments_that_do_not_fit_are_refused():
    rbm = RBM(np.zeros(2), np.zeros(2), np.zeros((2, 2)))
    good = np.full((3, 4), 0.5)
    bad = good.copy()
    bad[1, 2] = 1.5
    with pytest.raises(DomainError, match=r"mu must lie in \[0, 1\]; entry \(1, 2\) is 1\.5"):
        cross_entropy(rbm, bad, good, 2)
    with pytest.raises(DomainError, match=r"nu must lie in \[0, 1\]; entry \(1, 2\) is 1\.5"):
        kl(rbm, good, bad, 2, 0.0)
    bad[1, 2] = np.nan
    with pytest.raises(DomainError, match=r"mu must lie in \[0, 1\]; entry \(1, 2\) is nan"):
        cross_entropy(rbm, bad, good, 2)
    with pytest.raises(DomainError, match=r"logit_q must not be NaN; entry \(1, 2\) is nan"):
        kl(rbm, bad, good, 2, 0.0)
    with pytest.raises(DomainError, match="log_partition must be finite; it is nan"):
        kl(rbm, good, good, 2, np.nan)
    with pytest.raises(ShapeError, match=r"log_partition must be one number for all rows; got \(3,\)"):
        kl(rbm, good, good, 2, np.zeros(3))
    with pytest.raises(ShapeError, match=r"mu must be \(B, 4\), one row per sample; got \(3, 3\)"):
        cross_entropy(rbm, good[:, :3], good, 2)
    with pytest.raises(ShapeError, match=r"nu must be \(B, 4\)"):
        kl(rbm, good, good[0], 2, 0.0)
    with pytest.raises(ShapeError, match=r"mu \(3, 4\), nu \(2, 4\)"):
        cross_entropy(rbm, good, good[:2], 2)
    with pytest.raises(DomainError, match="do not make 3 equal groups"):
        cross_entropy(rbm, good, good, 3)
    with pytest.raises(TypeError, match="nu must be float32 or float64"):
        cross_entropy(rbm, good, good.astype(np.float16), 2)
