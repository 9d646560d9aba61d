"""Every fault that is planted is caught, and no other operation is accused of it."""

import inspect
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import reference.gibbs
import reference.partition
import reference.philox
from validation import faults, jobs, sabotage, subjects
from validation.faults import FAULTS, Suspect
from validation.rows import Finding, Request, Row, Status, Task

PACKAGES = ("reference", "dvaepp", "accelerated", "validation")
CHEAP = "counter-off-by-one"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_fault_is_caught_and_the_culprit_named(fault):
    finding = sabotage.verdict(fault, seed=0)
    assert finding.holds, finding.where
    first = fault.culprits[0]
    assert finding.where.startswith(f"{fault.does} Caught by {first.check} / {first.operation}")


def attributes():
    """Everything a fault could be planted in, by place: attributes of modules, of their classes, and of the oracle."""
    found = {}
    for key, module in list(sys.modules.items()):
        if key.partition(".")[0] in PACKAGES:
            found |= {(key, name): value for name, value in vars(module).items()}
            for owner in [value for value in vars(module).values() if inspect.isclass(value)]:
                if owner.__module__ == key:
                    found |= {(key, owner.__qualname__, name): value for name, value in vars(owner).items()}
    return found | {("oracle", name): value for name, value in vars(subjects.backend(faults.ORACLE)).items()}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_is_planted_is_taken_out_again(fault):
    sabotage.plan(fault, seed=0)  # imports what it judges by
    before = attributes()
    with fault.site.planted():
        during = attributes()
    with pytest.raises(InterruptedError), fault.site.planted():
        raise InterruptedError
    after = attributes()
    assert any(during.get(place) is not value for place, value in before.items()) or len(during) > len(before)
    assert before.keys() == after.keys()
    assert [place for place, value in before.items() if after[place] is not value] == []


def test_numbers_change_under_a_fault_and_come_back_bit_for_bit():
    fault, address = faults.named("one-stream"), (3, 1, 4, 5, reference.philox.STREAM_Z1)
    before = reference.philox.uniforms(*address)
    with fault.site.planted():
        under = [module.uniforms(*address) for module in (reference.philox, reference.gibbs, reference.partition)]
    for numbers in under:
        assert not np.any(numbers == before)
    assert np.array_equal(reference.gibbs.uniforms(*address), before)


def test_tasks_that_are_not_performed_again_would_come_out_alike():
    fault = faults.named(CHEAP)
    planned = sabotage.plan(fault, seed=0)
    skipped = [task for task in planned if CHEAP not in sabotage.without_fault(task).touched_by]
    assert {task.operation for task in planned} - {task.operation for task in skipped} == {"gibbs"}
    before = [jobs.perform_here(task) for task in skipped]
    with fault.site.planted():
        assert [jobs.perform_here(task) for task in skipped] == before


def test_the_same_seed_gives_the_same_words():
    assert sabotage.verdict(faults.named(CHEAP), 5) == sabotage.verdict(faults.named(CHEAP), 5)


# ---- a verdict can fail ----------------------------------------------------------------------------------------------


def test_a_fault_that_changes_nothing_is_missed():
    fault = faults.named(CHEAP)
    harmless = replace(fault, site=replace(fault.site, spoil=lambda right: right))
    finding = sabotage.verdict(harmless, 0)
    assert finding.error == 1
    assert finding.where == f"{fault.does} Caught by nothing; missed: agreement / gibbs"


def test_the_wrong_culprit_is_told():
    fault = replace(faults.named(CHEAP), culprits=(Suspect("agreement", "entropy", ("value",)),))
    finding = sabotage.verdict(fault, 0)
    assert "missed: agreement / entropy / value" in finding.where
    assert "wrongly accused: agreement / gibbs float64 / bits, 100 x 129" in finding.where
    assert finding.error == 1 + finding.where.count("wrongly accused")


def test_an_output_that_nobody_accused_counts():
    fault = replace(faults.named(CHEAP), culprits=(Suspect("agreement", "gibbs", ("bits at the edge",)),))
    finding = sabotage.verdict(fault, 0)
    assert not finding.holds
    assert "missed" not in finding.where
    assert "wrongly accused: agreement / gibbs float64 / bits, 1 x 3" in finding.where


def test_what_fails_without_the_fault_proves_nothing(monkeypatch):
    failing = Finding("bits", 1.0, 0.0)

    def perform_here(task):
        return jobs.Outcome((Row(task, Status.FAILS, failing),) if task.operation == "gibbs" else ())

    monkeypatch.setattr(jobs, "perform_here", perform_here)
    finding = sabotage.verdict(faults.named(CHEAP), seed=77)  # of no other test: outcomes are remembered
    sabotage.without_fault.cache_clear()
    assert finding.error == 1
    assert finding.where.endswith("fails without the fault too: agreement / gibbs float64 / bits")


# ---- the catalogue and its tasks -------------------------------------------------------------------------------------


def test_the_catalogue():
    assert len(FAULTS) >= 24
    assert max(Counter(fault.name for fault in FAULTS).values()) == 1
    assert {fault.subject for fault in FAULTS} == {"reference", "torch", "torch-number", "numpy_oracle"}
    assert {check for fault in FAULTS for check in fault.checks} == set(jobs.CHECKS) - {sabotage.CHECK}
    assert {suspect.check for fault in FAULTS for suspect in fault.explains} <= set(jobs.CHECKS)
    for fault in FAULTS:
        assert {suspect.check for suspect in fault.explains} <= set(fault.checks), fault.name  # else never looked at
    assert faults.named("arm-biased").operation == "estimators"


def test_each_fault_is_one_task_of_the_subjects_that_are_judged_when_nobody_is_named():
    request = Request(seed=3)
    tasks = [task for subject in subjects.BUILT_IN.values() for task in sabotage.tasks(subject, request)]
    assert Counter(task.fault for task in tasks) == Counter(fault.name for fault in FAULTS)
    assert {task.seed for task in tasks} == {3}
    (task,) = [one for one in tasks if one.fault == "nu-sign"]
    assert (task.check, task.subject, task.operation) == ("sabotage", "reference", "forward")
    assert task.command.startswith("python -m validation sabotage --fault nu-sign")


def test_only_operations_that_are_asked_for():
    asked = Request(operations=("gibbs",))
    tasks = [task for subject in subjects.BUILT_IN.values() for task in sabotage.tasks(subject, asked)]
    assert tasks
    assert {task.operation for task in tasks} == {"gibbs"}


def test_a_task_yields_one_finding_named_after_the_fault():
    task = Task("sabotage", "numpy_oracle", "gibbs", fault=CHEAP)
    (row,) = jobs.perform_here(task).rows
    assert row.status is Status.HOLDS
    assert (row.finding.output, row.finding.unit, row.finding.bound) == (CHEAP, "rows", 0)
