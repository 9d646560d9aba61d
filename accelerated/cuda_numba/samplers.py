"""The samplers: checks of arguments, memory, one launch each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from accelerated.arguments import (
    check_address,
    check_base,
    check_machine,
    check_path,
    check_rows,
    check_step_array,
    check_tempering,
)
from accelerated.cuda_numba import annealing, tempering
from accelerated.cuda_numba.annealing import annealing_kernel
from accelerated.cuda_numba.arrays import machine_view, output, view
from accelerated.cuda_numba.chains import SHARED_BYTES, n_groups, n_lanes, tile_rows
from accelerated.cuda_numba.gibbs import gibbs_kernel
from accelerated.cuda_numba.launching import Launching
from accelerated.cuda_numba.tempering import tempering_kernel
from accelerated.protocol import TemperedReplicas
from reference.philox import (
    STREAM_FORWARD_Z1,
    STREAM_FORWARD_Z2,
    STREAM_REVERSE_Z1,
    STREAM_REVERSE_Z2,
)
from reference.vocabulary import Array, ShapeError, check_count

_DOUBLE = np.dtype(np.float64)


class Samplers(Launching):
    """Gibbs sampling, tempering and annealing; see ``accelerated.protocol.Backend`` for each."""

    def gibbs(
        self,
        rbm: Any,
        z1: Any,
        n_sweeps: int,
        seed: int,
        step: Any,
        first_chain: int = 0,
        out: tuple[Any, Any] | None = None,
    ) -> tuple[Any, Any]:
        """See ``accelerated.protocol.Backend.gibbs``. All sweeps in one launch."""
        rbm = machine_view(rbm)
        sizes, start = check_machine(rbm), view("z1", z1)
        n_chains = check_rows("z1", start, sizes.n1, sizes.dtype)
        n_sweeps = check_count("n_sweeps", n_sweeps)
        moved = self._step_array(step)
        seed, first, first_chain = check_address(
            seed, 0 if moved is not None else step, n_sweeps, n_chains, first_chain
        )
        if moved is None:
            moved = self.zero()
        stream = self.launch_stream()
        shape1, shape2 = (n_chains, sizes.n1), (n_chains, sizes.n2)
        result1, result2 = (self.new(shape1, sizes.dtype), self.new(shape2, sizes.dtype)) if out is None else out
        out1, out2 = output("out[0]", result1, shape1, sizes.dtype), output("out[1]", result2, shape2, sizes.dtype)
        if n_chains:
            rows = self._tile(n_chains, sizes.dtype)
            n_bytes = 4 * (n_groups(sizes.n1) + n_groups(sizes.n2))
            _check_shared(n_bytes, f"the states of {rows} chains of {sizes.n1} + {sizes.n2} units")
            packed1, packed2 = self.packed(rbm, sizes.dtype)
            kernel = gibbs_kernel(rows, sizes.dtype)
            kernel[-(-n_chains // rows), self.threads_for(n_groups(max(sizes.n1, sizes.n2))), stream, n_bytes](
                start, packed1, packed2, sizes.n1, sizes.n2, n_sweeps, *_key(seed), np.uint64(first), moved,
                np.uint64(first_chain), out1, out2,
            )  # fmt: skip
        return result1, result2

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
        """See ``accelerated.protocol.Backend.tempering``. Sums in float64; all rounds in one launch.

        Raises   ShapeError too for a ladder whose states do not fit in a block's shared memory.
        """
        rbm, z1 = machine_view(rbm), None if z1 is None else view("z1", z1)
        sizes = check_machine(rbm)
        ladder, n_chains, n_rounds, seed, first_round, sweeps_per_round, n_rows = check_tempering(
            sizes, inv_temps, n_chains, n_rounds, seed, first_round, z1, sweeps_per_round
        )
        n_replicas = len(ladder)

        rows = self._tile(n_rows, _DOUBLE)
        n_bytes = tempering.shared_bytes(rows, n_replicas, sizes.n1, sizes.n2)
        _check_shared(n_bytes, f"the states of {n_replicas} replicas of {sizes.n1} + {sizes.n2} units")
        stream = self.launch_stream()
        out1 = self.new((n_rows, sizes.n1), sizes.dtype)
        out2 = self.new((n_rows, sizes.n2), sizes.dtype)
        n_accepted = cuda.to_device(np.zeros(n_replicas - 1, dtype=np.int64), stream=stream)
        n_each = tempering.chains_per_block(rows, n_replicas)
        packed1, packed2 = self.packed(rbm, _DOUBLE)
        kernel = tempering_kernel(rows)
        kernel[-(-n_chains // n_each), self.threads_for(n_groups(max(sizes.n1, sizes.n2))), stream, n_bytes](
            out1 if z1 is None else z1, z1 is None, cuda.to_device(ladder, stream=stream), n_chains, n_each,
            n_lanes(n_groups(max(sizes.n1, sizes.n2))), packed1, packed2, sizes.n1, sizes.n2, n_rounds, first_round,
            sweeps_per_round, *_key(seed), n_accepted, out1, out2,
        )  # fmt: skip
        return TemperedReplicas(out1, out2, n_accepted)

    def ais(self, rbm: Any, base: Any, inv_temps: Any, n_chains: int, seed: int, first_chain: int = 0) -> Any:
        """See ``accelerated.protocol.Backend.ais``. In float64 throughout; all temperatures in one launch."""
        n_chains = check_count("n_chains", n_chains)
        path = check_path(inv_temps)
        streams = STREAM_FORWARD_Z2, STREAM_FORWARD_Z1
        return self._anneal(rbm, base, path, None, n_chains, seed, first_chain, streams)

    def reverse_ais(self, rbm: Any, base: Any, inv_temps: Any, z1: Any, seed: int, first_chain: int = 0) -> Any:
        """See ``accelerated.protocol.Backend.reverse_ais``. In float64 throughout; all temperatures in one launch."""
        sizes, start = check_machine(machine_view(rbm)), view("z1", z1)
        n_chains = check_rows("z1", start, sizes.n1, sizes.dtype)
        path = np.ascontiguousarray(check_path(inv_temps)[::-1])
        streams = STREAM_REVERSE_Z2, STREAM_REVERSE_Z1
        return self._anneal(rbm, base, path, start, n_chains, seed, first_chain, streams)

    def _anneal(
        self,
        rbm: Any,
        base: Any,
        path: Array,
        z1: Any,
        n_chains: int,
        seed: int,
        first_chain: int,
        streams: tuple[int, int],
    ) -> Any:
        rbm = machine_view(rbm)
        sizes = check_machine(rbm)
        a1, a2 = (base.a1, base.a2) if hasattr(base, "a1") else base
        biases = check_base((view("base.a1", a1), view("base.a2", a2)), sizes)
        seed, _, first_chain = check_address(seed, 0, len(path) - 1, n_chains, first_chain)
        rows = self._tile(n_chains, _DOUBLE)
        n_bytes = annealing.shared_bytes(rows, sizes.n1, sizes.n2)
        _check_shared(n_bytes, f"the states of {rows} chains of {sizes.n1} + {sizes.n2} units")
        stream = self.launch_stream()
        log_weights = self.new((n_chains,), _DOUBLE)
        if n_chains:
            packed1, packed2 = self.packed(rbm, _DOUBLE, biases)
            # A rising path starts from draws of the base: a matrix of no rows stands in for those of z1.
            start = self.new((0, sizes.n1), sizes.dtype) if z1 is None else z1
            most = n_groups(max(sizes.n1, sizes.n2))
            annealing_kernel(rows)[-(-n_chains // rows), self.threads_for(most), stream, n_bytes](
                start, z1 is None, cuda.to_device(path, stream=stream), n_lanes(most),
                packed1, packed2, sizes.n1, sizes.n2, *_key(seed), *(np.uint64(number) for number in streams),
                np.uint64(first_chain), log_weights,
            )  # fmt: skip
        return log_weights

    def _tile(self, n_chains: int, dtype: np.dtype[Any]) -> int:
        return self.rows or tile_rows(n_chains, dtype)

    def _step_array(self, step: Any) -> Any:
        """The step as a device array, or None for a number."""
        if not (hasattr(step, "__cuda_array_interface__") or getattr(step, "__cuda_ndarray__", False)):
            return None
        array = view("step", step)
        check_step_array(array)
        return array.reshape(1)


def _key(seed: int) -> tuple[np.uint64, np.uint64]:
    return np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)


def _check_shared(n_bytes: int, what: str) -> None:
    if n_bytes > SHARED_BYTES:
        raise ShapeError(
            f"{what} must fit in the {SHARED_BYTES} bytes of shared memory that a block has; they take {n_bytes}"
        )
