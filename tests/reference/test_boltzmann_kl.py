"""The KL judged by its definition: every z enumerated, every zeta a later group has seen integrated by quadrature.

The smoothings are written out here by hand (two exponentials on [0, 1]; a spike and one exponential), and so are the
energies; nothing of the reference is used in the judge.
"""

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.boltzmann_kl import cross_entropy, group_slices, kl, kl_with_gradients, rolfe_gradient
from reference.vocabulary import RBM, BoltzmannMachine, DomainError, ShapeError

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


def energies(machine, states):
    if isinstance(machine, BoltzmannMachine):
        pairs = list(itertools.combinations(range(machine.n), 2))
        coupling = sum((machine.J[i, j] * states[:, i] * states[:, j] for i, j in pairs), np.zeros(len(states)))
        return -np.einsum("i,bi->b", machine.a, states) - coupling
    rbm = machine
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


def density_and_kl(machine, posterior, n_nodes):
    """Grid, q(zeta) times quadrature weight on it, and KL(q(z, zeta) || p(z) r(zeta | z)) by definition."""
    zeta, weights, seen = quadrature(posterior, n_nodes)
    states = all_states(posterior.n_units)
    log_z = np.log(np.exp(-energies(machine, states)).sum())
    prob_one = 1 / (1 + np.exp(-posterior.logits(zeta)))
    density, divergence = np.zeros(len(zeta)), 0.0
    for z, e in zip(states, energies(machine, states), strict=True):
        q = np.where(z == 1, prob_one, 1 - prob_one).prod(axis=1)
        mass = weights * q * smoothing_density(zeta, z)[:, :seen].prod(axis=1)
        divergence += (mass * (np.log(q) + e + log_z)).sum()  # r cancels between q and p
        density += mass
    return zeta, density, divergence, log_z


def random_machine(n1, n2, rng, scale=1.5):
    return RBM(scale * rng.normal(size=n1), scale * rng.normal(size=n2), scale * rng.normal(size=(n1, n2)))


def general_machine(n, rng, scale=1.5):
    once = scale * np.triu(rng.normal(size=(n, n)), k=1)
    return BoltzmannMachine(scale * rng.normal(size=n), once + once.T)


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


GENERAL_CASES = [  # units, groups, nodes per axis
    (4, 1, 1),
    (2, 2, 30),
    (4, 2, 24),
    (3, 3, 24),
    (6, 3, 11),
    (4, 4, 18),
]


@pytest.mark.parametrize(("n_units", "n_groups", "n_nodes"), GENERAL_CASES)
def test_any_couplings(n_units, n_groups, n_nodes):
    """Couplings inside a group, and between groups that are not neighbours; and what the same test says of mistakes."""
    rng = np.random.default_rng([n_units, n_groups, 1])  # coupled strongly enough, in each case, for a mistake to show
    machine, posterior = general_machine(n_units, rng), Posterior(n_units, n_groups, rng)
    zeta, density, truth, log_z = density_and_kl(machine, posterior, n_nodes)
    assert density.sum() == pytest.approx(1, abs=1e-8)
    logits, nu = posterior.logits(zeta), nu_of(posterior, zeta)
    mu = 1 / (1 + np.exp(-logits))
    rows = kl(machine, logits, nu, n_groups, log_z)
    assert density @ rows == pytest.approx(truth, abs=1e-7)
    assert truth > 0.1

    mean_field = density @ kl(machine, logits, mu, n_groups, log_z)
    # The later unit's nu with the earlier one's mu: what the earlier zeta tells about its own z is lost.
    exchanged = density @ (rows - cross_entropy(machine, mu, nu, n_groups) + cross_entropy(machine, nu, mu, n_groups))
    if n_groups == 1:
        assert mean_field == pytest.approx(truth, abs=1e-12)  # exact, and no nu in it
    else:
        assert abs(mean_field - truth) > 1e-4  # a thousand times the agreement asked for above
        assert abs(exchanged - truth) > 1e-4


