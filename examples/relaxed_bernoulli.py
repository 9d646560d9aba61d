"""``torch.distributions.RelaxedBernoulli`` against multi-precision arithmetic.

    python -m examples.relaxed_bernoulli
    python -m examples.relaxed_bernoulli --at "rho=0.5, logit_q=20.0, beta=0.5"

It is the binary Concrete of ``reference.smoothing``, zeta = sigma((l + logit rho) / lambda). What is judged is what its
users call: ``rsample``, with the noise handed in through ``torch.rand``, its derivatives by autograd, and ``log_prob``.
``beta`` is the temperature lambda, as everywhere for this kind; ``dzeta_dbeta`` is the derivative by 1 / lambda.

Ordinary inputs are those of a training run: noise as torch draws it, logits of a few, temperatures from 0.1 to 2. All
inputs are the grid of edges and the random cases of ``validation.cases``. From the worst of either a search goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.distributions import RelaxedBernoulli

from dvaepp.command import parse, run
from reference.vocabulary import Array
from validation.accuracy import Outputs, WorstCase, forward_errors, mixed_errors, parse_at
from validation.cases import Cases, edge_cases, random_cases
from validation.rows import DTYPES
from validation.search import Effort, climb
from validation.tolerances import TRANSFORM_MIXED_ERROR

PROG = "relaxed_bernoulli"
KIND = "concrete"
FUNCTIONS = ("rsample", "log_prob")

_STRIDE = 7  # coprime to the lengths of the edge grid: every edge is still met


def rsample(rho: Array, logit_q: Array, beta: Array) -> Outputs:
    """Samples driven by the noise rho, and their derivatives.

    Shapes   all (N,), of the dtype that is judged
    """
    noise, logits, temperature = (torch.tensor(x, requires_grad=True) for x in (rho, logit_q, beta))
    with patch.object(torch, "rand", lambda *_, **__: noise):
        zeta = RelaxedBernoulli(temperature, logits=logits, validate_args=False).rsample()
    by_logit, by_rho, by_temperature = torch.autograd.grad(zeta.sum(), (logits, noise, temperature))
    by_sharpness = -(temperature**2) * by_temperature
    found = {"zeta": zeta, "dzeta_dlogit_q": by_logit, "dzeta_drho": by_rho, "dzeta_dbeta": by_sharpness}
    return {name: tensor.detach().numpy() for name, tensor in found.items()}


def log_prob(zeta: Array, logit_q: Array, beta: Array) -> Outputs:
    """Log-densities.

    Shapes   all (N,), of the dtype that is judged
    """
    value, logits, temperature = (torch.from_numpy(x) for x in (zeta, logit_q, beta))
    density: Tensor = RelaxedBernoulli(temperature, logits=logits, validate_args=False).log_prob(value)
    return {"log_prob": density.numpy()}


_JUDGED: Mapping[str, tuple[Callable[..., Outputs], Callable[..., dict[str, WorstCase]]]] = {
    "rsample": (rsample, mixed_errors),
    "log_prob": (log_prob, forward_errors),
}


def ordinary_cases(n: int, dtype: np.dtype[np.floating], seed: int) -> Cases:
    """What a training run meets; rho serves as zeta too."""
    rng = np.random.default_rng(seed)
    rho = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=getattr(torch, dtype.name)).numpy()
    return Cases(rho, 3 * rng.standard_normal(n).astype(dtype), rng.uniform(0.1, 2.0, n).astype(dtype))


def judge(function: str, cases: Cases) -> list[WorstCase]:
    """The worst mixed error of each output of a function on the cases."""
    compute, errors = _JUDGED[function]
    found = compute(cases.rho, cases.logit_q, cases.beta)
    return list(errors(found, cases.rho, cases.logit_q, cases.beta, KIND).values())


def search(function: str, start: Cases, seed: int, effort: Effort) -> list[WorstCase]:
    """As ``judge``, going on from the worst."""

    def measure(cases: Cases) -> dict[str, Array]:
        each = [judge(function, cases[i : i + 1]) for i in range(len(cases))]
        return {
            outputs[0].output: np.array([worst.mixed_error for worst in outputs]) for outputs in zip(*each, strict=True)
        }

    cases, errors = climb(measure, start, measure(start), effort, np.random.default_rng(seed))
    worst = np.unique([int(np.argmax(values)) for values in errors.values()])
    return judge(function, Cases(cases.rho[worst], cases.logit_q[worst], cases.beta[worst]))


def verdicts(dtypes: Sequence[str], seed: int, n: int) -> Iterator[str]:
    """A line for each output, dtype and set of inputs, and one that replays it.

    ``n``: how many random cases of each set are judged before the search.
    """
    for dtype in map(np.dtype, dtypes):
        edges = edge_cases(dtype)[::_STRIDE]
        sets = {
            "ordinary": (ordinary_cases(n, dtype, seed), None),
            "all": (edges + random_cases(n, dtype, seed), Effort(2, max(4, n // 20), 2)),
        }
        for function in FUNCTIONS:
            for name, (cases, effort) in sets.items():
                found = judge(function, cases) if effort is None else search(function, cases, seed, effort)
                for worst in found:
                    yield f"{dtype.name}  {name:8}  {_verdict(function, worst)}"


def _verdict(function: str, worst: WorstCase) -> str:
    holds = worst.mixed_error <= TRANSFORM_MIXED_ERROR
    output = worst.output if function == "log_prob" else f"rsample {worst.output}"
    return (
        f"{output:22} {'holds' if holds else 'FAILS'}  {worst.mixed_error:8.3g} of {TRANSFORM_MIXED_ERROR:g}  "
        f"got {worst.got:.9g}, expected {worst.expected:.9g}  --at {worst.where!r}"
    )


@dataclass(frozen=True)
class Command:
    """Judge torch.distributions.RelaxedBernoulli; exit code 0 if all holds, 1 if not, 2 for bad arguments."""

    at: str = ""
    """One input to be judged, "rho=..., logit_q=..., beta=..." or with zeta in the place of rho; else a search."""
    seed: int = 0
    """Seed of the random cases and of the search."""
    quick: bool = False
    """With a few cases only."""


def main(arguments: Sequence[str]) -> int:
    """Print the verdicts."""
    command = parse(Command, arguments, PROG)
    if command.at:
        at = parse_at(command.at)
        function = "rsample" if at.first == "rho" else "log_prob"
        lines = [
            f"{dtype}  {_verdict(function, worst)}"
            for dtype in DTYPES
            for worst in judge(function, at.cases(np.dtype(dtype)))
        ]
    else:
        lines = list(verdicts(DTYPES, command.seed, 60 if command.quick else 600))
    print("\n".join(lines))
    return int(any(" FAILS " in line for line in lines))


if __name__ == "__main__":
    run(PROG, lambda: main(sys.argv[1:]))
