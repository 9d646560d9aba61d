"""What is random, against what is known exactly: samplers, annealing, bounds, gradient estimators, the noise itself.

Every test is one of three: the mean of an unbiased estimate against its exact value; counts against enumerated
probabilities; or a mean against a bound on one side. ``validation.sampling.chance`` says how each is judged, and
``validation.sampling.enumeration`` is where the truth comes from.

**False alarms.** One rate is stated for the whole run, ``tolerances.FALSE_ALARM_RATE``; every finding gets the same
share of it (``n_findings``), whatever else is run, so that a task alone has the bounds that it has among all.

**Honest errors.** Draws are independent: chains, not sweeps of one chain. Chains start from exact draws of the machine,
so that they follow it exactly after any number of sweeps; or from a stated start, and the law they must have is
followed exactly. Where a variance can be enumerated (annealing weights, importance weights, uniform numbers) it is, for
a heavy tail that was not drawn yet makes errors look smaller than they are. The machines' couplings are strong, yet
chosen so that no single weight decides.

**Power.** Every finding says what size of error it would catch with probability ``tolerances.POWER``.

A *task* is one operation of one subject in one dtype, with noise of its own, addressed by the seed and those names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from validation import subjects, torch_twin
from validation.rows import ALL_KINDS, DTYPES, ErrorMap, Finding, Request, Subject, Task
from validation.sampling import torch_trials, trials
from validation.sampling.chance import Judge
from validation.sampling.estimators import measurements
from validation.sampling.trials import BackendSamplers, ReferenceSamplers, Samplers
from validation.tolerances import FALSE_ALARM_RATE, MOST_BACKENDS

CHECK = "statistics"


def samplers_of(task: Task) -> Samplers:
    """The subject of a task."""
    if task.subject == subjects.REFERENCE:
        return ReferenceSamplers()
    if task.subject == torch_twin.TORCH:
        return torch_trials.TorchSamplers(task.dtype)
    return BackendSamplers(subjects.backend(task.subject), task.dtype)


# ---- tasks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """How an operation is judged, how many findings can fail in all its tasks, and by which kinds it is split."""

    perform: Callable[[Task, Judge], Iterator[Finding]]
    n_findings: int
    kinds: tuple[str, ...] = ("",)


def operations_of(subject: str) -> Mapping[str, Operation]:
    """All that is judged of a subject, by name; of any name that is not built in, what backends have."""
    if subject == subjects.REFERENCE:
        return {**_COMMON, **_OF_THE_REFERENCE}
    if subject == torch_twin.TORCH:
        return {**_COMMON, **_OF_TORCH}
    return {} if subject in subjects.BUILT_IN else _COMMON


@lru_cache
def n_findings() -> int:
    """Findings that can fail in a run of the reference, of torch and ``MOST_BACKENDS`` backends in both dtypes."""

    def of(name: str) -> int:
        return sum(one.n_findings for one in operations_of(name).values())

    return of(subjects.REFERENCE) + len(DTYPES) * (of(torch_twin.TORCH) + MOST_BACKENDS * of("a backend"))


def judge() -> Judge:
    """The judge of every finding: each has the same share of the run's false-alarm rate."""
    return Judge(FALSE_ALARM_RATE / n_findings())


def tasks(subject: Subject, request: Request) -> list[Task]:
    """One task for each operation, dtype and, where there are any, kind; the reference is judged in float64 alone."""
    found = []
    for name, operation in operations_of(subject.name).items():
        if not request.wants(name) or (subject.is_backend and name not in subject.operations):
            continue
        both = name in _COMMON and subject.name != subjects.REFERENCE
        dtypes = [dtype for dtype in request.dtypes if both or dtype == "float64"]
        kinds = [kind for kind in operation.kinds if not kind or (kind in request.kinds and kind in subject.kinds)]
        found += [
            Task(CHECK, subject.name, name, kind, dtype, request.seed, request.quick)
            for dtype in dtypes
            for kind in kinds
        ]
    return found


def perform(task: Task) -> Iterator[Finding | ErrorMap]:
    """Sample, and judge."""
    yield from operations_of(task.subject)[task.operation].perform(task, judge())


# ---- what is judged --------------------------------------------------------------------------------------------------


def _sampled(trial: Callable[[Task, Judge, Samplers], Iterator[Finding]]) -> Callable[[Task, Judge], Iterator[Finding]]:
    """The trial of whatever sampler the task is about."""
    return lambda task, judge: trial(task, judge, samplers_of(task))


_COMMON: Mapping[str, Operation] = {
    "gibbs": Operation(_sampled(trials.gibbs_trial), 3),
    "tempering": Operation(_sampled(trials.tempering_trial), 3),
    "ais": Operation(_sampled(trials.ais_trial), 2),
    "reverse_ais": Operation(_sampled(trials.reverse_ais_trial), 2),
    "importance_log_mean": Operation(_sampled(trials.log_mean_trial), 2),
}

_N_UNBIASED = sum(one.unbiased for one in measurements())

_OF_THE_REFERENCE: Mapping[str, Operation] = {
    "single_site": Operation(trials.single_site_trial, 4),
    "population": Operation(trials.population_trial, 2),
    "bracket": Operation(trials.bracket_trial, 4),
    "bennett": Operation(trials.bennett_trial, 2),
    "thermodynamic": Operation(trials.thermodynamic_trial, 1),
    "likelihood": Operation(trials.likelihood_trial, 4),
    "objective": Operation(trials.objective_trial, 1),
    "uniforms": Operation(trials.uniforms_trial, 3),
    "inverse_cdf": Operation(trials.inverse_cdf_trial, len(ALL_KINDS), ALL_KINDS),
    "estimators": Operation(
        trials.estimators_trial, _N_UNBIASED + 2, ("", *(kind for kind in ALL_KINDS if kind != "concrete"))
    ),
}

_OF_TORCH: Mapping[str, Operation] = {
    "bracket": Operation(torch_trials.bracket, 3),
    "likelihood": Operation(torch_trials.likelihood, 4),
    "objective": Operation(torch_trials.objective, 1),
    "uniforms": Operation(torch_trials.uniforms, 3),
}