def test_an_rbm_and_the_same_machine_in_general_have_one_kl():
    rng = np.random.default_rng(3)
    rbm = random_machine(3, 3, rng)
    logits, nu = rng.normal(size=(4, 6)), rng.uniform(size=(4, 6))
    for n_groups in (1, 2, 3, 6):
        ours, general = (kl_with_gradients(m, logits, nu, n_groups, 1.5) for m in (rbm, rbm.general()))
        np.testing.assert_array_equal(ours.kl, general.kl)
        np.testing.assert_array_equal(ours.dkl_dlogit_q, general.dkl_dlogit_q)
        np.testing.assert_array_equal(ours.dkl_dnu, general.dkl_dnu)
        np.testing.assert_array_equal(np.hstack([ours.dkl_da1, ours.dkl_da2]), general.dkl_da)
        np.testing.assert_array_equal(ours.dkl_dW, general.dkl_dJ[:, :3, 3:])


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
    for machine in (rbm, rbm.general()):
        with pytest.raises(DomainError, match=r"logit_q must not be NaN; entry \(1, 2\) is nan"):
            kl_with_gradients(machine, bad, good, 2, 0.0)
        with pytest.raises(ShapeError, match=r"^nu must be \(B, 4\), one row per sample; got \(3, 2\)"):
            kl_with_gradients(machine, good, good[:, :2], 2, 0.0)
        with pytest.raises(ShapeError, match=r"log_partition must be one number"):
            kl_with_gradients(machine, good, good, 2, np.zeros(3))
        with pytest.raises(TypeError, match="logit_q must be float32 or float64"):
            kl_with_gradients(machine, good.astype(complex), good, 2, 0.0)


# ---- derivatives --------------------------------------------------------------------------------------------------


def central_difference(function, value, index, step):
    up, down = value.copy(), value.copy()
    up[index] += step
    down[index] -= step
    return (function(up) - function(down)) / (2 * step)


def logit_and_nu_slopes(machine, logits, nu, n_groups, unit):
    """Central differences of each row's kl in one column of the logits and of nu."""
    column = (slice(None), unit)
    of_logit = central_difference(lambda moved: kl(machine, moved, nu, n_groups, 2.0), logits, column, 1e-5)
    of_nu = central_difference(lambda moved: kl(machine, logits, moved, n_groups, 2.0), nu, column, 1e-2)
    return of_logit, of_nu


@settings(max_examples=15)
@given(st.sampled_from([(1, 1, 1), (1, 1, 2), (2, 2, 1), (2, 2, 2), (3, 3, 3), (2, 4, 2)]), st.integers(0, 1000))
def test_derivatives_for_an_rbm(sizes, seed):
    """The kl, judged above, moved one number at a time; it is linear in nu and in the parameters."""
    n1, n2, n_groups = sizes
    rng = np.random.default_rng(seed)
    rbm, logits, nu = random_machine(n1, n2, rng), rng.normal(size=(3, n1 + n2)), rng.uniform(0.1, 0.9, (3, n1 + n2))
    ours = kl_with_gradients(rbm, logits, nu, n_groups, 2.0)
    np.testing.assert_array_equal(ours.kl, kl(rbm, logits, nu, n_groups, 2.0))
    for unit in range(n1 + n2):
        of_logit, of_nu = logit_and_nu_slopes(rbm, logits, nu, n_groups, unit)
        np.testing.assert_allclose(ours.dkl_dlogit_q[:, unit], of_logit, atol=1e-8)
        np.testing.assert_allclose(ours.dkl_dnu[:, unit], of_nu, atol=1e-11)
    parameters = {"a1": rbm.a1, "a2": rbm.a2, "W": rbm.W}
    for name, value in parameters.items():
        gradient = getattr(ours, f"dkl_d{name}")
        assert gradient.shape == (3, *value.shape)

        def moved_kl(moved, name=name):
            return kl(RBM(**parameters | {name: moved}), logits, nu, n_groups, 2.0)

        for index in np.ndindex(value.shape):
            slope = central_difference(moved_kl, value, index, 1.0)
            np.testing.assert_allclose(gradient[(slice(None), *index)], slope, atol=1e-13)


@settings(max_examples=15)
@given(st.sampled_from([(1, 1), (4, 1), (4, 2), (6, 3), (4, 4)]), st.integers(0, 1000))
def test_derivatives_for_any_couplings(sizes, seed):
    n_units, n_groups = sizes
    rng = np.random.default_rng(seed)
    machine, logits, nu = (
        general_machine(n_units, rng),
        rng.normal(size=(3, n_units)),
        rng.uniform(0.1, 0.9, (3, n_units)),
    )
    ours = kl_with_gradients(machine, logits, nu, n_groups, 2.0)
    np.testing.assert_array_equal(ours.kl, kl(machine, logits, nu, n_groups, 2.0))
    for i in range(n_units):
        of_logit, of_nu = logit_and_nu_slopes(machine, logits, nu, n_groups, i)
        np.testing.assert_allclose(ours.dkl_dlogit_q[:, i], of_logit, atol=1e-8)
        np.testing.assert_allclose(ours.dkl_dnu[:, i], of_nu, atol=1e-11)
        for j in range(n_units):
            da, dJ = np.zeros(n_units), np.zeros((n_units, n_units))
            da[i] = i == j
            dJ[i, j] = dJ[j, i] = i != j
            up, down = (BoltzmannMachine(machine.a + s * da, machine.J + s * dJ) for s in (1, -1))
            slope = (kl(up, logits, nu, n_groups, 2.0) - kl(down, logits, nu, n_groups, 2.0)) / 2
            np.testing.assert_allclose(ours.dkl_da[:, i] if i == j else ours.dkl_dJ[:, i, j], slope, atol=1e-13)
    assert (np.diagonal(ours.dkl_dJ, axis1=1, axis2=2) == 0).all()


