"""Speed on the CPU beside the peers: ``python -m benchmarks.cpu``, or ``make bench``. About ten minutes on two cores.

Writes benchmarks/DATE-cpu.json, .md and .png. ``--quick`` takes three rounds and smaller problems and writes nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import accelerated
from accelerated import Backend
from accelerated.protocol import Machine, Smoothed
from benchmarks import peers
from benchmarks.peers import GibbsProblem, Missing
from benchmarks.pictures import scaling_picture
from benchmarks.report import HERE, Case, cases_of, environment, rows, write
from benchmarks.timing import Timing, measure
from benchmarks.training import iteration_case_of_a_command, replicas_cases
from dvaepp.command import parse, run
from dvaepp.environment import cpu_name, peak_memory

PROG = "benchmarks.cpu"
OURS = "dvaepp, numba_cpu"
_BETA = 10.0


@dataclass(frozen=True)
class Command:
    """Time the CPU kernels beside what a user could pick instead."""

    sections: tuple[str, ...] = ("gibbs", "ais", "transforms", "training", "replicas", "scaling")
    """Sections to run."""
    rounds: int = 9
    """Rounds in which all candidates take turns."""
    quick: bool = False
    """Three rounds, smaller problems, nothing written."""


def gibbs_cases(backend: Backend, command: Command) -> list[Case]:
    """Block Gibbs sampling of the two sizes of Table 2."""
    cases = []
    for n, n_chains in ((100, 1000), (100, 4096), (200, 1000), (200, 4096)):
        problem = GibbsProblem.random(n, n, n_chains, n_sweeps=4 if command.quick else 40)
        machine = Machine(problem.a1, problem.a2, problem.W)
        found = {name: peer(problem) for name, peer in peers.GIBBS.items()}
        candidates: dict[str, Callable[[], object]] = {
            OURS: partial(backend.gibbs, machine, problem.z1, problem.n_sweeps, seed=0, step=0),
            **{name: peer for name, peer in found.items() if not isinstance(peer, Missing)},
        }
        timings = measure(candidates, _rounds(command))
        missing = {name: peer for name, peer in found.items() if isinstance(peer, Missing)}
        table = rows(timings, problem.n_updates / 1e6, OURS, missing)
        title = f"Block Gibbs, {n}x{n}, {n_chains} chains, {problem.n_sweeps} sweeps, float32"
        cases.append(Case(title, "million unit updates per second", table))
    return cases


def ais_cases(backend: Backend, command: Command) -> list[Case]:
    """log Z of a 200x200 machine by annealed importance sampling; estimates are compared, not only times."""
    n_temperatures, n_chains = (50, 128) if command.quick else (1000, 1024)
    problem = GibbsProblem.random(200, 200, n_chains, n_sweeps=n_temperatures)
    machine = Machine(problem.a1, problem.a2, problem.W)
    base = np.zeros(200, np.float32), np.zeros(200, np.float32)
    inv_temps = np.linspace(0, 1, n_temperatures + 1)

    def ours() -> float:
        log_weights = backend.ais(machine, base, inv_temps, n_chains, seed=0)
        return float(backend.importance_log_mean(log_weights[None]).value[0])

    found = {name: peer(problem, n_temperatures) for name, peer in peers.AIS.items()}
    candidates = {OURS: ours, **{name: peer for name, peer in found.items() if not isinstance(peer, Missing)}}
    estimates: dict[str, list[float]] = {name: [] for name in candidates}

    def kept(name: str) -> Callable[[], None]:
        return lambda: estimates[name].append(float(candidates[name]()))

    timings = measure({name: kept(name) for name in candidates}, 2 if command.quick else 3)
    missing = {name: peer for name, peer in found.items() if isinstance(peer, Missing)}
    notes = [
        f"log Z by {name}: {np.mean(values):.4f} (mean of {len(values)} runs)" for name, values in estimates.items()
    ]
    title = f"AIS, 200x200, {n_temperatures} temperatures, {n_chains} chains, float32"
    table = rows(timings, problem.n_updates / 1e6, OURS, missing)
    return [Case(title, "million unit updates per second", table, notes)]


def transform_cases(backend: Backend, command: Command) -> list[Case]:
    """The inverse CDF of the overlapping exponentials with its derivative in the logits."""
    from dvaepp.smoothing import OverlappingExponential

    cases = []
    for n in (10**5,) if command.quick else (10**6, 10**7):
        rng = np.random.default_rng(0)
        rho, logit_q = rng.random(n, dtype=np.float32), 3 * rng.standard_normal(n, dtype=np.float32)
        out = Smoothed(np.empty_like(rho), np.empty_like(rho))
        r, logit = torch.from_numpy(rho), torch.from_numpy(logit_q)
        twin = OverlappingExponential(_BETA)
        candidates: dict[str, Callable[[], object]] = {
            OURS: partial(backend.inverse_cdf, "exponential", rho, logit_q, _BETA, out=out),
            "eq. (3) in plain torch, forward and backward": peers.forward_and_backward(
                partial(peers.plain_inverse_cdf, r, beta=_BETA), logit
            ),
            "dvaepp, torch, forward and backward": peers.forward_and_backward(partial(twin.inverse_cdf, r), logit),
            "RelaxedBernoulli, sample and backward": peers.relaxed_bernoulli(logit),
        }
        title = f"Inverse CDF and its derivative in the logits, {n:.0e} elements, float32"
        cases.append(
            Case(title, "million elements per second", rows(measure(candidates, _rounds(command)), n / 1e6, OURS))
        )
    return cases


def scaling_cases(backend: Backend, command: Command) -> list[Case]:
    """Time against chains and sweeps, and peak memory against sweeps, with the picture."""
    sizes = (64, 256) if command.quick else (256, 512, 1024, 2048, 4096, 8192, 16384)
    sweeps = (2, 8) if command.quick else (10, 20, 40, 80, 160, 320, 640)
    by_chains, by_sweeps = {}, {}
    for n_chains in sizes:
        by_chains[n_chains] = _gibbs_timing(backend, n_chains, 40, command)
    for n_sweeps in sweeps:
        by_sweeps[n_sweeps] = _gibbs_timing(backend, 1000, n_sweeps, command)
    memory = {n_sweeps: memory_of_sampling(n_sweeps) for n_sweeps in sweeps}
    if not command.quick:
        scaling_picture(by_chains, by_sweeps, memory)
    fitted = [
        f"seconds grow as {what} to the power {_slope(timings):.3f}"
        for what, timings in (("chains", by_chains), ("sweeps", by_sweeps))
    ]
    span = max(memory.values()) - min(memory.values())
    notes = [
        *fitted,
        f"peak memory of a process that samples differs by {span / 1e6:.1f} MB over all numbers of sweeps",
    ]
    first = {f"{n} chains, 40 sweeps": t for n, t in by_chains.items()}
    second = {f"1000 chains, {n} sweeps": t for n, t in by_sweeps.items()}
    ours = next(iter(first))
    return [
        Case(
            "Growth with chains and sweeps, 200x200, float32", "calls per second", rows(first | second, 1, ours), notes
        )
    ]


def _gibbs_timing(backend: Backend, n_chains: int, n_sweeps: int, command: Command) -> Timing:
    problem = GibbsProblem.random(200, 200, n_chains, n_sweeps)
    machine = Machine(problem.a1, problem.a2, problem.W)
    call = partial(backend.gibbs, machine, problem.z1, n_sweeps, 0, 0)
    return measure({OURS: call}, _rounds(command))[OURS]


def _slope(timings: dict[int, Timing]) -> float:
    """Exponent of the power law through the medians."""
    return float(np.polyfit(np.log(list(timings)), np.log([t.median for t in timings.values()]), 1)[0])


def memory_of_sampling(n_sweeps: int) -> int:
    """Bytes a fresh process holds at most while it samples; measured there, for a maximum cannot be reset."""
    code = f"from benchmarks.cpu import sample_and_print_memory; sample_and_print_memory({n_sweeps})"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def sample_and_print_memory(n_sweeps: int) -> None:
    """Sample 1,000 chains of a 200x200 machine and print the process's peak memory in bytes; Linux only."""
    problem = GibbsProblem.random(200, 200, 1000, n_sweeps)
    machine = Machine(problem.a1, problem.a2, problem.W)
    accelerated.load("numba_cpu").gibbs(machine, problem.z1, n_sweeps, 0, 0)
    print(peak_memory(torch.device("cpu")))


def _rounds(command: Command) -> int:
    return 3 if command.quick else command.rounds


def training_cases(backend: Backend, command: Command) -> list[Case]:
    """A whole training iteration, with our Gibbs sampling and with torch's."""
    return [iteration_case_of_a_command(backend.name, 3 if command.quick else 20)]


def replica_cases(backend: Backend, command: Command) -> list[Case]:
    """Several seeds as one batched model."""
    return replicas_cases(torch.device("cpu"), backend.name, _rounds(command))


SECTIONS = {
    "gibbs": gibbs_cases,
    "ais": ais_cases,
    "transforms": transform_cases,
    "training": training_cases,
    "replicas": replica_cases,
    "scaling": scaling_cases,
}


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(Command, arguments, PROG)
    backend = accelerated.load("numba_cpu")
    cases = cases_of(SECTIONS, command.sections, backend, command)
    env = environment(cpu_name())
    if command.quick:
        from benchmarks.report import markdown

        print(markdown("quick", env, cases, "python -m benchmarks.cpu --quick"))
        return 0
    shown = "make bench" if command.sections == Command().sections else f"python -m {PROG} {' '.join(arguments)}"
    for path in write("cpu", env, cases, shown):
        print(path.relative_to(HERE.parent))
    return 0


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
