"""Samplers in CUDA C++: the host's side, which checks arguments, chooses a kernel and launches it.

Which kernel computes a result depends on the dtype and the size of the machine, and on the device's shared memory:

    float32, gibbs, up to 224 units a side    gibbs.cu: couplings stay on the multiprocessor, one launch for all sweeps
    float32, gibbs, up to 8192 units a side   tiles.cu: couplings stream through L2, a launch for each half of a sweep
    float64, gibbs                            gibbs_double.cu
    tempering, ais, reverse_ais               tempering.cu, annealing.cu: in double for both dtypes

224 x 224 takes 162 KiB of shared memory a block; where a device has less, fewer units stay and tiles.cu begins sooner.

The number of chains decides only how they are spread over blocks. That changes no bit: in float32 a logit's sums are of
whole numbers, exact in any order (slices.cuh); in double every block adds in the same order.

Logits of the float32 kernels are those of couplings rounded to multiples of 2**-23 of the power of two above the
largest |W|, rounded twice more. Those of the others are float64's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelerated.arguments import (
    check_address,
    check_base,
    check_machine,
    check_path,
    check_rows,
    check_step_array,
    check_tempering,
)
from accelerated.cuda_raw.device import Gpu, c_type, machine_on, output
from accelerated.protocol import Machine, TemperedReplicas
from reference.vocabulary import Array, DomainError, check_count

#: Units of a tile, of the larger side of the largest machine that stays on a multiprocessor, and of the largest whose
#: sums are exact: 2**11 for each unit, at most 2**24.
TILE_UNITS, RESIDENT_UNITS, LARGEST_UNITS = 16, 224, 8192

_DOUBLE_THREADS = 256  # of gibbs_double.cu, annealing.cu and tempering.cu
_SMALL_THREADS = 256  # of the small kernels in tiles.cu
_MEASURED = 256  # partial results of the largest |W|
_STATIC_BYTES = 512  # of shared memory that a kernel has besides: annealing.cu, the most
_BLOCK_CHAINS = 64  # what a block carries at most where there are many chains


class Samplers:
    """gibbs, tempering, ais and reverse_ais; see ``accelerated.protocol.Backend`` for each."""

    gpu: Gpu

    def __init__(self) -> None:
        # One for each device, stream and size, and kept: a CUDA graph goes on using what it saw while it was captured.
        self._scratch: dict[tuple[Any, ...], _Scratch] = {}

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
        """See ``accelerated.protocol.Backend.gibbs``. With ``out`` nothing is allocated after the first call."""
        sizes = check_machine(rbm)
        n_chains = check_rows("z1", z1, sizes.n1, sizes.dtype)
        n_sweeps = check_count("n_sweeps", n_sweeps)  # at least one: it is the sweep that draws z2
        on_device = None if isinstance(step, (int, float, np.number)) else self._step(step)
        seed, first_step, first_chain = check_address(
            seed, 0 if on_device is not None else step, n_sweeps, n_chains, first_chain
        )
        machine, start = machine_on(self.gpu, rbm), self.gpu.contiguous(self.gpu.array("z1", z1))
        shapes = (n_chains, sizes.n1), (n_chains, sizes.n2)
        if out is None:
            states = tuple(self.gpu.empty(shape, sizes.dtype) for shape in shapes)
        else:
            names = ("out[0]", "out[1]")
            states = tuple(
                output(self.gpu, name, array, shape, sizes.dtype)
                for name, array, shape in zip(names, out, shapes, strict=True)
            )
        if n_chains:
            tail = np.uint32(first_chain), n_sweeps, np.uint64(seed), np.uint64(first_step), on_device
            if sizes.dtype == np.float64:
                self._gibbs_double(machine, start, states, *tail)
            elif fits(sizes.n1, sizes.n2, self.gpu.shared_bytes):
                self._gibbs_resident(machine, start, states, *tail)
            else:
                self._gibbs_tiles(machine, start, states, *tail)
        return (states[0], states[1]) if out is None else out

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
        """See ``accelerated.protocol.Backend.tempering``. Computed in double, for float32 machines too."""
        sizes = check_machine(rbm)
        ladder, n_chains, n_rounds, seed, first_round, sweeps_per_round, n_rows = check_tempering(
            sizes, inv_temps, n_chains, n_rounds, seed, first_round, z1, sweeps_per_round
        )
        n_replicas = len(ladder)
        if z1 is not None:
            z1 = self.gpu.contiguous(self.gpu.array("z1", z1))

        block_chains = max(1, 8 // n_replicas)
        n_columns = _up(block_chains * n_replicas, 8)
        n_words = _words(sizes.n1) + _words(sizes.n2)
        shared_bytes = n_columns * (8 * n_words + 8 + 8 + 4 + 4 * n_words)
        if shared_bytes > self.gpu.shared_bytes:
            raise DomainError(
                f"inv_temps must be few enough that the replicas of a chain fit one block; {n_replicas} of "
                f"{sizes.n1} + {sizes.n2} units need {shared_bytes} bytes of {self.gpu.shared_bytes}"
            )
        machine = machine_on(self.gpu, rbm)
        z1_out = self.gpu.empty((n_rows, sizes.n1), sizes.dtype)
        z2_out = self.gpu.empty((n_rows, sizes.n2), sizes.dtype)
        n_accepted = self.gpu.zeros(n_replicas - 1, np.int64)
        self.gpu.kernel("tempering.cu", f"temper<{c_type(sizes.dtype)}>")(
            -(-n_chains // block_chains),
            _DOUBLE_THREADS,
            (
                *machine,
                self.gpu.upload(ladder),
                z1,
                z1_out,
                z2_out,
                n_accepted,
                np.int32(sizes.n1),
                np.int32(sizes.n2),
                self._vectors(machine.W),
                np.int32(n_replicas),
                np.int32(n_chains),
                np.int32(block_chains),
                np.int64(first_round),
                np.int32(n_rounds),
                np.int32(sweeps_per_round),
                np.uint64(seed),
            ),
            shared_bytes,
        )
        return TemperedReplicas(z1_out, z2_out, n_accepted)

    def ais(self, rbm: Any, base: Any, inv_temps: Any, n_chains: int, seed: int, first_chain: int = 0) -> Any:
        """See ``accelerated.protocol.Backend.ais``. Computed in double, for float32 machines too."""
        return self._anneal(
            rbm, base, check_path(inv_temps), None, check_count("n_chains", n_chains), seed, first_chain
        )

    def reverse_ais(self, rbm: Any, base: Any, inv_temps: Any, z1: Any, seed: int, first_chain: int = 0) -> Any:
        """See ``accelerated.protocol.Backend.reverse_ais``. Computed in double, for float32 machines too."""
        sizes, path = check_machine(rbm), check_path(inv_temps)
        n_chains = check_rows("z1", z1, sizes.n1, sizes.dtype)
        return self._anneal(rbm, base, path[::-1], z1, n_chains, seed, first_chain)

    def _anneal(self, rbm: Any, base: Any, path: Array, z1: Any, n_chains: int, seed: int, first_chain: int) -> Any:
        sizes = check_machine(rbm)
        base1, base2 = check_base(base, sizes)
        n_steps = len(path) - 1
        seed, _, first_chain = check_address(seed, 0, n_steps, n_chains, first_chain)
        machine = machine_on(self.gpu, rbm)
        base1 = self.gpu.contiguous(self.gpu.array("base.a1", base1))
        base2 = self.gpu.contiguous(self.gpu.array("base.a2", base2))
        if z1 is not None:
            z1 = self.gpu.contiguous(self.gpu.array("z1", z1))
        log_weights = self.gpu.empty(n_chains, np.float64)
        if n_chains:
            self.gpu.kernel("annealing.cu", f"anneal<{c_type(sizes.dtype)}>")(
                -(-n_chains // 8),
                _DOUBLE_THREADS,
                (
                    *machine,
                    base1,
                    base2,
                    self.gpu.upload(np.ascontiguousarray(path)),
                    z1,
                    log_weights,
                    np.int32(sizes.n1),
                    np.int32(sizes.n2),
                    self._vectors(machine.W),
                    np.int32(n_steps),
                    np.int64(n_chains),
                    np.uint32(first_chain),
                    np.uint64(seed),
                ),
                self._double_bytes(sizes.n1, sizes.n2),
            )
        return log_weights

    def _gibbs_double(
        self, machine: Machine, z1: Any, out: tuple[Any, ...], first_chain: Any, n_sweeps: int, *address: Any
    ) -> None:
        n1, n2 = machine.W.shape
        self.gpu.kernel("gibbs_double.cu", "gibbs_double")(
            -(-len(z1) // 8),
            _DOUBLE_THREADS,
            (
                *machine,
                z1,
                *out,
                np.int32(n1),
                np.int32(n2),
                self._vectors(machine.W),
                np.int64(len(z1)),
                first_chain,
                np.int32(n_sweeps),
                *address,
            ),
            self._double_bytes(n1, n2),
        )

    def _gibbs_resident(
        self, machine: Machine, z1: Any, out: tuple[Any, ...], first_chain: Any, n_sweeps: int, *address: Any
    ) -> None:
        n1, n2 = machine.W.shape
        plan = resident_plan(n1, n2, len(z1), self.gpu.n_multiprocessors, self.gpu.shared_bytes)
        self.gpu.kernel("gibbs.cu", plan.expression)(
            plan.n_blocks,
            plan.n_threads,
            (
                *machine,
                z1,
                *out,
                np.int32(n1),
                np.int32(n2),
                np.int64(len(z1)),
                first_chain,
                np.int32(plan.n_groups),
                np.int32(n_sweeps),
                *address,
            ),
            plan.shared_bytes,
        )

    def _gibbs_tiles(
        self,
        machine: Machine,
        z1: Any,
        out: tuple[Any, ...],
        first_chain: Any,
        n_sweeps: int,
        seed: Any,
        step: Any,
        on_device: Any,
    ) -> None:
        n1, n2 = machine.W.shape
        if max(n1, n2) > LARGEST_UNITS:
            raise DomainError(f"a float32 machine must have at most {LARGEST_UNITS} units a side; got {n1} and {n2}")
        n_chains = len(z1)
        scratch = self._scratch_of(n1, n2, n_chains)
        rows, columns = scratch.slices.shape[1:]
        padded_chains = len(scratch.states1)

        def small(expression: str, n_items: int, *arguments: Any) -> None:
            n_blocks = min(-(-n_items // _SMALL_THREADS), 8 * self.gpu.n_multiprocessors)
            self.gpu.kernel("tiles.cu", expression)(n_blocks, _SMALL_THREADS, arguments)

        self.gpu.kernel("tiles.cu", "measure")(
            _MEASURED, _SMALL_THREADS, (machine.W, np.int64(n1 * n2), scratch.largest)
        )
        small(
            "cut",
            rows * columns,
            machine.W,
            scratch.largest,
            np.int32(_MEASURED),
            scratch.slices,
            np.int32(n1),
            np.int32(n2),
            np.int32(rows),
            np.int32(columns),
        )
        n_bytes1, n_bytes2 = rows // 8, columns // 8
        small(
            "pack",
            padded_chains * n_bytes1,
            z1,
            scratch.states1,
            np.int32(n1),
            np.int32(n_bytes1),
            np.int64(n_chains),
            np.int64(padded_chains),
        )
        # Wide blocks use what they have fetched for more chains; narrow ones are for batches that would leave part of
        # the device idle.
        wide = padded_chains // 64 * (min(rows, columns) // 64) >= self.gpu.n_multiprocessors
        group = 8 if wide else 2
        chain_blocks = padded_chains // (8 * group)
        sides = (
            (2, machine.a2, scratch.states1, scratch.states2, n2, columns, n_bytes1),
            (1, machine.a1, scratch.states2, scratch.states1, n1, rows, n_bytes2),
        )
        for sweep in range(n_sweeps):
            for side, bias, source, target, n_units, padded_units, source_bytes in sides:
                self.gpu.kernel("tiles.cu", f"draw_tiles<{side}, {group}>")(
                    chain_blocks * (padded_units // 64),
                    128,
                    (
                        scratch.slices,
                        scratch.largest[_MEASURED:],
                        bias,
                        source,
                        target,
                        np.int32(n_units),
                        np.int32(rows),
                        np.int32(columns),
                        np.int32(chain_blocks),
                        first_chain,
                        seed,
                        step + np.uint64(sweep),
                        on_device,
                    ),
                    _tile_bytes(side, group, source_bytes),
                )
        for states, z, n_units, n_bytes in (
            (scratch.states1, out[0], n1, n_bytes1),
            (scratch.states2, out[1], n2, n_bytes2),
        ):
            small("spread", n_chains * n_units, states, z, np.int32(n_units), np.int32(n_bytes), np.int64(n_chains))

    def _scratch_of(self, n1: int, n2: int, n_chains: int) -> _Scratch:
        rows, columns, padded_chains = _up(n1, 64), _up(n2, 64), _up(n_chains, 64)
        key = (*self.gpu.context, rows, columns, padded_chains)
        if key not in self._scratch:
            self._scratch[key] = _Scratch(self.gpu, rows, columns, padded_chains)
        return self._scratch[key]

    def _double_bytes(self, n1: int, n2: int) -> int:
        """Shared memory for the states of a block's 8 chains in gibbs_double.cu and annealing.cu."""
        n_bytes = 8 * (_words(n1) + _words(n2)) * 4
        if n_bytes > self.gpu.shared_bytes - _STATIC_BYTES:
            raise DomainError(
                f"a machine must be small enough that the states of 8 chains fit one block; {n1} + {n2} units need "
                f"{n_bytes} bytes of {self.gpu.shared_bytes - _STATIC_BYTES}"
            )
        return n_bytes

    def _vectors(self, W: Any) -> Any:
        """Whether every row of W starts where four entries can be read at once."""
        return np.int32(W.shape[1] % 4 == 0 and self.gpu.address(W) % 16 == 0)

    def _step(self, step: Any) -> Any:
        array = self.gpu.array("step", step)
        check_step_array(array)
        return array


