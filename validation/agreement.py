"""Implementations against the reference, on the same inputs: torch twins, and every operation of every backend.

**Transforms.** Cheaper than the judge of ``validation.accuracy``, for no truth is computed. The measure is the mixed
error with the reference, evaluated in float64, in the place of the truth:

    |got - reference| / (eps |reference| + D_x + D_l + underflow),

D the change of the reference when an input moves by one rounding of the dtype that is judged. For float32 the reference
is exact on that scale. For float64 its own rounding enters the difference and D, which is then taken as half the change
over two roundings: there this is the milder of the two measures.

**Sums** (entropies, cross-entropies and their gradients) in units of eps times the sum of the sizes of their terms.

**Bits.** A unit is on where u < sigma(x), that is where x > logit(u). Rounding moves the threshold, so bits are judged
where x is further from logit(u) than a *band* (``gibbs_band``). Inside it either value is right; what falls inside is
counted, and compared with what the band's width lets one expect. Every sweep is judged from the state that the backend
itself reached, so that one difference inside the band does not make all later ones look wrong.

**Annealing and tempering** show only where a chain ended. Chains that meet the band anywhere on the reference's way may
part from it, and are counted and left out. The others must agree: in every bit, and in log-weights to
``tolerances.ANNEALING_LOG_WEIGHT``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.special import expit, logit

from accelerated import Backend
from accelerated.backends.numpy_oracle import NumpyOracle
from accelerated.protocol import KINDS, CrossEntropyGradients, Machine
from reference import gibbs, partition, philox, tempering
from reference.boltzmann import energy
from reference.vocabulary import RBM, Array
from validation import subjects
from validation.accuracy import REFERENCE, Floats, Outputs, backend_inverse_cdf, is_mixture, reference_inverse_cdf
from validation.cases import Cases, all_cases, few_sharpnesses
from validation.rows import Finding, Request, Subject, Task
from validation.tolerances import (
    ANNEALING_LOG_WEIGHT,
    COUPLING_ERROR,
    GIBBS_THRESHOLD_ROUNDINGS,
    PROBABILITY_ROUNDINGS,
    TRANSFORM_MIXED_ERROR,
    TWIN_MIXED_ERROR,
    sum_error,
)
from validation.torch_twin import SUBJECTS

_ORACLE = NumpyOracle()
_EPS64 = float(np.finfo(np.float64).eps)
_STEADY = 0.1  # largest relative change of the density for one rounding at which derivatives are judged


# ---- transforms ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """One operation twice: both callables take the fields of ``Cases`` and return named outputs, each (N,)."""

    reference: Callable[[Floats, Floats, Floats], Outputs]
    twin: Callable[[Floats, Floats, Floats], Outputs]
    first: str = "rho"  # what the operation calls the number that ``Cases`` calls rho
    unit_interval: bool = True  # whether that number lies in [0, 1]


def inverse_cdf(backend: Backend, kind: str) -> Operation:
    """A backend's inverse CDF of one of ``accelerated.protocol.KINDS``, with its derivatives."""
    return Operation(
        lambda rho, logit_q, beta: reference_inverse_cdf(rho, logit_q, beta, kind),
        lambda rho, logit_q, beta: backend_inverse_cdf(backend, kind, rho, logit_q, beta),
    )


def posterior_disagreements(backend: Backend, kind: str, cases: Cases) -> list[Finding]:
    """Log-ratio and nu of a backend's samples, judged at the rounded samples it returns with them."""
    found = backend_inverse_cdf(backend, kind, cases.rho, cases.logit_q, cases.beta)
    smoothing = REFERENCE[kind]

    def of_zeta(zeta: Floats, logit_q: Floats, beta: Floats) -> Outputs:
        return {"log_ratio": smoothing(beta).log_ratio(zeta), "nu": smoothing(beta).nu(zeta, logit_q)}

    zeta = np.asarray(found["zeta"])
    inside = (zeta >= 0) & (zeta <= 1) if smoothing.unit_interval else ~np.isnan(zeta)
    if not inside.all():
        return [Finding("log_ratio", np.inf, 0.0, f"zeta={zeta[~inside][0]!r}, outside its domain")]
    operation = Operation(of_zeta, lambda *_: found, "zeta", smoothing.unit_interval)
    return disagreements(operation, Cases(zeta, cases.logit_q, cases.beta))


