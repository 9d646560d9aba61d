"""Correctness and then speed on a CUDA device: ``python -m benchmarks.gpu``, or ``make gpu-check``.

Runs ``pytest -m gpu`` first and stops if anything fails: a fast wrong number is worth nothing. Then times the
transforms against the device's copy bandwidth and Gibbs sampling against torch replayed from a CUDA graph, and writes
benchmarks/DATE-gpu.json and .md, which name the device.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import accelerated
from accelerated import Backend, BackendUnavailable
from accelerated.protocol import KINDS, Machine, Smoothed
from benchmarks import peers
from benchmarks.peers import GibbsProblem, Missing
from benchmarks.report import HERE, Case, environment, rows, write
from benchmarks.timing import measure, on_device
from benchmarks.training import factorial_case, iteration_case, iteration_timings, replicas_cases
from dvaepp.command import parse, run
from dvaepp.errors import ConfigError

PROG = "benchmarks.gpu"
_BETA = 10.0
_BYTES = 16  # an element of float32 read (rho, logit) and written (zeta, derivative)
_COPY = "copy of as many bytes"
_BACKENDS = ("cupy_raw", "numba_cuda")


@dataclass(frozen=True)
class Command:
    """Judge the CUDA kernels on this machine's device, then time them."""

    rounds: int = 11
    """Rounds in which all candidates take turns."""
    skip_tests: bool = False
    """Only time; the record then says that nothing was judged."""


def transform_cases(backends: dict[str, Backend], command: Command) -> list[Case]:
    """Every kind's inverse CDF and derivative, beside a copy that moves as many bytes."""
    cases = []
    for n in (10**7, 10**8):
        rho = torch.rand(n, device="cuda")
        logit_q = 3 * torch.randn(n, device="cuda")
        out = Smoothed(torch.empty_like(rho), torch.empty_like(rho))
        source, target = torch.empty(2 * n, device="cuda"), torch.empty(2 * n, device="cuda")
        for kind in KINDS:
            candidates: dict[str, Callable[[], object]] = {_COPY: partial(target.copy_, source)}
            for name, backend in backends.items():
                candidates[f"dvaepp, {name}"] = partial(backend.inverse_cdf, kind, rho, logit_q, _BETA, out=out)
            if kind == "exponential":
                candidates["eq. (3) in plain torch, forward and backward"] = peers.forward_and_backward(
                    partial(peers.plain_inverse_cdf, rho, beta=_BETA), logit_q
                )
            timings = measure(candidates, command.rounds, on_device(5))
            title = f"Inverse CDF and its derivative, {kind}, {n:.0e} elements, float32"
            table = rows(timings, _BYTES * n / 1e9, _COPY)
            cases.append(Case(title, "GB/s (times are in units of the copy's)", table))
    return cases


def graphed(problem: GibbsProblem) -> Callable[[], object]:
    """All sweeps of ``rand < sigmoid`` captured in one CUDA graph: torch without the cost of its launches."""
    a1, a2, W, state = problem.tensors("cuda")
    state = state.clone()

    def sweeps() -> None:
        z1 = state
        for _ in range(problem.n_sweeps):
            z1, _ = peers.torch_sweep(a1, a2, W, z1)
        state.copy_(z1)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        sweeps()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sweeps()
    return graph.replay


def gibbs_cases(backends: dict[str, Backend], command: Command) -> list[Case]:
    """Block Gibbs sampling beside torch in a CUDA graph."""
    cases = []
    for n in (100, 200):
        for n_chains in (1000, 65_536):
            problem = GibbsProblem.random(n, n, n_chains, n_sweeps=40)
            a1, a2, W, z1 = problem.tensors("cuda")
            machine, out = Machine(a1, a2, W), (z1.clone(), torch.empty(n_chains, n, device="cuda"))
            candidates: dict[str, Callable[[], object]] = {"torch, rand < sigmoid, CUDA graph": graphed(problem)}
            for name, backend in backends.items():
                candidates[f"dvaepp, {name}"] = partial(backend.gibbs, machine, z1, 40, 0, 0, out=out)
            timings = measure(candidates, command.rounds, on_device(3))
            title = f"Block Gibbs, {n}x{n}, {n_chains} chains, 40 sweeps, float32"
            table = rows(timings, problem.n_updates / 1e6, f"dvaepp, {next(iter(backends))}")
            cases.append(Case(title, "million unit updates per second", table))
    return cases


def ais_cases(backends: dict[str, Backend], command: Command) -> list[Case]:
    """Annealing of a 200x200 machine."""
    n_temperatures, n_chains = 1000, 1024
    problem = GibbsProblem.random(200, 200, n_chains, n_temperatures)
    a1, a2, W, _ = problem.tensors("cuda")
    machine, base = Machine(a1, a2, W), (torch.zeros_like(a1), torch.zeros_like(a2))
    path = np.linspace(0, 1, n_temperatures + 1)
    notes = []
    candidates: dict[str, Callable[[], object]] = {}
    for name, backend in backends.items():
        candidates[f"dvaepp, {name}"] = partial(backend.ais, machine, base, path, n_chains, 0)
        weights = torch.from_numpy(np.asarray(backend.to_numpy(backend.ais(machine, base, path, n_chains, 0))))
        value = float(torch.logsumexp(weights, 0)) - math.log(n_chains)
        notes.append(f"log Z by {name}: {value:.4f}")
    timings = measure(candidates, 3, on_device(1))
    title = f"AIS, 200x200, {n_temperatures} temperatures, {n_chains} chains, float32"
    table = rows(timings, problem.n_updates / 1e6, next(iter(candidates)))
    return [Case(title, "million unit updates per second", table, notes)]


def available() -> tuple[dict[str, Backend], dict[str, Missing]]:
    """CUDA backends that run here, the fastest first, and why the others do not."""
    found: dict[str, Backend] = {}
    missing: dict[str, Missing] = {}
    for name in _BACKENDS:
        try:
            found[name] = accelerated.load(name)
        except BackendUnavailable as error:
            missing[name] = Missing(str(error))
    return found, missing


def main(arguments: Sequence[str]) -> int:
    """Run the command; 0 if all tests passed and the times are written, 1 if a test failed."""
    command = parse(Command, arguments, PROG)
    if not torch.cuda.is_available():
        raise ConfigError("torch finds no CUDA device here; for the CPU there is python -m benchmarks.cpu")
    backends, missing = available()
    if not backends:
        raise ConfigError("; ".join(why.reason for why in missing.values()))
    if not command.skip_tests:
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "gpu", "-q"], check=False, cwd=HERE.parent
        ).returncode
        if code:
            print("the tests failed on this device; nothing is timed", file=sys.stderr)
            return 1
    cases = [
        *transform_cases(backends, command),
        *gibbs_cases(backends, command),
        *ais_cases(backends, command),
        iteration_case(iteration_timings(torch.device("cuda"), next(iter(backends)), 20)),
        factorial_case(torch.device("cuda"), next(iter(backends)), 20),
        *replicas_cases(torch.device("cuda"), next(iter(backends)), 20),
    ]
    judged = "not judged in this run (--skip-tests)" if command.skip_tests else "pytest -m gpu passed in this run"
    absent = [f"{name}: {why.reason}" for name, why in missing.items()]
    cases.append(Case("What this run was", "-", [], [judged, *absent]))
    for path in write("gpu", environment(torch.cuda.get_device_name()), cases, "make gpu-check"):
        print(path.relative_to(HERE.parent))
    return 0


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