@pytest.mark.parametrize("logit", [0.0, 3.0, 40.0, 300.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_derivatives_keep_their_digits_at_large_logits(logit, sign):
    """Against 400-digit arithmetic, and relative: at 40 the textbook mu (1 - mu) is 0 already."""
    rbm, nu, logits = (
        RBM([0.5], [-1.0], [[2.0]]),
        np.array([[0.25, 0.5]]),
        np.array([[sign * logit, -sign * logit / 2]]),
    )
    ours = kl_with_gradients(rbm, logits, nu, 2, 0.0).dkl_dlogit_q[0]

    def divergence(first, second):
        mu = [1 / (1 + mpmath.exp(-x)) for x in (first, second)]
        negative_entropy = sum(m * mpmath.log(m) + (1 - m) * mpmath.log(1 - m) for m in mu)
        return negative_entropy - mpmath.mpf("0.5") * mu[0] + mu[1] - 2 * mpmath.mpf("0.25") * mu[1]

    with mpmath.workdps(400):
        point = tuple(map(mpmath.mpf, logits[0]))
        expected = [float(mpmath.diff(divergence, point, order)) for order in ((1, 0), (0, 1))]
    np.testing.assert_allclose(ours, expected, rtol=1e-14)
    assert (ours != 0).all()


def test_derivatives_of_certain_units_are_zero():
    rbm = RBM([0.5], [-1.0], [[2.0]])
    ours = kl_with_gradients(
        rbm, np.array([[np.inf, -np.inf], [-1e308, 1e308]]), np.array([[1.0, 0.0], [0.0, 1.0]]), 2, 0.0
    )
    np.testing.assert_array_equal(ours.dkl_dlogit_q, np.zeros((2, 2)))
    np.testing.assert_array_equal(ours.dkl_dnu, [[0.0, 0.0], [-2.0, 0.0]])
    np.testing.assert_array_equal(ours.dkl_dW[:, 0, 0], [0.0, 0.0])


# ---- Rolfe's gradient ---------------------------------------------------------------------------------------------


def spike_density(zeta):
    """r(zeta | 1): an exponential that rises from 0 to 1. r(zeta | 0) is a spike at 0."""
    return BETA * np.exp(BETA * zeta) / np.expm1(BETA)


def gauss_legendre(n_nodes, low, high):
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    width = np.asarray(high - low)[..., None]
    return np.asarray(low)[..., None] + width * (nodes + 1) / 2, width * weights / 2


class NoiseGrid:
    """The noise rho of the seen units on a grid that is exact for what is constant where rho <= 1 - q, smooth above.

    Each unit contributes one node for z = 0, with weight 1 - q, and nodes on [1 - q, 1] for z = 1: Gauss-Legendre after
    a substitution that makes zeta as smooth a function of it as can be. Rows hold z, zeta and dzeta_dlogit_q at fixed
    rho, from

        zeta = log1p(expm1(beta) t) / beta,    t = (rho + q - 1) / q.
    """

    def __init__(self, posterior, seen, n_nodes):
        n_units = posterior.n_units
        self.weights = np.ones(1)
        self.z, self.zeta, self.slope = np.zeros((3, 1, n_units))
        for unit in range(seen):
            q = 1 / (1 + np.exp(-posterior.logits(self.zeta)[:, unit]))
            s, weights = gauss_legendre(n_nodes, 0.0, 1.0)
            rho = 1 - q[:, None] * (1 - np.expm1(BETA * s) / np.expm1(BETA))
            weights = weights * q[:, None] * BETA * np.exp(BETA * s) / np.expm1(BETA)  # drho/ds
            t = (rho + q[:, None] - 1) / q[:, None]
            dt_dlogit = (1 - rho) * ((1 - q) / q)[:, None]
            growth = 1 + np.expm1(BETA) * t
            new = {
                "z": np.insert(np.ones_like(t), 0, 0, axis=1),
                "zeta": np.insert(np.log(growth) / BETA, 0, 0, axis=1),
                "slope": np.insert(np.expm1(BETA) * dt_dlogit / (BETA * growth), 0, 0, axis=1),
            }
            self.weights = (self.weights[:, None] * np.insert(weights, 0, 1 - q, axis=1)).ravel()
            for name, column in new.items():
                setattr(self, name, np.repeat(getattr(self, name), n_nodes + 1, axis=0))
                getattr(self, name)[:, unit] = column.ravel()


class Coupled:
    """sum over i of z_i g_i(zeta), g = W sigmoid(b + zeta M): the coupling term of an RBM in miniature."""

    def __init__(self, rng):
        self.n1, self.n2 = 2, 3
        self.posterior = Posterior(2, 1, rng)  # the first side alone: one group, with logits that nothing moves
        self.W, self.M, self.b = 1.5 * rng.normal(size=(2, 3)), 3 * rng.normal(size=(2, 3)), rng.normal(size=3)

    def g(self, zeta):
        return 1 / (1 + np.exp(-(self.b + zeta @ self.M))) @ self.W.T

    def dzg_dzeta(self, z, zeta):
        """Row by row, the gradient in zeta of z'g with z fixed; and the part of it that is unit i's own g_i."""
        mu2 = 1 / (1 + np.exp(-(self.b + zeta @ self.M)))
        jacobian = np.einsum("ij,bj,kj->bik", self.W, mu2 * (1 - mu2), self.M)  # dg_i / dzeta_k
        return np.einsum("bi,bik->bk", z, jacobian), z * np.einsum("bii->bi", jacobian)

    def expectation(self, logits, n_nodes=24):
        """By enumeration of z, and quadrature over r(zeta | z); complex logits pass."""
        nodes, weights = gauss_legendre(n_nodes, 0.0, 1.0)
        zeta = np.array(list(itertools.product(nodes, repeat=2)))
        total = 0.0
        for z in all_states(2):
            weight = np.prod(list(itertools.product(weights, repeat=2)), axis=1)
            weight = weight * np.where(z == 1, spike_density(zeta), 1.0).prod(axis=1)
            prob = np.prod([1 / (1 + np.exp(-x if on else x)) for x, on in zip(logits, z, strict=True)])
            total = total + prob * (weight * (self.g(zeta * z) @ z)).sum()
        return total


@pytest.mark.parametrize("seed", range(5))
def test_rolfe_gradient_is_that_of_the_exact_expectation(seed):
    """Complex step of the enumerated expectation, against the mean over a grid of noise; and two tempting mistakes."""
    rng = np.random.default_rng(seed)
    model = Coupled(rng)
    logits = model.posterior.offset
    expected = [model.expectation(logits + 1e-30j * unit).imag / 1e-30 for unit in np.eye(2)]

    grid = NoiseGrid(model.posterior, 2, 20)
    assert grid.weights.sum() == pytest.approx(1, abs=1e-13)
    g, (pulled_back, own) = model.g(grid.zeta), model.dzg_dzeta(grid.z, grid.zeta)
    assert grid.weights @ (grid.z * g).sum(axis=1) == pytest.approx(model.expectation(logits), abs=1e-12)
    rows = np.broadcast_to(logits, grid.z.shape)

    def error(g, pulled_back):
        return np.abs(grid.weights @ rolfe_gradient(rows, grid.z, g, pulled_back, grid.slope) - expected).max()

    assert error(g, pulled_back) < 1e-12
    assert error(0 * g, pulled_back) > 1e-2  # the chain rule alone
    assert error(g, own) > 1e-3  # each zeta_i in its own g_i only


def kl_with_a_spike(machine, posterior, n_nodes=14):
    """KL(q(z, zeta) || p(z) r(zeta | z)) by definition: zeta is 0 with z, else integrated over its exponential."""
    seen = posterior.n_units - posterior.size
    nodes, weights = gauss_legendre(n_nodes, 0.0, 1.0)
    grid = np.zeros((n_nodes**seen, posterior.n_units))
    grid[:, :seen] = np.array(list(itertools.product(nodes, repeat=seen))).reshape(-1, seen)
    product = np.array([np.prod(w) for w in itertools.product(weights, repeat=seen)])
    states = all_states(posterior.n_units)
    divergence = np.log(np.exp(-energies(machine, states)).sum())
    for z, e in zip(states, energies(machine, states), strict=True):
        zeta = grid * z
        prob_one = 1 / (1 + np.exp(-posterior.logits(zeta)))
        q = np.where(z == 1, prob_one, 1 - prob_one).prod(axis=1)
        mass = product * q * np.where(z == 1, spike_density(zeta), 1.0)[:, :seen].prod(axis=1)
        divergence += (mass * (np.log(q) + e)).sum()
    return divergence


@pytest.mark.parametrize(("n_units", "n_groups"), [(2, 2), (4, 2), (3, 3)])
@pytest.mark.parametrize("kind", ["rbm", "general"])
def test_backward_through_a_spike_gives_the_gradient_of_the_kl(n_units, n_groups, kind):
    """The derivatives together, as a model uses them: nu = z, groups from last to first, zeta carrying what came later.

    The judge is a central difference of the KL by definition, in the offset of every logit.
    """
    rng = np.random.default_rng([n_units, n_groups, 1])  # coupled strongly enough, in each case, for a mistake to show
    n1 = n_units // 2
    machine = general_machine(n_units, rng) if kind == "general" else random_machine(n1, n_units - n1, rng)
    posterior = Posterior(n_units, n_groups, rng)
    grid = NoiseGrid(posterior, n_units - posterior.size, 14)
    logits, groups = posterior.logits(grid.zeta), group_slices(n_units, n_groups)
    log_z = np.log(np.exp(-energies(machine, all_states(n_units))).sum())
    forward = kl_with_gradients(machine, logits, grid.z, n_groups, log_z)
    assert grid.weights @ forward.kl == pytest.approx(kl_with_a_spike(machine, posterior), abs=1e-9)

    def backward(dkl_dnu):
        dlogit, dzeta = np.zeros_like(logits), np.zeros_like(logits)
        for units in reversed(groups):
            part = [array[:, units] for array in (logits, grid.z, dkl_dnu, dzeta, grid.slope)]
            dlogit[:, units] = forward.dkl_dlogit_q[:, units] + rolfe_gradient(*part)
            dzeta += dlogit[:, units] @ posterior.matrix[:, units].T
        return grid.weights @ dlogit

    expected = np.zeros(n_units)
    for unit in range(n_units):
        here = posterior.offset.copy()

        def moved_kl(offset):
            posterior.offset = offset
            return kl_with_a_spike(machine, posterior)

        expected[unit] = central_difference(moved_kl, here, unit, 1e-5)
        posterior.offset = here
    np.testing.assert_allclose(backward(forward.dkl_dnu), expected, atol=1e-8)
    assert np.abs(backward(0 * forward.dkl_dnu) - expected).max() > 1e-2


def test_rolfe_gradient_by_hand_and_at_any_logit():
    logits = np.array([[np.log(3.0), 800.0, np.inf], [np.log(3.0), -800.0, -np.inf]])
    z = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    g, pulled_back = np.array([[2.0, 3.0, 5.0], [7.0, 11.0, 13.0]]), np.full((2, 3), 0.5)
    slope = np.array([[0.0, 0.0, 0.25], [4.0, 0.0, 0.0]])
    expected = [[1.5, 3.0, 0.125], [2.0, 0.0, 0.0]]
    np.testing.assert_allclose(rolfe_gradient(logits, z, g, pulled_back, slope), expected, rtol=1e-15)


def test_arguments_of_rolfe_gradient_that_do_not_fit_are_refused():
    good = dict.fromkeys(("logit_q", "g", "dcoupling_dzeta", "dzeta_dlogit_q"), np.ones((3, 2)))
    good["z"] = np.ones((3, 2))
    bad = np.ones((3, 2))
    bad[1, 0] = np.nan
    for name in good:
        with pytest.raises(ShapeError, match=rf"^{name} must be \(B, .*one row per sample; got \(2,\)"):
            rolfe_gradient(**good | {name: np.ones(2)})
        with pytest.raises(ShapeError, match=rf"same number of rows; .*{name} \(1, 2\)"):
            rolfe_gradient(**good | {name: np.ones((1, 2))})
        with pytest.raises(DomainError, match=rf"^{name} must .*; entry \(1, 0\) is nan"):
            rolfe_gradient(**good | {name: bad})
        with pytest.raises(TypeError, match=f"{name} must be float32 or float64"):
            rolfe_gradient(**good | {name: bad.astype(complex)})
    with pytest.raises(DomainError, match=r"^g must be finite; entry \(0, 0\) is inf"):
        rolfe_gradient(**good | {"g": np.full((3, 2), np.inf)})
    with pytest.raises(
        DomainError, match=r"^dzeta_dlogit_q must be 0 where z is 0, at the spike; entry \(0, 0\) is 1\.0"
    ):
        rolfe_gradient(**good | {"z": np.zeros((3, 2))})
    with pytest.raises(DomainError, match=r"^z must be 0 or 1; entry \(0, 0\) is 0\.5"):
        rolfe_gradient(**good | {"z": np.full((3, 2), 0.5)})