class Resident:
    """How ``gibbs.cu`` is launched: the kernel's name, and how chains are spread over blocks."""

    def __init__(self, n1: int, n2: int, group: int, n_groups: int, n_chains: int) -> None:
        tiles1, tiles2 = -(-n1 // TILE_UNITS), -(-n2 // TILE_UNITS)
        n_warps = max(tiles1, tiles2)
        # Fragments kept in registers: as many as the compiler manages without local memory (a test asks it).
        kept = 13 - group if n_warps <= 12 else 10 if group == 1 else 7
        left = max(tiles1 - kept, 0) + max(tiles2 - kept, 0)
        n_state_words = ((tiles1 + 1) // 2 | 1) + ((tiles2 + 1) // 2 | 1)
        self.expression = f"gibbs<{tiles1}, {tiles2}, {group}, {kept}>"
        self.n_threads, self.n_groups = 32 * n_warps, n_groups
        self.blocks_at_once = 2 if group == 2 and n_warps <= 8 else 1  # on one multiprocessor: Plan::BLOCKS
        self.n_blocks = -(-n_chains // (8 * group * n_groups))
        couplings = TILE_UNITS * tiles1 * (TILE_UNITS * tiles2 + 8) * 2
        self.shared_bytes = couplings + n_warps * left * 32 * 16 + 8 * group * n_groups * n_state_words * 4


def fits(n1: int, n2: int, shared_bytes: int) -> bool:
    """Whether a float32 machine can stay on a multiprocessor, with as many chains as a block carries at most."""
    most = Resident(n1, n2, 1, _BLOCK_CHAINS // 8, _BLOCK_CHAINS)
    return max(n1, n2) <= RESIDENT_UNITS and most.shared_bytes <= shared_bytes - _STATIC_BYTES


def resident_plan(n1: int, n2: int, n_chains: int, n_multiprocessors: int, shared_bytes: int) -> Resident:
    """Spread chains over blocks: 8 to a block until every multiprocessor has one, then as evenly as waves allow."""
    if n_chains <= 8 * n_multiprocessors:
        return Resident(n1, n2, 1, 1, n_chains)
    for group in (2, 1):
        n_slots = n_multiprocessors * Resident(n1, n2, group, 1, n_chains).blocks_at_once
        n_waves = -(-n_chains // (_BLOCK_CHAINS * n_slots))
        block_chains = -(-n_chains // (n_waves * n_slots))
        plan = Resident(n1, n2, group, -(-block_chains // (8 * group)), n_chains)
        if plan.shared_bytes <= shared_bytes - _STATIC_BYTES:
            break
    return plan


class _Scratch:
    """Memory between the launches of tiles.cu."""

    def __init__(self, gpu: Gpu, rows: int, columns: int, padded_chains: int) -> None:
        self.largest = gpu.empty(_MEASURED + 1, np.float32)
        self.slices = gpu.empty((2, rows, columns), np.uint16)
        self.states1 = gpu.empty((padded_chains, rows // 8), np.uint8)
        self.states2 = gpu.empty((padded_chains, columns // 8), np.uint8)


def _tile_bytes(side: int, group: int, source_bytes: int) -> int:
    n_stages, n_rows, stride = 3, *((32, 64 + 8) if side == 2 else (64, 32 + 8))
    return n_stages * 2 * n_rows * stride * 2 + 8 * group * (source_bytes // 4 | 1) * 4


def _words(n_units: int) -> int:
    return -(-n_units // 32)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
