"""The derivatives that ``reference`` writes out, each beside the textbook form of what it is the derivative of.

Textbook forms are sums over states, pairs and groups as a definition has them: no care is taken of digits, so that they
can be written in operations that accept complex numbers, and no step of a derivation is shared with the reference. They
are judges for moderate inputs only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference import bernoulli, boltzmann, boltzmann_kl, directed, estimators, general_boltzmann, likelihoods, normal
from reference.partition import path_biases
from reference.smoothing import BinaryConcrete, OverlappingExponential, SpikeExponential
from reference.thermodynamic import slopes
from reference.vocabulary import RBM, Array, BoltzmannMachine

_BETA = 3.0
_ROWS = 5


@dataclass(frozen=True)
class Gradient:
    """A function of B rows, and the derivatives that the reference claims for it.

    inputs    by name, (B, ...); those named in ``shared`` have no rows
    claimed   by input, (B, ...) with what an input has after its rows
    textbook  the function from its definition, inputs -> (B,), at complex inputs too
    value     the reference's own, where it has one; then ``size`` (B,) bounds the sizes of the terms it adds up
    n_terms   how many terms are added up, at most
    """

    output: str
    inputs: Mapping[str, Array]
    claimed: Mapping[str, Array]
    textbook: Callable[..., Array] | None
    value: Callable[..., Array] | None
    n_terms: int
    size: Array | float = 0.0
    shared: tuple[str, ...] = ()


# ---- Boltzmann machines ----------------------------------------------------------------------------------------------


def boltzmann_kl_gradients(rng: np.random.Generator) -> Iterator[Gradient]:
    """``boltzmann_kl.kl_with_gradients`` for both kinds of machine; groups that are, cut and straddle the sides."""
    for n_groups in (1, 2, 3):
        rbm, general = _rbm(rng, 3, 3), _general(rng, 6)
        logit_q, nu = 2 * rng.standard_normal((_ROWS, 6)), rng.uniform(0.25, 0.75, (_ROWS, 6))
        log_partition, mu = 1.25, bernoulli.sigmoid(logit_q)
        sizes = RBM(*(-np.abs(x) for x in (rbm.a1, rbm.a2, rbm.W)))
        size = log_partition + bernoulli.entropy(logit_q).sum(1) + boltzmann_kl.cross_entropy(sizes, mu, nu, n_groups)
        found = boltzmann_kl.kl_with_gradients(rbm, logit_q, nu, n_groups, log_partition)

        def rbm_value(n_groups: int = n_groups, log_partition: float = log_partition, **inputs: Array) -> Array:
            machine = RBM(inputs["a1"], inputs["a2"], inputs["W"])
            return boltzmann_kl.kl(machine, inputs["logit_q"], inputs["nu"], n_groups, log_partition)

        def rbm_textbook(n_groups: int = n_groups, log_partition: float = log_partition, **inputs: Array) -> Array:
            J = {(i, 3 + j): inputs["W"][i, j] for i in range(3) for j in range(3)}
            a = np.concatenate([inputs["a1"], inputs["a2"]])
            return log_partition + _kl_but_log_partition(inputs["logit_q"], inputs["nu"], a, J, n_groups)

        claimed = {"logit_q": found.dkl_dlogit_q, "a1": found.dkl_da1, "a2": found.dkl_da2, "W": found.dkl_dW}
        if n_groups > 1:  # else nothing depends on nu
            claimed["nu"] = found.dkl_dnu
        inputs = {"logit_q": logit_q, "nu": nu, "a1": rbm.a1, "a2": rbm.a2, "W": rbm.W}
        name = f"RBM, groups: {n_groups}; kl"
        yield Gradient(name, inputs, claimed, rbm_textbook, rbm_value, 27, size, ("a1", "a2", "W"))

        pairs = list(itertools.combinations(range(6), 2))
        general_found = boltzmann_kl.kl_with_gradients(general, logit_q, nu, n_groups, log_partition)
        absolute = BoltzmannMachine(-np.abs(general.a), -np.abs(general.J))
        size = log_partition + bernoulli.entropy(logit_q).sum(1)
        size = size + boltzmann_kl.cross_entropy(absolute, mu, nu, n_groups)

        def general_value(n_groups: int = n_groups, log_partition: float = log_partition, **inputs: Array) -> Array:
            machine = BoltzmannMachine(inputs["a"], _symmetric(inputs["J"], 6))
            return boltzmann_kl.kl(machine, inputs["logit_q"], inputs["nu"], n_groups, log_partition)

        def general_textbook(
            n_groups: int = n_groups,
            log_partition: float = log_partition,
            pairs: list[tuple[int, int]] = pairs,
            **inputs: Array,
        ) -> Array:
            J = dict(zip(pairs, inputs["J"], strict=True))
            return log_partition + _kl_but_log_partition(inputs["logit_q"], inputs["nu"], inputs["a"], J, n_groups)

        upper = np.triu_indices(6, 1)
        claimed = {
            "logit_q": general_found.dkl_dlogit_q,
            "a": general_found.dkl_da,
            "J": general_found.dkl_dJ[:, upper[0], upper[1]],
        }
        if n_groups > 1:
            claimed["nu"] = general_found.dkl_dnu
        inputs = {"logit_q": logit_q, "nu": nu, "a": general.a, "J": general.J[upper]}
        name = f"general machine, groups: {n_groups}; kl"
        yield Gradient(name, inputs, claimed, general_textbook, general_value, 33, size, ("a", "J"))


def _kl_but_log_partition(
    logit_q: Array, nu: Array, a: Array, J: Mapping[tuple[int, int], Any], n_groups: int
) -> Array:
    """E[log q - energy's minus], unit by unit and pair by pair: eq. (6) and the form after it."""
    q, p = _both(logit_q)
    total = (q * np.log(q) + p * np.log(p)).sum(axis=1) - q @ a
    group = [unit * n_groups // q.shape[1] for unit in range(q.shape[1])]
    for (i, j), coupling in J.items():
        seen = q[:, i] if group[i] == group[j] else nu[:, i]
        total = total - coupling * seen * q[:, j]
    return total


def rolfe_gradients(rng: np.random.Generator) -> Iterator[Gradient]:
    """``boltzmann_kl.rolfe_gradient``, averaged over a grid of noise, of E[z1 g1(zeta) + z2 g2(zeta)].

    g is c + C sin(2 zeta). Beyond the spike zeta is distributed by r(zeta|1), which knows no logit: the textbook form
    integrates over zeta, the grid over rho.
    """
    c, C, logits = rng.standard_normal(2), 2 * rng.standard_normal((2, 2)), rng.standard_normal((1, 2))
    smoothing = SpikeExponential(_BETA)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    nodes, weights = (1 + nodes) / 2, weights / 2
    p = bernoulli.sigmoid(-logits[0])
    grid, mass = [], []
    for on in itertools.product((False, True), repeat=2):
        sides = [
            (p[i] + (1 - p[i]) * nodes, (1 - p[i]) * weights) if on[i] else (p[i] * nodes, p[i] * weights)
            for i in range(2)
        ]
        grid += list(itertools.product(sides[0][0], sides[1][0]))
        mass += [w1 * w2 for w1, w2 in itertools.product(sides[0][1], sides[1][1])]
    draw = smoothing.inverse_cdf_with_derivatives(np.array(grid), np.broadcast_to(logits, (len(grid), 2)))
    z = (draw.zeta > 0).astype(np.float64)
    terms = boltzmann_kl.rolfe_gradient(
        np.broadcast_to(logits, z.shape),
        z,
        c + np.sin(2 * draw.zeta) @ C.T,
        (z @ C) * 2 * np.cos(2 * draw.zeta),
        draw.dzeta_dlogit_q,
    )
    density = np.exp(OverlappingExponential(_BETA).log_r(nodes, np.ones_like(nodes)))
    mean_sine = (weights * density) @ np.sin(2 * nodes)

    def textbook(logit_q: Array) -> Array:
        q, off = _both(logit_q)
        total = np.zeros_like(q[:, 0])
        for on in itertools.product((0, 1), repeat=2):
            z = np.array(on)
            prob = np.prod(np.where(z == 1, q, off), axis=1)
            total = total + prob * (z @ (c + C @ (z * mean_sine)))  # zeta of a unit that is off is 0
        return total

    claimed = {"logit_q": (np.array(mass) @ terms)[None]}
    yield Gradient("spike; E[z g]", {"logit_q": logits}, claimed, textbook, None, len(mass))


def log_partition_gradients(rng: np.random.Generator) -> Iterator[Gradient]:
    """The machines' means, as gradients of log Z; those of samples, of the surrogate; the slope along a path."""
    for n1, n2 in ((2, 3), (3, 2)):
        rbm = _rbm(rng, n1, n2)
        states = [np.array(z) for z in itertools.product((0.0, 1.0), repeat=n1 + n2)]

        def value(**inputs: Array) -> Array:
            return np.array([boltzmann.log_partition(RBM(**inputs))])

        def textbook(states: list[Array] = states, n1: int = n1, **inputs: Array) -> Array:
            weight: Any = 0.0
            for z in states:
                weight += np.exp(inputs["a1"] @ z[:n1] + inputs["a2"] @ z[n1:] + z[:n1] @ inputs["W"] @ z[n1:])
            return np.array([np.log(weight)])

        means = boltzmann.marginals(rbm)
        inputs = {"a1": rbm.a1, "a2": rbm.a2, "W": rbm.W}
        claimed = {name: mean[None] for name, mean in zip(("a1", "a2", "W"), means, strict=True)}
        yield Gradient(f"RBM {n1} x {n2}; log Z", inputs, claimed, textbook, value, 2 ** (n1 + n2), 10.0, tuple(inputs))

    rbm = _rbm(rng, 3, 2)
    z1, z2 = rng.integers(2, size=(7, 3)).astype(float), rng.integers(2, size=(7, 2)).astype(float)

    def surrogate(**inputs: Array) -> Array:
        return np.array([boltzmann.log_partition_surrogate(RBM(**inputs), z1, z2)])

    def mean_of_samples(**inputs: Array) -> Array:
        each = [inputs["a1"] @ x + inputs["a2"] @ y + x @ inputs["W"] @ y for x, y in zip(z1, z2, strict=True)]
        return np.array([sum(each) / len(z1)])

    samples = boltzmann.log_partition_gradient(rbm, z1, z2)
    inputs = {"a1": rbm.a1, "a2": rbm.a2, "W": rbm.W}
    claimed = {name: mean[None] for name, mean in zip(("a1", "a2", "W"), samples, strict=True)}
    size = sum(np.abs(x).sum() for x in inputs.values())
    yield Gradient("surrogate", inputs, claimed, mean_of_samples, surrogate, 7 * 11, size, tuple(inputs))

    machine = _general(rng, 4)
    upper, pairs = np.triu_indices(4, 1), list(itertools.combinations(range(4), 2))

    def general_value(**inputs: Array) -> Array:
        return np.array([general_boltzmann.log_partition(BoltzmannMachine(inputs["a"], _symmetric(inputs["J"], 4)))])

    def general_textbook(**inputs: Array) -> Array:
        weight: Any = 0.0
        for z in itertools.product((0, 1), repeat=4):
            coupled = sum(J * z[i] * z[j] for (i, j), J in zip(pairs, inputs["J"], strict=True))
            weight += np.exp(inputs["a"] @ np.array(z) + coupled)
        return np.array([np.log(weight)])

    general_means = general_boltzmann.marginals(machine)
    claimed = {"a": general_means.mean[None], "J": general_means.pair[upper][None]}
    inputs = {"a": machine.a, "J": machine.J[upper]}
    yield Gradient("general machine; log Z", inputs, claimed, general_textbook, general_value, 16, 10.0, ("a", "J"))

    base, inv_temps = RBM(rng.standard_normal(3), rng.standard_normal(2), np.zeros((3, 2))), rng.uniform(0.2, 0.8, 7)

    def log_marginal(inv_temps: Array) -> Array:
        machines = (RBM(*path_biases(rbm, base, b), b * rbm.W) for b in inv_temps)
        return np.array([boltzmann.log_marginal_z1(m, z[None])[0] for m, z in zip(machines, z1, strict=True)])

    def log_marginal_by_states(inv_temps: Array) -> Array:
        b, weight = inv_temps, 0.0 * inv_temps
        for on in itertools.product((0, 1), repeat=2):
            y = np.array(on)
            weight = weight + np.exp(
                (1 - b) * (z1 @ base.a1 + y @ base.a2) + b * (z1 @ rbm.a1 + y @ rbm.a2 + z1 @ rbm.W @ y)
            )
        return np.log(weight)

    claimed = {"inv_temps": slopes(rbm, base, inv_temps, z1)}
    inputs = {"inv_temps": inv_temps}
    yield Gradient("path; log f(z1)", inputs, claimed, log_marginal_by_states, log_marginal, 4 * 11, size)


# ---- directed priors -------------------------------------------------------------------------------------------------


def directed_gradients(rng: np.random.Generator) -> Iterator[Gradient]:
    """``directed.joint_kl_gradient`` and ``.marginal_kl_gradient``, that in zeta by way of the log ratio."""
    logit_q, logit_p = 2 * rng.standard_normal((2, _ROWS, 3))
    inputs = {"logit_q": logit_q, "logit_p": logit_p}

    def joint(logit_q: Array, logit_p: Array) -> Array:
        (q1, q0), (p1, p0) = _both(logit_q), _both(logit_p)
        return (q1 * np.log(q1 / p1) + q0 * np.log(q0 / p0)).sum(axis=1)

    found = directed.joint_kl_gradient(logit_q, logit_p)
    claimed = {"logit_q": found.dkl_dlogit_q, "logit_p": found.dkl_dlogit_p}
    yield Gradient("joint KL", inputs, claimed, joint, directed.joint_kl, 6)

    smoothing, zeta = OverlappingExponential(_BETA), rng.uniform(0.25, 0.75, (_ROWS, 3))

    def value(zeta: Array, logit_q: Array, logit_p: Array) -> Array:
        return directed.marginal_kl(smoothing, zeta, logit_q, logit_p)

    def marginal(zeta: Array, logit_q: Array, logit_p: Array) -> Array:
        r0, r1 = np.exp(-_BETA * zeta), np.exp(_BETA * (zeta - 1))  # up to a factor that both densities share
        (q1, q0), (p1, p0) = _both(logit_q), _both(logit_p)
        return np.log((q1 * r1 + q0 * r0) / (p1 * r1 + p0 * r0)).sum(axis=1)

    seen = directed.marginal_kl_gradient(smoothing, zeta, logit_q, logit_p)
    # The log ratio of overlapping exponentials is beta (2 zeta - 1).
    claimed = {"logit_q": seen.dkl_dlogit_q, "logit_p": seen.dkl_dlogit_p, "zeta": seen.dkl_dlog_ratio * 2 * _BETA}
    size = sum(np.abs(value(*(x[:, [i]] for x in (zeta, logit_q, logit_p)))) for i in range(3))
    yield Gradient("marginal KL", {"zeta": zeta, **inputs}, claimed, marginal, value, 12, size)


# ---- normal variables ------------------------------------------------------------------------------------------------


def normal_gradients(rng: np.random.Generator) -> Iterator[Gradient]:
    """``normal.kl_gradient``; the textbook form is a ratio of second moments and one of standard deviations."""
    names = "mean_q", "log_std_q", "mean_p", "log_std_p"
    inputs = dict(zip(names, rng.standard_normal((4, _ROWS, 3)), strict=True))

    def value(**inputs: Array) -> Array:
        return normal.kl(**inputs).sum(axis=1)

    def textbook(mean_q: Array, log_std_q: Array, mean_p: Array, log_std_p: Array) -> Array:
        variance_q, variance_p = np.exp(2 * log_std_q), np.exp(2 * log_std_p)
        each = np.log(variance_p / variance_q) + (variance_q + (mean_q - mean_p) ** 2) / variance_p - 1
        return each.sum(axis=1) / 2

    claimed = dict(zip(names, normal.kl_gradient(**inputs), strict=True))
    yield Gradient("KL", inputs, claimed, textbook, value, 12)


# ---- likelihoods -----------------------------------------------------------------------------------------------------


def likelihood_gradients(rng: np.random.Generator) -> Iterator[Gradient]:
    """The gradients of ``likelihoods``; images of 8 levels, the outermost ones among them."""
    x, logits = rng.integers(2, size=(_ROWS, 4)).astype(float), 2 * rng.standard_normal((_ROWS, 4))

    def value(logits: Array) -> Array:
        return likelihoods.bernoulli_log_prob(x, logits)

    def pixels(logits: Array) -> Array:
        on, off = _both(logits)
        return (x * np.log(on) + (1 - x) * np.log(off)).sum(axis=1)

    claimed = {"logits": likelihoods.bernoulli_log_prob_gradient(x, logits)}
    yield Gradient("Bernoulli", {"logits": logits}, claimed, pixels, value, 4)

    n_levels, n_components = 8, 2
    levels = rng.integers(n_levels, size=(_ROWS, 3)).astype(float)
    levels[0] = 0, 3, n_levels - 1
    inputs = {
        "logits": rng.standard_normal((_ROWS, 3, n_components)),
        "means": rng.uniform(-1, 1, (_ROWS, 3, n_components)),
        "log_scales": rng.uniform(-2, -0.5, (_ROWS, 3, n_components)),
    }

    def mixture_value(**inputs: Array) -> Array:
        return likelihoods.mixture_log_prob(levels, n_levels=n_levels, **inputs)

    def mixture(logits: Array, means: Array, log_scales: Array) -> Array:
        prior = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        prob = (prior * _bin(levels[..., None], means, log_scales, n_levels)).sum(axis=-1)
        return np.log(prob).sum(axis=-1)

    found = likelihoods.mixture_log_prob_gradient(levels, n_levels=n_levels, **inputs)
    claimed = dict(zip(inputs, found, strict=True))
    yield Gradient("mixture", inputs, claimed, mixture, mixture_value, 3 * n_components * 4)

    colours = rng.integers(n_levels, size=(_ROWS, 2, 3)).astype(float)
    colours[0, 0] = 0, n_levels - 1, 4
    shape = _ROWS, 2, 3, n_components
    inputs = {
        "logits": rng.standard_normal((_ROWS, 2, n_components)),
        "means": rng.uniform(-1, 1, shape),
        "log_scales": rng.uniform(-2, -0.5, shape),
        "coefficients": rng.standard_normal(shape),
    }

    def colour_value(**inputs: Array) -> Array:
        return likelihoods.colour_mixture_log_prob(colours, n_levels=n_levels, **inputs)

    def colour(logits: Array, means: Array, log_scales: Array, coefficients: Array) -> Array:
        prior = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        red, green, _ = (colours[..., [i]] * 2 / (n_levels - 1) - 1 for i in range(3))
        c = np.tanh(coefficients)
        shifts = 0.0, c[..., 0, :] * red, c[..., 1, :] * red + c[..., 2, :] * green
        each = [
            _bin(colours[..., [i]], means[..., i, :] + shifts[i], log_scales[..., i, :], n_levels) for i in range(3)
        ]
        return np.log((prior * each[0] * each[1] * each[2]).sum(axis=-1)).sum(axis=-1)

    found_colour = likelihoods.colour_mixture_log_prob_gradient(colours, n_levels=n_levels, **inputs)
    claimed = dict(zip(inputs, found_colour, strict=True))
    yield Gradient("colour mixture", inputs, claimed, colour, colour_value, 2 * 3 * n_components * 4)


def _bin(level: Array, mean: Array, log_scale: Array, n_levels: int) -> Array:
    """A logistic distribution's mass between two edges, the outermost at infinity; counted from the nearer tail."""
    upper, lower = (2 * level + 2 - n_levels) / (n_levels - 1), (2 * level - n_levels) / (n_levels - 1)
    side = np.where(np.real((upper + lower) / 2 - mean) > 0, -1, 1)
    u, l = (np.exp(-side * (edge - mean) / np.exp(log_scale)) for edge in (upper, lower))  # noqa: E741
    below_u = np.where(level == n_levels - 1, (1 + side) / 2, 1 / (1 + u))
    below_l = np.where(level == 0, (1 - side) / 2, 1 / (1 + l))
    return side * (below_u - below_l)


# ---- estimators ------------------------------------------------------------------------------------------------------


def estimator_gradients(rng: np.random.Generator) -> Iterator[Gradient]:
    """What ``estimators`` knows exactly: scores, expectations, and derivatives along a draw at fixed noise."""
    n, matrix, vector = 3, rng.standard_normal((3, 3)), rng.standard_normal(3)
    f = estimators.Integrand(
        lambda z: ((z @ matrix) * z).sum(axis=1) + np.cos(z @ vector),
        lambda z: z @ (matrix + matrix.T) - np.sin(z @ vector)[:, None] * vector,
    )
    terms_of_f = np.abs(matrix).sum() + 1
    rho, v = rng.uniform(0.1, 0.9, (2, _ROWS, n))
    logits = rng.standard_normal((_ROWS, n))
    z = estimators.draw(rho, logits)

    def log_prob(logits: Array) -> Array:
        return bernoulli.log_prob(z, logits).sum(axis=1)

    def log_of_prob(logits: Array) -> Array:
        return np.log(np.where(z == 1, *_both(logits))).sum(axis=1)

    one = {"logits": logits}
    yield Gradient("score", one, {"logits": estimators.score(z, logits)}, log_of_prob, log_prob, n)

    alone = {"logits": logits[0]}
    states = [np.array(state) for state in itertools.product((0.0, 1.0), repeat=n)]

    def expectation(logits: Array) -> Array:
        q, p = _both(logits)
        return np.array([sum(f(s[None])[0] * np.prod(np.where(s == 1, q, p)) for s in states)])

    def expected(logits: Array) -> Array:
        return np.array([estimators.exact_value(f, logits)])

    claimed = {"logits": estimators.exact_gradient(f, logits[0])[None]}
    yield Gradient("E[f(z)]", alone, claimed, expectation, expected, 2**n * 13, terms_of_f, ("logits",))

    def two_samples(logits: Array) -> Array:
        q, p = _both(logits)
        total: Any = 0.0
        for s, t in itertools.product(states, repeat=2):
            prob = np.prod(np.where(s == 1, q, p)) * np.prod(np.where(t == 1, q, p))
            total += prob * np.log((np.exp(f(s[None])[0]) + np.exp(f(t[None])[0])) / 2)
        return np.array([total])

    def expected_of_two(logits: Array) -> Array:
        return np.array([estimators.exact_multi_sample_value(f, logits, 2)])

    claimed = {"logits": estimators.exact_multi_sample_gradient(f, logits[0], 2)[None]}
    name = "E[log mean f], 2 samples"
    yield Gradient(name, alone, claimed, two_samples, expected_of_two, 4**n * 13, terms_of_f, ("logits",))

    def conditional(logits: Array) -> Array:
        return estimators.conditional_logistic(z[:, [0]], v[:, [0]], logits).value[:, 0]

    def conditional_textbook(logits: Array) -> Array:
        (q, p), up = _both(logits), v[:, [0]]
        down = 1 - up
        return np.where(z[:, [0]] == 1, np.log(up / (down * p) + 1), -np.log(down / (up * q) + 1))[:, 0]

    single = {"logits": logits[:, [0]]}
    slope = estimators.conditional_logistic(z[:, [0]], v[:, [0]], logits[:, [0]]).dvalue_dlogit
    yield Gradient("g given z", single, {"logits": slope}, conditional_textbook, conditional, 8)

    temperature, eta = 0.5, 0.7
    surrogate = estimators.rebar_surrogate(f, temperature, eta)

    def relaxed(logits: Array) -> Array:
        return eta * f(1 / (1 + np.exp(-logits / temperature)))

    claimed = {"logits": surrogate.gradient(logits)}

    def own(logits: Array) -> Array:
        return surrogate(logits)

    yield Gradient("REBAR's surrogate", one, claimed, relaxed, own, 13, terms_of_f)

    def cold(logits: Array) -> Array:
        return f(1 / (1 + np.exp(-(logits + np.log(rho / (1 - rho))) / temperature)))

    def concrete(logits: Array) -> Array:
        return f(BinaryConcrete(temperature).inverse_cdf(rho, logits))

    claimed = {"logits": estimators.concrete(f, rho, logits, temperature)}
    yield Gradient("f(Concrete)", one, claimed, cold, concrete, 26, terms_of_f)

    smoothing = OverlappingExponential(_BETA)

    def of_smoothed(logits: Array) -> Array:
        return f(smoothing.inverse_cdf(rho, logits))

    claimed = {"logits": estimators.smoothed(f, rho, logits, smoothing)}
    yield Gradient("f(zeta)", one, claimed, None, of_smoothed, 26, terms_of_f)


# ---- machines --------------------------------------------------------------------------------------------------------


def _both(logits: Array) -> tuple[Array, Array]:
    """Probabilities of a one and of a zero, each with all its digits."""
    return 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits))


def _rbm(rng: np.random.Generator, n1: int, n2: int) -> RBM:
    return RBM(rng.standard_normal(n1), rng.standard_normal(n2), rng.standard_normal((n1, n2)))


def _general(rng: np.random.Generator, n: int) -> BoltzmannMachine:
    return BoltzmannMachine(rng.standard_normal(n), _symmetric(rng.standard_normal(n * (n - 1) // 2), n))


def _symmetric(couplings: Array, n: int) -> Array:
    """The couplings of pairs i < j, in order, as a symmetric matrix."""
    J = np.zeros((n, n))
    J[np.triu_indices(n, 1)] = couplings
    return J + J.T


#: By the name of an operation: everything there is to differentiate about it.
GRADIENTS: Mapping[str, Callable[[np.random.Generator], Iterator[Gradient]]] = {
    "boltzmann_kl": boltzmann_kl_gradients,
    "rolfe_gradient": rolfe_gradients,
    "log_partition": log_partition_gradients,
    "directed_kl": directed_gradients,
    "normal": normal_gradients,
    "likelihoods": likelihood_gradients,
    "estimators": estimator_gradients,
}