def disagreements(operation: Operation, cases: Cases) -> list[Finding]:
    """The worst mixed error of each output of an operation.

    On the plateau between two modes derivatives rise and fall by orders of magnitude between two neighbouring numbers,
    and further out they are no longer representable. Where one rounding of an input changes the density by a tenth, or
    where the density is below twice the smallest normal number, derivatives need only be finite, for it takes the judge
    of ``validation.accuracy`` to look in between. zeta is judged everywhere.

    Returns  for each output its worst case; NaN on either side counts as infinite error.
    """
    dtype = cases.rho.dtype
    info = np.finfo(dtype)
    bound = TRANSFORM_MIXED_ERROR if dtype == np.float32 else TWIN_MIXED_ERROR
    x, logit_q, beta = (values.astype(np.float64) for values in (cases.rho, cases.logit_q, cases.beta))
    got = operation.twin(cases.rho, cases.logit_q, cases.beta)
    expected = operation.reference(x, logit_q, beta)
    changes = _changes(operation, expected, x, logit_q, beta, dtype)
    steady = np.ones(len(cases), dtype=bool)
    if "dzeta_drho" in expected:
        slope = expected["dzeta_drho"]
        with np.errstate(over="ignore"):  # an infinite slope is not representable
            representable = -np.expm1(-beta) >= 2 * float(info.tiny) * beta * slope
        steady = representable & (changes["dzeta_drho"] <= _STEADY * slope)

    findings = []
    for name, truth in expected.items():
        if name not in got:
            continue  # a backend may lack some of the extras
        derivative = name.startswith("dzeta")
        error = _mixed_errors(got[name], truth, changes[name], saturated=derivative)
        if derivative:
            error = np.where(steady, error, np.where(np.isfinite(got[name]), 0.0, np.inf))
        i = int(np.argmax(error))
        inputs = {operation.first: x[i], "logit_q": logit_q[i], "beta": beta[i]}
        where = ", ".join(f"{argument}={float(value)!r}" for argument, value in inputs.items())
        value, expected_value = float(got[name][i]), float(truth[i])
        findings.append(Finding(name, float(error[i]), bound, where, got=value, expected=expected_value))
    return findings


def _changes(
    operation: Operation, here: Outputs, x: Array, logit_q: Array, beta: Array, dtype: np.dtype[Any]
) -> dict[str, Array]:
    """For each output the sum over the inputs of its largest change when the input moves by one rounding."""
    roundings = 1 if dtype == np.float32 else 2
    step = roundings * float(np.finfo(dtype).eps)
    total = {name: np.zeros(len(x)) for name in here}
    for i in range(2):
        largest = {name: np.zeros(len(x)) for name in here}
        for factor in (1 - step, 1 + step):
            inputs = [x, logit_q, beta]
            with np.errstate(over="ignore"):
                inputs[i] = inputs[i] * factor
            if i == 0 and operation.unit_interval:
                inputs[0] = np.where((inputs[0] >= 0) & (inputs[0] <= 1), inputs[0], x)
            there = operation.reference(*inputs)
            for name in here:
                with np.errstate(invalid="ignore", over="ignore"):
                    change = np.abs(there[name] - here[name]) / roundings
                # From or to infinity there is no change to speak of.
                largest[name] = np.maximum(largest[name], np.where(np.isfinite(change), change, 0))
        for name in here:
            total[name] += largest[name]
    return total


def _mixed_errors(got: Floats, truth: Array, change: Array, saturated: bool) -> Array:
    """Mixed error of each number; ``saturated`` results stop at the largest finite number instead of overflowing."""
    info = np.finfo(got.dtype)
    with np.errstate(over="ignore"):
        rounded = truth.astype(got.dtype).astype(np.float64)
    if saturated:
        truth = rounded = np.clip(truth, -float(info.max), float(info.max))
    value = got.astype(np.float64)
    scale = float(info.eps) * np.abs(truth) + change + float(info.smallest_subnormal)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(value - truth) / scale
    both = np.isfinite(rounded) & np.isfinite(value)
    return np.where(both, error, np.where(value == rounded, 0.0, np.inf))


# ---- sums ------------------------------------------------------------------------------------------------------------


def entropy_disagreements(backend: Backend, logit_q: Floats) -> list[Finding]:
    """A backend's entropies of rows of units, and their derivatives.

    Shapes   logit_q (B, N), not empty
    """
    dtype, (n_rows, n_units) = logit_q.dtype, logit_q.shape
    got = backend.entropy(backend.asarray(logit_q))
    value, slope = backend.to_numpy(got.value), backend.to_numpy(got.dvalue_dlogit_q)
    alone = logit_q.reshape(-1, 1)

    def of_units(_: Floats, logits: Floats, __: Floats) -> Outputs:
        found = _ORACLE.entropy(logits[:, None])
        return {"entropy": found.value, "dentropy_dlogit_q": found.dvalue_dlogit_q[:, 0]}

    units = Operation(of_units, lambda *_: {})
    zeros, logits = np.zeros(alone.size), alone[:, 0].astype(np.float64)
    expected = of_units(zeros, logits, zeros)
    changes = _changes(units, expected, zeros, logits, zeros, dtype)
    # The reference multiplies l with a number that may be subnormal, and then has an error of its own.
    subnormal = float(np.finfo(np.float64).smallest_subnormal)
    changes["dentropy_dlogit_q"] += np.where(np.isfinite(logits), np.abs(logits), 0) * subnormal
    errors = _mixed_errors(slope.ravel(), expected["dentropy_dlogit_q"], changes["dentropy_dlogit_q"], saturated=False)
    i = int(np.argmax(errors))
    bound = TRANSFORM_MIXED_ERROR if dtype == np.float32 else TWIN_MIXED_ERROR
    at = f"logit_q={float(logits[i])!r}"
    got_there, expected_there = float(slope.ravel()[i]), float(expected["dentropy_dlogit_q"][i])
    found = [
        Finding("dentropy_dlogit_q", float(errors[i]), bound, at, got=got_there, expected=expected_there),
    ]

    terms, moved = (part["entropy"].reshape(n_rows, n_units).sum(axis=1) for part in (expected, changes))
    scale = float(np.finfo(dtype).eps) * terms + moved + float(np.finfo(dtype).smallest_subnormal)
    # All terms are positive: a sum is as good as its terms, and its own rounding is left out by summing in float64.
    return [*found, _worst("entropy", value, terms, scale, bound + (n_units / 2 if dtype == np.float64 else 0))]


