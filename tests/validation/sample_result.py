"""A made-up result with all that the report may meet: every status, hostile texts, infinities, maps, statistics."""

from __future__ import annotations

import math

import numpy as np

from validation.report import Result
from validation.rows import ALL_KINDS, DTYPES, ErrorMap, Finding, Row, Statistic, Status, Task, rows_of

HOSTILE = '<script>document.title = "owned"</script><img src="https://example.org/x.png" onerror="alert(1)">'
TRACEBACK = f"ValueError: {HOSTILE} & 'quoted' \"twice\"\nTraceback (most recent call last):\n" + "  line\n" * 60
LONG = "tests.validation.broken_backends:a_backend_with_quite_a_long_name_that_nobody_can_break"
OPERATIONS = ("inverse_cdf", "entropy", "cross_entropy", "cross_entropy_gradients", "gibbs", "tempering", "ais")
TABLES = (
    '<div class="paper-tables"><div class="scroll" role="region" tabindex="0" aria-label="Table 1"><table id="table1">'
    '<caption>Table 1</caption><thead><tr><td></td><th scope="col">RBM (overlapping)</th></tr></thead><tbody><tr>'
    '<th scope="row">MNIST, 1 group</th><td class="published">−99.20</td></tr></tbody></table></div></div>'
)


def transforms(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for subject, kinds in {"reference": ALL_KINDS, "torch": ("exponential",), "numba_cpu": ALL_KINDS[:4]}.items():
        for kind in kinds:
            for dtype in DTYPES:
                task = Task("accuracy", subject, "inverse_cdf", kind, dtype)
                for output in ("zeta", "dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta"):
                    rho, logit_q = float(rng.random()), float(rng.normal(0, 9))
                    at = f"rho={rho!r}, logit_q={logit_q!r}, beta=8.0"
                    error = float(rng.uniform(0.1, 3.9))
                    found = Finding(output, error, 4.0, f"found by search from {at}", at=at, got=rho, expected=rho)
                    rows += rows_of(task, [found])
    return rows


def operations(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for subject in ("torch", "numba_cpu", LONG):
        for operation in OPERATIONS:
            for dtype in DTYPES:
                for check in ("agreement", "gradients") if "entropy" in operation else ("agreement",):
                    task = Task(check, subject, operation, "", dtype)
                    size = float(10 ** rng.uniform(-1.5, 0))
                    rows += rows_of(task, [Finding(operation, 8 * size, 8.0, "entry (3, 1)", got=0.5, expected=0.5)])
    return rows


def offenders() -> list[Row]:
    at = "rho=1e-30, logit_q=-3.0, beta=8.0"
    task = Task("accuracy", LONG, "inverse_cdf", "exponential", "float32")
    wrong = Finding("zeta", 3.1e5, 4.0, "found on the grid", at=at, got=0.5, expected=1e-30)
    nothing = Finding("nu", math.nan, 4.0, "rho=0.5", got=math.nan, expected=0.25)
    infinite = Finding("log_ratio", math.inf, 4.0, HOSTILE, got=-math.inf, expected=0.25)
    rows = rows_of(task, [wrong, nothing, infinite])
    for status, operation in (
        (Status.RAISES, "entropy"),
        (Status.HANGS, "gibbs"),
        (Status.DIES, "tempering"),
        (Status.LACKS, "ais"),
    ):
        rows.append(Row(Task("agreement", LONG, operation, dtype="float32"), status, message=TRACEBACK))
    rows.append(Row(Task("agreement", "cupy_raw", "inverse_cdf"), Status.CANNOT_RUN, message="no CUDA device\ud800"))
    return rows


def chance(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for subject in ("reference", "torch", "numba_cpu"):
        for operation in ("gibbs", "tempering", "ais", "reverse_ais", "importance_log_mean"):
            for output in ("one sweep", "many sweeps", "log Z"):
                z, error = float(rng.normal()), 0.004
                statistic = Statistic(0.25 + z * error, 0.25, error, 9 * error, "of a state's probability")
                found = Finding(
                    output, abs(z), 6.5, "5 x 4 units", "standard errors", catches="0.036", statistic=statistic
                )
                rows += rows_of(Task("statistics", subject, operation, dtype="float64"), [found])
    task = Task("statistics", "torch", "tempering", dtype="float32")
    biased = Statistic(0.9, 0.25, 0.01, 0.09, "of a state's probability")
    exact = Statistic(1.0, 0.5, 0.0, 0.0, "nats")
    table = Statistic(0.3, 0.25, 0.01, 0.09, "of the distribution")
    measured = Statistic(1.3, 1.0, 0.1, 0.9, "of the gradient's norm")
    unit = "standard errors"
    return [
        *rows,
        *rows_of(
            task,
            [
                Finding("swaps", 65.0, 6.5, "4 replicas", unit, catches="0.09", statistic=biased),
                Finding("without error", math.inf, 6.5, "", unit, statistic=exact),
                Finding("states", 1.25, 7.5, "512 cells", unit, catches="0.02", statistic=table),
                Finding("straight-through", 3.0, 0.0, "biased", unit, judged=False, statistic=measured),
                Finding("counts", 2.0, 6.0, "chi-squared", unit, catches="0.02 of the distribution"),
            ],
        ),
    ]


def sabotage() -> list[Row]:
    caught = "caught by accuracy / inverse_cdf / dzeta_dlogit_q: 3.1e5 roundings"
    rows = []
    for fault, error in (("wrong_sign_of_nu", 0.0), ("naive_quadratic", 0.0), ("half_of_beta", 2.0)):
        task = Task("sabotage", "reference", "inverse_cdf", fault=fault)
        rows += rows_of(task, [Finding(fault, error, 0.0, caught, "rows")])
    return rows


def error_map(subject: str, kind: str, dtype: str, beta: float, rng: np.random.Generator, worst: float) -> ErrorMap:
    logits = np.linspace(-20, 20, 40)
    rho = 1 / (1 + np.exp(-np.linspace(-36, 36, 40)))
    ridge = np.exp(-((logits[:, None] + np.linspace(-36, 36, 40)) ** 2) / 20)
    error = worst * (0.02 + ridge) / 1.02 * rng.uniform(0.5, 1, (40, 40))
    if worst > 4:
        error[30:33, 2:6] = np.inf
        error[5, 5] = np.nan
    return ErrorMap(
        subject, kind, dtype, beta, tuple(rho.tolist()), tuple(logits.tolist()), tuple(map(tuple, error.tolist())), 4.0
    )


def result() -> Result:
    """Some three hundred rows, of which a handful do not hold."""
    rng = np.random.default_rng(5)
    maps = [
        error_map(subject, kind, dtype, beta, rng, 40.0 if subject == LONG else 3.5)
        for subject, kinds in {"reference": ALL_KINDS, "numba_cpu": ALL_KINDS[:2], LONG: ALL_KINDS[:1]}.items()
        for kind in kinds
        for dtype in DTYPES
        for beta in (2.0, 8.0, 20.0)
    ]
    return Result(
        rows=[*transforms(rng), *operations(rng), *offenders(), *chance(rng), *sabotage()],
        maps=maps,
        environment={
            "device": "AMD EPYC avx512f",
            "cores": 2,
            "python": "3.11.2",
            "versions": {"numpy": "2.4.1", "scipy": "1.16", "torch": "2.13.0", "evil": HOSTILE},
        },
        request={"checks": [], "quick": False, "seed": 0, "backend": [LONG]},
        tables_html=TABLES,
        seconds=412.3,
        command=f"python -m validation --html report.html --backend '{HOSTILE}'",
    )
