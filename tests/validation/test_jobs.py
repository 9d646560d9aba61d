"""Whatever a subject does to itself, its row says so and all others are as they would have been."""

import os
import time

import pytest

from validation import jobs
from validation.rows import Request, Row, Status, Subject, Task

BROKEN = "tests.validation.broken_backends"
LIMIT = 2.0


def task(name, operation="entropy", dtype="float64"):
    return Task("agreement", f"{BROKEN}:{name}", operation, dtype=dtype, quick=True)


@pytest.fixture(scope="module")
def pool():
    with jobs.pool(2) as processes:
        yield processes


def only(outcome):
    (row,) = outcome.rows
    return row


MISHAPS = {
    "raising": (Status.RAISES, "RuntimeError: the dog ate it, broken_backends.py line "),
    "exiting": (Status.RAISES, "SystemExit: "),
    "dying": (Status.DIES, "its process ended with exit code 3"),
    "wrong_shape": (Status.FAILS, "entropy: value must have shape (17,); it has (16,)"),
    "wrong_dtype": (Status.FAILS, "entropy: value must be float64; it is float32"),
    "nothing": (Status.FAILS, "entropy returned no value"),
    "bare": (Status.FAILS, "entropy returned no value"),
}


def test_mishaps_are_rows_and_the_rest_runs(pool):
    """In one run, so that each comes after the others' ruins; a good task stands between every two of them."""
    good = Task("agreement", "numpy_oracle", "entropy", dtype="float64", quick=True)
    tasks = [item for name in MISHAPS for item in (task(name), good)]
    heard = []
    outcomes = list(jobs.perform(pool, tasks, 60.0, heard.append))
    assert heard == tasks
    for (status, message), outcome in zip(MISHAPS.values(), outcomes[::2], strict=True):
        row = only(outcome)
        assert row.status is status
        assert row.message.startswith(message)
        assert "\n" not in row.message
        assert row.finding is None
    for outcome in outcomes[1::2]:
        assert [row.status for row in outcome.rows] == [Status.HOLDS] * 2


def test_what_hangs_is_ended_and_the_rest_runs():
    good = Task("agreement", "numpy_oracle", "entropy", dtype="float64", quick=True)
    with jobs.pool(1) as processes:
        list(jobs.perform(processes, [good], 60.0))
        started = time.monotonic()
        (hung,) = jobs.perform(processes, [task("hanging")], LIMIT)
        assert time.monotonic() - started < 60  # it would sleep for an hour
        (fine,) = jobs.perform(processes, [good], 60.0)
    assert only(hung).status is Status.HANGS
    assert only(hung).message == "no answer within 2 s"
    assert [row.status for row in fine.rows] == [Status.HOLDS] * 2


@pytest.mark.parametrize(("name", "failing"), [("not_a_number", ["entropy"]), ("wrong", ["entropy"]), ("talking", [])])
def test_what_is_wrong_fails_by_name(pool, name, failing):
    (outcome,) = jobs.perform(pool, [task(name, dtype="float32")], 60.0)
    failed = [row.finding.output for row in outcome.rows if row.status is Status.FAILS]
    assert set(failed) >= set(failing)
    assert bool(failed) == bool(failing)
    assert len(outcome.rows) == 2


PROBED = {
    "lying": (Status.FAILS, "operations() names entropy, which the backend does not have"),
    "boasting": (Status.FAILS, "operations() names "),
    "strange_kinds": (Status.FAILS, "kinds names "),
    "unwilling": (Status.RAISES, "ValueError: "),
    "unavailable": (Status.CANNOT_RUN, ""),
    "needy": (Status.CANNOT_RUN, ""),
    "without_device": (Status.CANNOT_RUN, ""),
}


def test_subjects_that_cannot_be_loaded_are_rows(pool):
    names = [f"{BROKEN}:{name}" for name in PROBED]
    for (status, message), row in zip(PROBED.values(), jobs.probe(pool, names, 60.0), strict=True):
        assert isinstance(row, Row)
        assert row.status is status, row
        assert row.message.startswith(message), row


def test_what_a_backend_says_of_itself_is_known(pool):
    few, two_kinds = jobs.probe(pool, [f"{BROKEN}:few", f"{BROKEN}:two_kinds"], 60.0)
    assert isinstance(few, Subject)
    assert few.operations == {"entropy"}
    assert "gibbs" in few.reasons
    assert two_kinds.kinds == ("exponential", "power")
    tasks = jobs.check("agreement").tasks(two_kinds, Request(dtypes=("float64",), operations=("inverse_cdf",)))
    assert [one.kind for one in tasks] == ["exponential", "power"]


def test_workers_have_one_thread_and_ours_are_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    with jobs.pool(1) as processes:
        assert processes.schedule(os.getenv, args=["OMP_NUM_THREADS"]).result() == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "NUMBA_NUM_THREADS" not in os.environ