def cross_entropy_disagreements(
    backend: Backend, machine: Machine, mu: Floats, nu: Floats, n_groups: int, upstream: Floats
) -> list[Finding]:
    """A backend's cross-entropies and their five gradients, in units of ``_sizes``.

    The reference's gradient in mu is a difference of two values: in float64 its error is that of the values.

    Shapes   mu, nu (B, N1 + N2), upstream (B,), B >= 1
    """
    dtype, (n_rows, n_units) = mu.dtype, mu.shape
    mine = _on(backend, machine), backend.asarray(mu), backend.asarray(nu), n_groups
    wide = Machine(*(x.astype(np.float64) for x in machine))
    mu, nu, weight = (x.astype(np.float64) for x in (mu, nu, upstream))
    eps = float(np.finfo(dtype).eps)
    underflow = float(np.finfo(dtype).smallest_subnormal) * n_rows * n_units**2

    total, scales = _sizes(wide, mu, nu, n_groups, weight)
    expected = _ORACLE.cross_entropy(wide, mu, nu, n_groups)
    got = backend.to_numpy(backend.cross_entropy(*mine))
    findings = [_worst("cross_entropy", got, expected, eps * total + underflow, sum_error(n_units))]
    truths = _ORACLE.cross_entropy_gradients(wide, mu, nu, n_groups, weight)
    gradients = backend.cross_entropy_gradients(*mine, backend.asarray(upstream))
    for name, value, truth, terms in zip(gradients._fields, gradients, truths, scales, strict=True):
        if name == "mu" and dtype == np.float64:
            terms = terms + np.abs(weight * total)[:, None]
        n_terms = n_units if name in ("mu", "nu") else n_rows
        scale = eps * terms + underflow
        findings.append(_worst(f"gradient in {name}", backend.to_numpy(value), truth, scale, sum_error(n_terms)))
    return findings


def _sizes(
    machine: Machine, mu: Array, nu: Array, n_groups: int, upstream: Array
) -> tuple[Array, CrossEntropyGradients]:
    """Sums of the sizes of the terms that cross-entropies (B,) and their gradients are made of.

    Those of the definition are all positive for minus the sizes of the parameters. Where a group straddles both sides,
    an implementation may take nu for all of side 1 and correct the pairs inside that group by mu - nu.
    """
    n1, size = len(machine.a1), mu.shape[1] // n_groups
    a1, a2, W = (np.abs(x) for x in machine)
    u = np.abs(upstream)[:, None]
    if n_groups == 1 or n1 % size == 0:
        sizes = Machine(-a1, -a2, -W)
        gradients = _ORACLE.cross_entropy_gradients(sizes, mu, nu, n_groups, u[:, 0])
        return _ORACLE.cross_entropy(sizes, mu, nu, n_groups), CrossEntropyGradients(*(np.abs(x) for x in gradients))
    mu1, mu2, source = mu[:, :n1], mu[:, n1:], mu[:, :n1] + 2 * nu[:, :n1]
    field1, field2 = 2 * mu2 @ W.T, source @ W
    dmu, dnu = np.hstack([a1 + field1, a2 + field2]), np.hstack([field1, 0 * mu2])
    gradients = CrossEntropyGradients(u * dmu, u * dnu, (u * mu1).sum(0), (u * mu2).sum(0), source.T @ (u * mu2))
    return mu1 @ a1 + ((a2 + field2) * mu2).sum(axis=1), gradients


def log_mean_disagreements(backend: Backend, log_weights: Floats, pieces: tuple[int, ...] = ()) -> Finding:
    """A backend's log of the mean of e^w, taken in as many pieces as ``pieces`` cuts the columns into.

    In units of eps64 (1 + |largest w|): a rounding of the largest log-weight, which the result is built on.

    Shapes   log_weights (B, K), neither 0
    """
    running = None
    for piece in np.split(log_weights, list(pieces), axis=1):
        running = backend.importance_log_mean(backend.asarray(piece), running)
    assert running is not None
    expected = _ORACLE.importance_log_mean(log_weights)
    scale = _EPS64 * (1 + np.where(np.isfinite(expected.largest), np.abs(expected.largest), 0))
    got = backend.to_numpy(running.value)
    return _worst("log mean", got, expected.value, scale, sum_error(log_weights.shape[1]))


