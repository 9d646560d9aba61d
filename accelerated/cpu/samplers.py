"""The samplers of the backend ``numba_cpu``: arguments checked, rows cut between threads, ``walk`` called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from accelerated.arguments import (
    Sizes,
    check_address,
    check_base,
    check_machine,
    check_output,
    check_path,
    check_rows,
    check_tempering,
)
from accelerated.cpu import gibbs, tables, threads, walk, weights
from accelerated.cpu.philox import LANES, fill_uniforms
from accelerated.protocol import TemperedReplicas
from reference import philox
from reference.bernoulli import sigmoid, softplus
from reference.vocabulary import Array, DomainError, check_binary, check_count, check_finite

_WORK = 1 << 16  # units to draw that are worth a thread
_PIECES, _ROWS = 4, 100  # most pieces for each thread, and least chains in one, that tables are fetched for


class Samplers:
    """The operations that draw random numbers; see ``accelerated.protocol.Backend`` for each."""

    n_threads: int

    def gibbs(
        self,
        rbm: Any,
        z1: Any,
        n_sweeps: int,
        seed: int,
        step: int,
        first_chain: int = 0,
        out: tuple[Any, Any] | None = None,
    ) -> tuple[Array, Array]:
        """See ``accelerated.protocol.Backend.gibbs``."""
        sizes = _check_finite_machine(rbm)
        n_chains = check_rows("z1", z1, sizes.n1, sizes.dtype)
        n_sweeps = check_count("n_sweeps", n_sweeps)
        seed, step, first_chain = check_address(seed, step, n_sweeps, n_chains, first_chain)
        z1 = np.asarray(z1)
        if out is None:
            out = np.empty((n_chains, sizes.n1), sizes.dtype), np.empty((n_chains, sizes.n2), sizes.dtype)
        else:
            for name, target, n in (("out[0]", out[0], sizes.n1), ("out[1]", out[1], sizes.n2)):
                check_output(name, target, (n_chains, n), sizes.dtype)
        machine = _Machine(rbm, sizes)

        def run(start: int, stop: int) -> None:
            rows = machine.rows(np.arange(first_chain + start, first_chain + stop), z1[start:stop])
            rows.walk(np.ones(1), n_sweeps, seed, step, (philox.STREAM_Z1, philox.STREAM_Z2))
            rows.decode(out[0][start:stop], out[1][start:stop])

        self._over_chains(run, n_chains, n_sweeps * (sizes.n1 + sizes.n2))
        return out

    def tempering(
        self,
        rbm: Any,
        inv_temps: Any,
        n_chains: int,
        n_rounds: int,
        seed: int,
        first_round: int = 0,
        z1: Any = None,
        sweeps_per_round: int = 1,
    ) -> TemperedReplicas:
        """See ``accelerated.protocol.Backend.tempering``. The replicas of a chain stay in one thread."""
        sizes = _check_finite_machine(rbm)
        ladder, n_chains, n_rounds, seed, first_round, sweeps, n_rows = check_tempering(
            sizes, inv_temps, n_chains, n_rounds, seed, first_round, z1, sweeps_per_round
        )
        n_replicas = len(ladder)
        if z1 is None:
            coins = philox.uniforms(seed, 0, n_rows, sizes.n1, philox.STREAM_TEMPERING_INIT) < 0.5
            z1 = coins.astype(sizes.dtype)
        starts = np.asarray(z1).reshape(n_replicas, n_chains, sizes.n1)
        ends = np.empty((n_replicas, n_chains, sizes.n1), sizes.dtype), np.empty((n_rows, sizes.n2), sizes.dtype)
        z2 = ends[1].reshape(n_replicas, n_chains, sizes.n2)
        machine, streams = _Machine(rbm, sizes), (philox.STREAM_TEMPERING_Z1, philox.STREAM_TEMPERING_Z2)

        def run(start: int, stop: int) -> Array:
            own, n_own = np.arange(start, stop), stop - start
            chains = (np.arange(n_replicas)[:, None] * n_chains + own).ravel()
            rows = machine.rows(chains, starts[:, start:stop].reshape(-1, sizes.n1), np.repeat(ladder, n_own))
            swaps = _Swaps(n_replicas, own)
            n_accepted, energies = np.zeros(n_replicas - 1, np.int64), np.empty(rows.n_rows)
            for round_ in range(first_round, first_round + n_rounds):
                rows.walk(np.ones(1), sweeps, seed, round_ * sweeps, streams)
                machine.energies(machine.sides, rows.state1, rows.state2, rows.work, energies)
                u = swaps.uniforms(seed, round_)
                walk.exchange(energies, ladder, u, round_ % 2, n_own, n_own, rows.state1, rows.state2, n_accepted)
            first, second = (np.empty((len(chains), n), sizes.dtype) for n in (sizes.n1, sizes.n2))
            rows.decode(first, second)
            ends[0][:, start:stop] = first.reshape(n_replicas, n_own, -1)
            z2[:, start:stop] = second.reshape(n_replicas, n_own, -1)
            return n_accepted

        n_units = n_rounds * sweeps * n_replicas * (sizes.n1 + sizes.n2)
        n_accepted = sum(self._over_chains(run, n_chains, n_units))
        return TemperedReplicas(ends[0].reshape(n_rows, sizes.n1), ends[1], n_accepted)

    def ais(self, rbm: Any, base: Any, inv_temps: Any, n_chains: int, seed: int, first_chain: int = 0) -> Array:
        """See ``accelerated.protocol.Backend.ais``."""
        sizes = _check_finite_machine(rbm)
        a1, a2 = _finite_base(base, sizes)
        path, n_chains = check_path(inv_temps), check_count("n_chains", n_chains)
        seed, _, first_chain = check_address(seed, 0, len(path), n_chains, first_chain)
        u = philox.uniforms(seed, 0, n_chains, sizes.n1, philox.STREAM_FORWARD_INIT, first_chain)
        z1 = (u < sigmoid(a1)).astype(sizes.dtype)
        streams = (philox.STREAM_FORWARD_Z1, philox.STREAM_FORWARD_Z2)
        return (
            softplus(a1).sum()
            + softplus(a2).sum()
            + self._anneal(rbm, sizes, (a1, a2), path, z1, seed, streams, first_chain)
        )

    def reverse_ais(self, rbm: Any, base: Any, inv_temps: Any, z1: Any, seed: int, first_chain: int = 0) -> Array:
        """See ``accelerated.protocol.Backend.reverse_ais``."""
        sizes = _check_finite_machine(rbm)
        a1, a2 = _finite_base(base, sizes)
        path, n_chains = check_path(inv_temps), check_rows("z1", z1, sizes.n1, sizes.dtype)
        seed, _, first_chain = check_address(seed, 0, len(path), n_chains, first_chain)
        streams = (philox.STREAM_REVERSE_Z1, philox.STREAM_REVERSE_Z2)
        weights = self._anneal(rbm, sizes, (a1, a2), path[::-1].copy(), np.asarray(z1), seed, streams, first_chain)
        return weights - (softplus(a1).sum() + softplus(a2).sum())

    def _anneal(
        self,
        rbm: Any,
        sizes: Sizes,
        base: tuple[Array, Array],
        path: Array,
        z1: Array,
        seed: int,
        streams: tuple[int, int],
        first_chain: int,
    ) -> Array:
        machine, result = _Machine(rbm, sizes, base), np.empty(len(z1))

        def run(start: int, stop: int) -> None:
            rows = machine.rows(np.arange(first_chain + start, first_chain + stop), z1[start:stop], is_weighted=True)
            rows.walk(path, len(path) - 1, seed, 0, streams)
            result[start:stop] = rows.annealing.log_weights[: stop - start]

        self._over_chains(run, len(z1), (len(path) - 1) * (sizes.n1 + 3 * sizes.n2))
        return result

    def _over_chains(self, run: Callable[[int, int], Any], n_chains: int, n_units: int) -> list[Any]:
        """Results of ``run`` for slices of the chains, of which each has n_units to draw."""
        n_threads = min(check_count("n_threads", self.n_threads), max(1, -(-n_chains * n_units // _WORK)))
        return threads.over(run, n_chains, n_threads, min(_PIECES, n_chains // (n_threads * _ROWS)), gibbs.ROWS)


class _Machine:
    """A machine laid out for the kernels, and the kernels of its dtype."""

    def __init__(self, rbm: Any, sizes: Sizes, base: tuple[Array, Array] | None = None) -> None:
        self.dtype = sizes.dtype
        self.sides = tables.sides(np.asarray(rbm.a1), np.asarray(rbm.a2), np.asarray(rbm.W))
        self.bases = tuple(np.zeros_like(side.bias) for side in self.sides)
        if base is not None:
            for laid_out, side, bias in zip(self.bases, self.sides, base, strict=True):
                laid_out[side.column] = bias
        is_single = sizes.dtype == np.float32
        self.walk = walk.walk32 if is_single else walk.walk64
        self.energies = walk.energies32 if is_single else walk.energies64

    def rows(self, chains: Array, z1: Array, inv_temps: Array | None = None, is_weighted: bool = False) -> _Rows:
        """Chains that start at z1, to be carried on by one thread."""
        return _Rows(self, chains, z1, inv_temps, is_weighted)


class _Rows:
    """Some rows of a machine's chains: their states, and the scratch of the thread that carries them on."""

    def __init__(self, machine: _Machine, chains: Array, z1: Array, inv_temps: Array | None, is_weighted: bool) -> None:
        self.machine, self.n_rows = machine, -(-len(chains) // gibbs.ROWS) * gibbs.ROWS
        self.chains = np.zeros(self.n_rows, np.uint32)
        self.chains[: len(chains)] = chains
        self.inv_temps = np.ones(self.n_rows, machine.dtype)
        if inv_temps is not None:
            self.inv_temps[: len(chains)] = inv_temps
        self.state1, self.state2 = (
            np.zeros((side.n_wide + side.n_narrow, self.n_rows), np.uint32) for side in machine.sides
        )
        self.work = gibbs.workspace(machine.sides, self.n_rows, machine.dtype.type)
        self.annealing = weights.annealing(*machine.sides, machine.bases[0], self.n_rows, is_weighted)
        # Contiguous: the kernel is compiled for nothing else.
        if not tables.encode(np.ascontiguousarray(z1), machine.sides[0].column, self.state1):
            check_binary("z1", z1)

    def walk(self, path: Array, n_steps: int, seed: int, step: int, streams: tuple[int, int]) -> None:
        """Carry the states on; see ``accelerated.cpu.walk``."""
        machine = self.machine
        machine.walk(
            machine.sides,
            machine.bases,
            path,
            self.inv_temps,
            self.chains,
            n_steps,
            np.uint64(seed),
            step,
            streams,
            self.work,
            self.annealing,
            self.state1,
            self.state2,
        )

    def decode(self, z1: Array, z2: Array) -> None:
        """Write the states as zeros and ones."""
        for side, state, z in zip(self.machine.sides, (self.state1, self.state2), (z1, z2), strict=True):
            tables.decode(state, side.column, z)


class _Swaps:
    """The uniforms of exchanges, round by round, of some chains."""

    def __init__(self, n_replicas: int, chains: Array) -> None:
        self.chains = np.zeros(-(-len(chains) // LANES) * LANES, np.uint32)
        self.chains[: len(chains)] = chains
        n_units = -(-(n_replicas - 1) // tables.UNITS) * tables.UNITS
        self.u = np.empty((n_units, len(self.chains)), np.float32)
        self.scratch = np.empty(n_units, np.uint64), np.empty(len(self.chains), np.uint64)

    def uniforms(self, seed: int, round_: int) -> Array:
        """Of each pair of replicas and each chain; valid until the next call."""
        fill_uniforms(np.uint64(seed), round_, philox.STREAM_SWAP, self.chains, *self.scratch, self.u)
        return self.u


def _check_finite_machine(rbm: Any) -> Sizes:
    """``check_machine``, and values: on the CPU a look is free."""
    sizes = check_machine(rbm)
    for name in ("a1", "a2", "W"):
        check_finite(name, np.asarray(getattr(rbm, name)))
    return sizes


def _finite_base(base: Any, sizes: Sizes) -> tuple[Array, Array]:
    """Biases of the base as float64.

    Raises   DomainError for couplings, or for an entry that is not finite; as ``check_base`` besides.
    """
    if hasattr(base, "W") and np.any(np.asarray(base.W) != 0):
        raise DomainError("base.W must be 0, so that the log Z of the base is known")
    a1, a2 = (np.asarray(bias).astype(np.float64) for bias in check_base(base, sizes))
    for name, bias in (("base.a1", a1), ("base.a2", a2)):
        check_finite(name, bias)
    return a1, a2
