"""A process for ``test_sabotage.py``: runs the agreement checks on a copy of ``accelerated`` with one line changed.

    python workshop.py FOLDER BACKEND < [[name, operations, file, old, new], ...]        (JSON)

FOLDER holds the copy, and is where Python looks for packages first. The changes are made one after the other, each
undone before the next, and the backend is imported anew for each; the judge and the reference are never touched. Prints
one line of JSON for each: its name, the number of findings, and those that do not hold. A change without a file changes
nothing.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

import accelerated
from accelerated.protocol import Machine
from validation import agreement
from validation.cases import Cases
from validation.tolerances import ANNEALING_LOG_WEIGHT

REIMPORTED = (
    "accelerated.backends.numba",
    "accelerated.cpu",
    "accelerated.cuda_numba",
    "accelerated.scalar",
    "accelerated.jit",
)
ADDRESS = 2**40 + 7, 2**33 + 5, 11  # seed, step, first chain


def inputs(dtype):
    """A small machine, whose sides are no multiples of 4, states, and a base."""
    rng = np.random.default_rng(1)
    machine = Machine(*(rng.normal(size=shape).astype(dtype) for shape in (5, 7, (5, 7))))
    states = rng.integers(2, size=(12, 5)).astype(dtype)
    return rng, machine, states, tuple(rng.normal(size=n).astype(dtype) for n in (5, 7))


def gibbs(backend, dtype):
    _, machine, states, _ = inputs(dtype)
    yield agreement.gibbs_bits(backend, machine, states[:6], 2, *ADDRESS).finding("bits")
    for n1, n2 in ((5, 7), (1, 9)):
        W, z1 = (0.3 * np.ones((n1, n2))).astype(dtype), np.ones((1, n1), dtype)
        yield agreement.edge_bits(backend, W, z1, *ADDRESS).finding("edge")


def tempering(backend, dtype):
    _, machine, states, _ = inputs(dtype)
    ladder = np.array([0.2, 0.6, 1.0])
    for start, first_round in ((None, 0), (states, 5)):
        chains = agreement.tempering_chains(backend, machine, ladder, 4, 3, ADDRESS[0], first_round, start)
        yield chains.finding("chains", 0)


def ais(backend, dtype):
    _, machine, _, base = inputs(dtype)
    path = np.array([0.0, 0.3, 0.7, 1.0])
    chains = agreement.annealing_chains(backend, machine, base, path, ADDRESS[0], 6, None, ADDRESS[2])
    yield chains.finding("weights", ANNEALING_LOG_WEIGHT[np.dtype(dtype).name])


def reverse_ais(backend, dtype):
    _, machine, states, base = inputs(dtype)
    path = np.array([0.0, 0.3, 0.7, 1.0])
    chains = agreement.annealing_chains(backend, machine, base, path, ADDRESS[0], None, states[:6], ADDRESS[2])
    yield chains.finding("weights", ANNEALING_LOG_WEIGHT[np.dtype(dtype).name])


def inverse_cdf(backend, dtype):
    rho, logit_q = np.meshgrid([1e-6, 0.2, 0.5, 0.97], [-20.0, -1.5, 0.3, 4.0])
    for kind in agreement.KINDS:
        cases = Cases(*(x.ravel().astype(dtype) for x in (rho, logit_q, np.full(rho.shape, 7.0))))
        yield from agreement.disagreements(agreement.inverse_cdf(backend, kind), cases)
        yield from agreement.posterior_disagreements(backend, kind, cases)


def entropy(backend, dtype):
    yield from agreement.entropy_disagreements(backend, np.linspace(-9, 9, 15, dtype=dtype).reshape(3, 5))


def cross_entropy(backend, dtype):
    rng, machine, _, _ = inputs(dtype)
    mu, nu, upstream = (rng.uniform(size=shape).astype(dtype) for shape in ((3, 12), (3, 12), 3))
    for n_groups in (1, 2, 3):
        yield from agreement.cross_entropy_disagreements(backend, machine, mu, nu, n_groups, upstream)


def importance_log_mean(backend, dtype):
    rng, _, _, _ = inputs(dtype)
    yield agreement.log_mean_disagreements(backend, (30 * rng.normal(size=(3, 7))).astype(dtype), (2, 3))


def fresh(backend):
    """The backend, imported anew."""
    for name in [name for name in sys.modules if name.startswith(REIMPORTED)]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return accelerated.load(backend)


def main(folder, backend):
    assert Path(accelerated.__file__).is_relative_to(folder), accelerated.__file__
    for name, operations, file, old, new in json.load(sys.stdin):
        path = folder / file if file else None
        if path:
            source = path.read_text()
            assert source.count(old) == 1, f"{name}: {old!r} is in {file} {source.count(old)} times, not once"
            path.write_text(source.replace(old, new))
        judged = fresh(backend)
        findings = [x for operation in operations for x in globals()[operation](judged, np.float64)]
        if path:
            path.write_text(source)
        failed = [str(finding) for finding in findings if not finding.holds]
        print(json.dumps([name, len(findings), failed]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