def _worst(name: str, got: Array, expected: Array, scale: Array, bound: float) -> Finding:
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = np.abs(got.astype(np.float64) - expected) / scale
    error = np.where(got == expected, 0.0, np.where(np.isnan(error), np.inf, error))
    i = np.unravel_index(int(np.argmax(error)), error.shape)
    where = f"entry {tuple(int(k) for k in i)}: got {float(got[i])!r}, expected {float(expected[i])!r}"
    return Finding(name, float(error[i]), bound, where)


def _on(backend: Backend, machine: Machine | RBM) -> Machine:
    return Machine(*(backend.asarray(getattr(machine, name)) for name in Machine._fields))


# ---- bits ------------------------------------------------------------------------------------------------------------


def gibbs_band(
    rbm: Machine | RBM,
    z1: Array,
    dtype: DTypeLike,
    inv_temp: Array | float = 1.0,
    coupling_error: tuple[float, float] = (0.0, 0.0),
) -> Array:
    """How far rounding can move x = b (a2 + z1 W), or the threshold it is compared with, of each unit of z2.

    A sum of N1 + 1 terms has errors of at most gamma = n h / (1 - n h) of the sum of its terms' sizes, with n = N1
    additions of one rounding h = eps / 2 each, in any order (Higham, "Accuracy and stability of numerical algorithms",
    section 4.2); two more allow for an inverse temperature, a bias between base and target, or a change of the
    logarithm's base. The threshold: see ``tolerances.GIBBS_THRESHOLD_ROUNDINGS``. The uniforms are exact. A backend may
    round couplings to a grid first: ``coupling_error`` as in ``tolerances.COUPLING_ERROR``, for each unit that is on.
    For the other side hand over the machine the other way round, RBM(a2, a1, W.T).

    Shapes   z1 (B, N1), inv_temp scalar or (B,) -> (B, N2)
    Domain   z1 in {0, 1}; dtype float32 or float64, the one a backend computes in
    """
    scale = np.reshape(np.asarray(inv_temp, dtype=np.float64), (-1, 1))
    a2, W = np.abs(np.asarray(rbm.a2, dtype=np.float64)), np.abs(np.asarray(rbm.W, dtype=np.float64))
    z1 = np.asarray(z1, dtype=np.float64)
    sizes = scale * (a2 + z1 @ W)
    eps = float(np.finfo(dtype).eps)
    band = _gamma(len(W) + 2, eps) * sizes + GIBBS_THRESHOLD_ROUNDINGS * eps
    band += _gamma(len(W) + 2, _EPS64) * sizes  # the reference's own
    of_sum, of_largest = coupling_error
    return np.asarray(band + scale * z1.sum(axis=1)[:, None] * (of_sum * W.sum(axis=0) + of_largest * W.max()))


def _band_of_the_judge(u: Array) -> Array:
    """The reference compares u with a rounded sigma(x), and the judge computes a threshold: both in float64."""
    return np.asarray(_EPS64 * (4 + np.abs(logit(u)) + 1 / (u * (1 - u))))


def coupling_error(backend: Backend, dtype: DTypeLike) -> tuple[float, float]:
    """How a backend rounds couplings, see ``tolerances.COUPLING_ERROR``."""
    return COUPLING_ERROR.get((backend.name, np.dtype(dtype).name), (0.0, 0.0))


def bits_of(backend: Backend, dtype: DTypeLike) -> Bits:
    """An empty count for the units of a backend."""
    return Bits(PROBABILITY_ROUNDINGS.get(backend.name, 0.0) * float(np.finfo(dtype).eps))


def _gamma(n: int, eps: float) -> float:
    return n * eps / 2 / (1 - n * eps / 2)


@dataclass
class Bits:
    """Units compared so far: how many, how many of them inside the band and how many were to be expected there.

    ``n_differing`` of those inside have another value than the reference, which is right as well; ``wrong`` lists the
    units outside that have (the first few of each comparison), ``n_wrong`` counts them. ``probability_error`` widens
    the band for those who compare u with a rounded probability, see ``tolerances.PROBABILITY_ROUNDINGS``.
    """

    probability_error: float = 0.0
    n_units: int = 0
    n_inside: int = 0
    n_expected: float = 0.0
    n_differing: int = 0
    n_wrong: int = 0
    wrong: list[str] = field(default_factory=list)

    def compare(self, name: str, z: Array, x: Array, u: Array, band: Array) -> None:
        """Judge the bits z of units with logits x and uniforms u; all (B, N)."""
        on, inside = self.meet(x, u, band)
        differs = (z != 0) != on
        self.n_differing += int((differs & inside).sum())
        wrong = np.argwhere(differs & ~inside | ~np.isin(z, (0, 1)))
        self.n_wrong += len(wrong)
        self.wrong += [f"{name}[{i}, {j}]={z[i, j]!r} with x={x[i, j]!r}, u={u[i, j]!r}" for i, j in wrong[:3]]

    def meet(self, x: Array, u: Array, band: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which units are on, and which lie inside the band; both counted."""
        threshold = logit(u)
        band = band + _band_of_the_judge(u) + self.probability_error / (1 - u)
        inside = np.abs(x - threshold) <= band
        self.n_units += x.size
        self.n_inside += int(inside.sum())
        self.n_expected += float((expit(x + band) - expit(x - band)).sum())
        return x > threshold, inside

    @property
    def rare(self) -> bool:
        """Whether about as many units met the band as its width lets one expect: a Poisson number, less than six
        standard deviations (and 2, for small numbers) above its mean.
        """
        return self.n_inside <= self.n_expected + 6 * np.sqrt(self.n_expected) + 2

    def finding(self, output: str) -> Finding:
        """What was found: not one unit may be wrong."""
        counts = f"{self.n_units} units, {self.n_inside} in the band (expected {self.n_expected:.2g}), "
        counts += f"{self.n_differing} of them differ"
        return Finding(output, float(self.n_wrong), 0.0, "; ".join([counts, *self.wrong[:1]]), "wrong bits")


def gibbs_bits(
    backend: Backend, machine: Machine, z1: Array, n_sweeps: int, seed: int, step: int, first_chain: int = 0
) -> Bits:
    """Run a backend's chains one sweep at a time, and judge every bit from the state before it.

    Shapes   machine NumPy arrays of one dtype; z1 (B, N1) of that dtype
    """
    dtype = machine.W.dtype
    rbm, mine = RBM(*machine), _on(backend, machine)
    other, extra = RBM(rbm.a2, rbm.a1, rbm.W.T), coupling_error(backend, dtype)
    bits = bits_of(backend, dtype)
    for now in range(step, step + n_sweeps):
        arrays = backend.gibbs(mine, backend.asarray(z1), 1, seed, now, first_chain)
        after1, after2 = (backend.to_numpy(array) for array in arrays)
        u2 = philox.uniforms(seed, now, len(z1), rbm.n2, philox.STREAM_Z2, first_chain)
        u1 = philox.uniforms(seed, now, len(z1), rbm.n1, philox.STREAM_Z1, first_chain)
        wide1, wide2 = z1.astype(np.float64), after2.astype(np.float64)
        bits.compare("z2", after2, rbm.a2 + wide1 @ rbm.W, u2, gibbs_band(rbm, wide1, dtype, 1.0, extra))
        bits.compare("z1", after1, rbm.a1 + wide2 @ rbm.W.T, u1, gibbs_band(other, wide2, dtype, 1.0, extra))
        z1 = after1
    return bits


def edge_bits(
    backend: Backend, W: Array, z1: Array, seed: int, step: int, first_chain: int = 0, distance: float = 1.1
) -> Bits:
    """Judge one sweep of one chain at a machine whose biases put every unit just outside the band.

    x = logit(u) plus or minus ``distance`` bands, for the uniforms that the chain meets: whatever moves a threshold by
    more than a band turns bits over, where a random machine would need a million units to show it.

    Shapes   W (N1, N2) of the dtype that is judged, z1 (1, N1)
    """
    dtype = W.dtype
    extra, rounded = coupling_error(backend, dtype), bits_of(backend, dtype).probability_error
    sides = []
    z, couplings, signs = z1.astype(np.float64), W.astype(np.float64), np.random.default_rng(step % 2**32)
    for stream in (philox.STREAM_Z2, philox.STREAM_Z1):
        n1, n2 = couplings.shape
        u = philox.uniforms(seed, step, 1, n2, stream, first_chain)[0]
        threshold, field = logit(u), (z @ couplings)[0]
        # The band grows with the bias, which is chosen from the band: twice is close enough, for units that end up
        # inside are not judged.
        bias = (threshold - field).astype(dtype)
        sign = signs.choice([-1.0, 1.0], n2)
        for _ in range(2):
            band = gibbs_band(Machine(np.zeros(n1), bias, couplings), z, dtype, 1.0, extra)[0]
            band = band + _band_of_the_judge(u) + rounded / (1 - u)
            bias = (threshold - field + sign * distance * band).astype(dtype)
        sides.append(bias)
        z = (bias.astype(np.float64) + field > threshold).astype(np.float64)[None]
        couplings = couplings.T
    a2, a1 = sides
    return gibbs_bits(backend, Machine(a1, a2, W), z1, 1, seed, step, first_chain)


# ---- annealing and tempering -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chains:
    """Chains compared: those that met the band anywhere on the reference's way are left out."""

    n_chains: int
    n_excluded: int
    error: float  # the largest difference of the others, in ``unit``
    bits: Bits
    unit: str

    def finding(self, output: str, bound: float) -> Finding:
        """What was found."""
        where = f"{self.n_chains} chains, {self.n_excluded} excluded by {self.bits.n_inside} of "
        where += f"{self.bits.n_units} units in the band (expected {self.bits.n_expected:.2g})"
        return Finding(output, self.error, bound, where, self.unit)


def tempering_chains(
    backend: Backend,
    machine: Machine,
    inv_temps: Array,
    n_chains: int,
    n_rounds: int,
    seed: int,
    first_round: int = 0,
    z1: Array | None = None,
    sweeps_per_round: int = 1,
) -> Chains:
    """Judge a backend's tempering; the error is the number of chains that are wrong in any bit of any replica.

    Exchanges must be decided by energies in float64. n_accepted is compared where no chain was left out.
    """
    rbm, dtype = RBM(*machine), machine.W.dtype
    start = None if z1 is None else backend.asarray(z1)
    got = backend.tempering(
        _on(backend, machine), inv_temps, n_chains, n_rounds, seed, first_round, start, sweeps_per_round
    )
    rounds = tempering.replica_rounds(rbm, inv_temps, n_chains, seed, sweeps_per_round, first_round, z1)
    n_rows = len(inv_temps) * n_chains
    if z1 is None:
        z1 = (philox.uniforms(seed, 0, n_rows, rbm.n1, philox.STREAM_TEMPERING_INIT) < 0.5).astype(np.float64)
    bits, met = bits_of(backend, dtype), np.zeros(n_chains, dtype=bool)
    n_accepted = np.zeros(len(inv_temps) - 1, dtype=np.int64)
    row_inv_temp = np.repeat(inv_temps, n_chains)
    streams = philox.STREAM_TEMPERING_Z2, philox.STREAM_TEMPERING_Z1
    for index, one in enumerate(itertools.islice(rounds, n_rounds), first_round):
        for step in range(index * sweeps_per_round, (index + 1) * sweeps_per_round):
            z1, z2, hit = _sweep(
                bits, rbm, z1, seed, step, streams, dtype, row_inv_temp, coupling_error(backend, dtype)
            )
            met |= hit.reshape(-1, n_chains).any(axis=0)
        met |= _swaps_met(rbm, z1, z2, np.asarray(inv_temps), n_chains, seed, index)
        z1, z2, n_accepted = one.z1, one.z2, n_accepted + one.n_accepted
    wrong = np.zeros(n_chains, dtype=bool)
    for state, expected in ((got.z1, z1), (got.z2, z2)):
        wrong |= (backend.to_numpy(state) != expected).any(axis=1).reshape(-1, n_chains).any(axis=0)
    n_wrong = int((wrong & ~met).sum())
    if not met.any() and not np.array_equal(backend.to_numpy(got.n_accepted), n_accepted):
        n_wrong += n_chains
    return Chains(n_chains, int(met.sum()), n_wrong, bits, "wrong chains")


def _swaps_met(
    rbm: RBM, z1: Array, z2: Array, inv_temps: Array, n_chains: int, seed: int, round_: int
) -> NDArray[np.bool_]:
    """Chains with an exchange that rounding of the energies, in float64, may decide either way.

    Shapes   z1, z2 (R C, N) before the exchange -> (C,)
    """
    sizes = RBM(*(-np.abs(x) for x in (rbm.a1, rbm.a2, rbm.W)))
    energies, errors = (energy(machine, z1, z2).reshape(-1, n_chains) for machine in (rbm, sizes))
    log_ratio = np.diff(inv_temps)[:, None] * np.diff(energies, axis=0)
    gap = np.abs(np.log(philox.uniforms(seed, round_, n_chains, len(inv_temps) - 1, philox.STREAM_SWAP).T) - log_ratio)
    rounding = 2 * _gamma(rbm.n1 + rbm.n2 + 2, _EPS64) * np.diff(inv_temps)[:, None] * (errors[1:] + errors[:-1])
    return np.asarray((gap <= rounding + 16 * _EPS64).any(axis=0))


def annealing_chains(
    backend: Backend,
    machine: Machine,
    base: tuple[Array, Array],
    inv_temps: Array,
    seed: int,
    n_chains: int | None = None,
    z1: Array | None = None,
    first_chain: int = 0,
) -> Chains:
    """Judge a backend's annealing, forward for ``n_chains`` or in reverse from ``z1``; the error is in nats."""
    rbm, dtype = RBM(*machine), machine.W.dtype
    independent = RBM(*base, np.zeros_like(rbm.W))
    mine = _on(backend, machine), tuple(backend.asarray(bias) for bias in base)
    extra, bits = coupling_error(backend, dtype), bits_of(backend, dtype)
    if z1 is None:
        assert n_chains is not None
        got = backend.ais(*mine, inv_temps, n_chains, seed, first_chain)
        expected = partition.anneal(rbm, independent, inv_temps, n_chains, seed, first_chain)
        path, streams = np.asarray(inv_temps), (philox.STREAM_FORWARD_Z2, philox.STREAM_FORWARD_Z1)
        u = philox.uniforms(seed, 0, n_chains, rbm.n1, philox.STREAM_FORWARD_INIT, first_chain)
        x = np.broadcast_to(independent.a1, u.shape)
        start, inside = bits.meet(x, u, np.full(u.shape, GIBBS_THRESHOLD_ROUNDINGS * float(np.finfo(dtype).eps)))
        z, met = start.astype(np.float64), np.asarray(inside.any(axis=1))
    else:
        got = backend.reverse_ais(*mine, inv_temps, backend.asarray(z1), seed, first_chain)
        expected = partition.anneal_reverse(rbm, independent, inv_temps, z1, seed, first_chain)
        path, streams = np.asarray(inv_temps)[::-1], (philox.STREAM_REVERSE_Z2, philox.STREAM_REVERSE_Z1)
        z, met = z1.astype(np.float64), np.zeros(len(z1), dtype=bool)
    for step, b in enumerate(path[1:-1]):
        a1, a2 = partition.path_biases(rbm, independent, b)
        here = RBM(a1, a2, b * rbm.W)
        # A bias on the way is a sum of two, whose sizes count.
        a1, a2 = ((1 - b) * np.abs(x) + b * np.abs(y) for x, y in zip(base, machine[:2], strict=True))
        sizes = RBM(a1, a2, here.W)
        z, _, hit = _sweep(bits, here, z, seed, step, streams, dtype, 1.0, extra, first_chain, sizes)
        met |= hit
    weights = backend.to_numpy(got)
    assert weights.dtype == np.float64
    with np.errstate(invalid="ignore"):
        error = np.where(np.isfinite(weights), np.abs(weights - expected), np.inf)[~met]
    return Chains(len(met), int(met.sum()), float(error.max(initial=0.0)), bits, "nats")


def _sweep(
    bits: Bits,
    rbm: RBM,
    z1: Array,
    seed: int,
    step: int,
    streams: tuple[int, int],
    dtype: DTypeLike,
    inv_temp: Array | float,
    extra: tuple[float, float],
    first_chain: int = 0,
    sizes: RBM | None = None,
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """One sweep of the reference, and which of its chains met the band; ``sizes``: what the machine was summed from."""
    sizes = rbm if sizes is None else sizes
    u2 = philox.uniforms(seed, step, len(z1), rbm.n2, streams[0], first_chain)
    u1 = philox.uniforms(seed, step, len(z1), rbm.n1, streams[1], first_chain)
    after1, z2 = gibbs.sweep(rbm, z1, u2, u1, inv_temp)
    scale = np.reshape(np.asarray(inv_temp, dtype=np.float64), (-1, 1))
    _, hit2 = bits.meet(scale * (rbm.a2 + z1 @ rbm.W), u2, gibbs_band(sizes, z1, dtype, inv_temp, extra))
    other = RBM(sizes.a2, sizes.a1, sizes.W.T)
    _, hit1 = bits.meet(scale * (rbm.a1 + z2 @ rbm.W.T), u1, gibbs_band(other, z2, dtype, inv_temp, extra))
    return after1, z2, np.asarray(hit2.any(axis=1) | hit1.any(axis=1))


# ---- all of it -------------------------------------------------------------------------------------------------------


class _Inputs:
    """Seeded inputs of one operation: machines, states and addresses of noise, of one dtype."""

    def __init__(self, cases: Cases, seed: int, operation: str, size: int) -> None:
        self.cases, self.size, self.dtype = cases, size, cases.rho.dtype
        self.rng = np.random.default_rng([seed, *operation.encode()])
        self.seed, self.step = int(self.rng.integers(2**62)) * 4 + 3, int(self.rng.integers(2**54))
        self.first_chain = int(self.rng.integers(2**31))
        self.sides = size, size + 29

    def normal(self, scale: float, *shape: int) -> Array:
        return np.asarray((scale * self.rng.standard_normal(shape)).astype(self.dtype))

    def coins(self, *shape: int) -> Array:
        return np.asarray(self.rng.integers(2, size=shape).astype(self.dtype))

    def machine(self, n1: int, n2: int) -> Machine:
        return Machine(self.normal(1, n1), self.normal(1, n2), self.normal(2 / np.sqrt(n1), n1, n2))


def _examine_inverse_cdf(backend: Backend, inputs: _Inputs, kind: str) -> Iterator[Finding]:
    some = few_sharpnesses(inputs.cases)
    yield from disagreements(inverse_cdf(backend, kind), some)
    if is_mixture(kind):
        yield from posterior_disagreements(backend, kind, some)


def _examine_entropy(backend: Backend, inputs: _Inputs) -> Iterator[Finding]:
    yield from entropy_disagreements(backend, np.resize(inputs.cases.logit_q, (17, inputs.size + 1)))


def _examine_cross_entropy(backend: Backend, inputs: _Inputs) -> Iterator[Finding]:
    for n1, n2, n_groups in ((inputs.size, inputs.size, 2), (*inputs.sides, 1), (3, 3, 3), (1, 3, 4)):
        mu, nu = inputs.rng.uniform(size=(2, 9, n1 + n2)).astype(inputs.dtype)
        machine, upstream = inputs.machine(n1, n2), inputs.normal(1, 9)
        for finding in cross_entropy_disagreements(backend, machine, mu, nu, n_groups, upstream):
            yield replace(finding, output=f"{finding.output}, {n1} x {n2}, groups: {n_groups}")


def _examine_gibbs(backend: Backend, inputs: _Inputs) -> Iterator[Finding]:
    address = inputs.seed, inputs.step, inputs.first_chain
    for n1, n2 in (inputs.sides, inputs.sides[::-1], (1, 3)):
        bits = gibbs_bits(backend, inputs.machine(n1, n2), inputs.coins(129, n1), 5, *address)
        yield bits.finding(f"bits, {n1} x {n2}")
    for n1, n2 in (inputs.sides, (1, inputs.size), (inputs.size, 1)):
        bits = edge_bits(backend, inputs.machine(n1, n2).W, inputs.coins(1, n1), *address)
        yield bits.finding(f"bits at the edge, {n1} x {n2}")


def _examine_tempering(backend: Backend, inputs: _Inputs) -> Iterator[Finding]:
    ladder = np.linspace(0.0, 1.0, 5)
    for n1, n2 in (inputs.sides, (1, 3)):
        machine, states = inputs.machine(n1, n2), inputs.coins(5 * 17, n1)
        chains = tempering_chains(backend, machine, ladder, 17, 3, inputs.seed)
        yield chains.finding(f"chains from fair coins, {n1} x {n2}", 0.0)
        chains = tempering_chains(backend, machine, ladder, 17, 3, inputs.seed, 3, states, 2)
        yield chains.finding(f"chains carried on, {n1} x {n2}", 0.0)


def _examine_annealing(backend: Backend, inputs: _Inputs, reverse: bool) -> Iterator[Finding]:
    path, bound = np.linspace(0.0, 1.0, 13), ANNEALING_LOG_WEIGHT[inputs.dtype.name]
    for n1, n2 in (inputs.sides, (1, 3)):
        machine, base = inputs.machine(n1, n2), (inputs.normal(1, n1), inputs.normal(1, n2))
        z1, n_chains = (inputs.coins(65, n1), None) if reverse else (None, 65)
        chains = annealing_chains(backend, machine, base, path, inputs.seed, n_chains, z1, inputs.first_chain)
        yield chains.finding(f"log-weights, {n1} x {n2}", bound)


def _examine_log_mean(backend: Backend, inputs: _Inputs) -> Iterator[Finding]:
    # One weight decides, and all of them do.
    for name, spread in (("far apart", 300), ("alike", 1)):
        found = log_mean_disagreements(backend, inputs.normal(spread, 17, inputs.size), (1, inputs.size // 2))
        yield replace(found, output=f"{found.output} of weights {name}")


_EXAMINATIONS: dict[str, Callable[[Backend, _Inputs], Iterator[Finding]]] = {
    "entropy": _examine_entropy,
    "cross_entropy": _examine_cross_entropy,
    "gibbs": _examine_gibbs,
    "tempering": _examine_tempering,
    "ais": lambda backend, inputs: _examine_annealing(backend, inputs, reverse=False),
    "reverse_ais": lambda backend, inputs: _examine_annealing(backend, inputs, reverse=True),
    "importance_log_mean": _examine_log_mean,
}


def examine(
    backend: Backend, operation: str, cases: Cases, seed: int, size: int = 100, kind: str = "exponential"
) -> Iterator[Finding]:
    """One operation of a backend on seeded inputs of the dtype of ``cases``.

    Machines have sides of ``size`` and ``size`` + 29 units, or of very few. ``kind`` is that of the inverse CDF. The
    gradients of the cross-entropy are judged with it.
    """
    inputs = _Inputs(cases, seed, operation, size)
    if operation == "inverse_cdf":
        return _examine_inverse_cdf(backend, inputs, kind)
    return _EXAMINATIONS[operation](backend, inputs)


def examine_all(backend: Backend, cases: Cases, seed: int, size: int = 100) -> Iterator[tuple[str, Finding]]:
    """Every operation a backend has, with every kind of the inverse CDF: its name and what was found."""
    for operation in ("inverse_cdf", *_EXAMINATIONS):
        if operation in backend.operations():
            for kind in getattr(backend, "kinds", KINDS) if operation == "inverse_cdf" else ("",):
                for finding in examine(backend, operation, cases, seed, size, kind):
                    yield operation, finding


N_RANDOM = 3000
_QUICK_STEP = 7  # coprime to the lengths of the edge grid, so that a thinned grid still meets every edge


def tasks(subject: Subject, request: Request) -> list[Task]:
    """Every operation of a backend or a torch twin, in every dtype; the reference agrees with itself."""
    if subject.name == subjects.REFERENCE:
        return []
    wanted = [name for name in ("inverse_cdf", *_EXAMINATIONS) if name in subject.operations and request.wants(name)]
    if subject.name in SUBJECTS:  # annealing and tempering of the twin draw noise of their own
        wanted = [name for name in wanted if name not in ("tempering", "ais", "reverse_ais")]
    kinds = [kind for kind in request.kinds if kind in subject.kinds]
    return [
        Task("agreement", subject.name, operation, kind, dtype, request.seed, request.quick)
        for operation in wanted
        for kind in (kinds if operation == "inverse_cdf" else [""])
        for dtype in request.dtypes
    ]


def perform(task: Task) -> Iterator[Finding]:
    """Examine the operation."""
    cases = all_cases(N_RANDOM, np.dtype(task.dtype), task.seed)[:: _QUICK_STEP if task.quick else 1]
    backend = subjects.backend(task.subject)
    yield from examine(backend, task.operation, cases, task.seed, kind=task.kind)
