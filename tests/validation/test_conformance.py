"""Our checks in another project's tests: the cases, what they say, and pytest in a folder that is not ours."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import accelerated
from dvaepp.errors import ConfigError
from validation import conformance, conformance_tests
from validation.conformance import cases
from validation.rows import DTYPES
from validation.subjects import ContractError

BROKEN = "tests.validation.broken_backends"
ORACLE = "accelerated.backends.numpy_oracle:create"
ROOT = Path(__file__).parents[2]


def only(name, operation="entropy", dtype="float32"):
    (case,) = cases(f"{BROKEN}:{name}", [operation], dtypes=[dtype], checks=["agreement"])
    return case


def test_cases_are_all_that_a_backend_has():
    ids = [str(case) for case in cases(f"{BROKEN}:two_kinds")]
    assert len(set(ids)) == len(ids)
    for kind in ("exponential", "power"):
        for dtype in DTYPES:
            assert {f"accuracy-inverse_cdf-{kind}-{dtype}", f"agreement-inverse_cdf-{kind}-{dtype}"} <= set(ids)
    assert not any("logistic" in name for name in ids)
    assert {"agreement-gibbs-float32", "agreement-ais-float64", "gradients-entropy-float64"} <= set(ids)
    few = [str(case) for case in cases(f"{BROKEN}:few")]
    assert few == ["agreement-entropy-float32", "agreement-entropy-float64", "gradients-entropy-float64"]
    assert cases(f"{BROKEN}:silent") == []


@pytest.mark.parametrize("case", cases(ORACLE, ["entropy", "gibbs", "importance_log_mean"]), ids=str)
def test_what_is_right_holds(case):
    case.check()


def test_what_is_wrong_is_told_with_its_worst_case_and_how_to_see_it_again():
    with pytest.raises(AssertionError) as failure:
        only("wrong").check()
    lines = str(failure.value).splitlines()
    assert lines[0] == f"agreement-entropy-float32 of {BROKEN}:wrong: 1 of 2 fail"
    assert lines[1].startswith("  entropy: error ")
    assert ", bound " in lines[1]
    again = f"    again: python -m validation agreement --backend {BROKEN}:wrong --operation entropy --dtype float32"
    assert lines[-1].startswith(again)
    with pytest.raises(AssertionError, match="bits"):
        only("wrong_bits", "gibbs").check()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong_shape", r"entropy: value must have shape \(17,\); it has \(16,\)"),
        ("wrong_dtype", "entropy: value must be float32; it is float64"),
        ("nothing", "entropy returned no value"),
        ("bare", "entropy returned no value"),
        ("not_a_number", "entropy: error inf"),
    ],
)
def test_a_result_of_a_wrong_form_fails(name, message):
    with pytest.raises(AssertionError, match=message) as failure:
        only(name).check()
    assert "again: python -m validation agreement" in str(failure.value)


def test_what_the_backend_raises_comes_with_the_command():
    with pytest.raises(RuntimeError, match="the dog ate it") as failure:
        only("raising").check()
    (note,) = failure.value.__notes__
    assert note.startswith(f"again: python -m validation agreement --backend {BROKEN}:raising")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operations": ["gibs"]}, "unknown operation 'gibs'; did you mean 'gibbs'"),
        ({"kinds": ["exponentail"]}, "unknown kind 'exponentail'; did you mean 'exponential'"),
        ({"dtypes": ["float16"]}, "unknown dtype 'float16'"),
        ({"checks": ["sabotage"]}, "unknown check 'sabotage'"),
        ({"operations": "gibbs"}, "operations must be a sequence of names; got the text 'gibbs'"),
        ({"operations": ["gibbs"]}, "lacks the operation gibbs: the chains are still being forged"),
        ({"operations": ["ais"]}, "lacks the operation ais$"),
    ],
)
def test_what_is_asked_for_and_not_there_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        cases(f"{BROKEN}:few", **arguments)


def test_what_is_no_backend_is_refused():
    with pytest.raises(accelerated.BackendUnavailable, match="there is no module 'no_package'"):
        cases("no_package:create")
    with pytest.raises(ContractError, match="operations\\(\\) names entropy, which the backend does not have"):
        cases(f"{BROKEN}:lying")


@pytest.fixture
def project(tmp_path):
    """Another project: a folder with a backend of its own and no tests yet."""
    package = tmp_path / "stranger"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "backends.py").write_text(
        "from accelerated.backends.numpy_oracle import NumpyOracle\n"
        "class Good(NumpyOracle):\n"
        "    def operations(self):\n        return frozenset({'entropy'})\n"
        "class Bad(Good):\n"
        "    def entropy(self, logit_q):\n"
        "        right = super().entropy(logit_q)\n"
        "        return right._replace(value=-right.value)\n"
    )
    return tmp_path


def pytest_in(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def example_in_the_docstring():
    """The lines of code at the head of ``validation.conformance``, for a backend of ``project``."""
    head = conformance.__doc__.split("Without a line")[0].splitlines()[1:]
    return "\n".join(line.removeprefix("    ") for line in head).replace(
        "my_package.my_module:create", "stranger.backends:Good"
    )


def test_another_project_in_ten_lines(project):
    source = example_in_the_docstring()
    assert len(source.strip().splitlines()) <= 10
    (project / "test_stranger.py").write_text(source)
    code, printed = pytest_in(project, "-q")
    assert code == 0, printed
    assert "3 passed" in printed


def test_another_project_without_a_line_of_code(project):
    ours = ("--pyargs", "validation.conformance_tests", "-p", "validation.pytest_plugin", "-q")
    code, printed = pytest_in(
        project, *ours, "--backend", "stranger.backends:Good", "--backend", "stranger.backends:Bad"
    )
    assert code == 1
    assert "3 failed, 3 passed" in printed or "2 failed, 4 passed" in printed, printed
    assert "[stranger.backends:Bad-agreement-entropy-float32]" in printed
    assert "again: python -m validation agreement --backend stranger.backends:Bad --operation entropy" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs the option -p validation.pytest_plugin"),
        ({"judged_backends": [], "judged_in_full": False}, "needs --backend module:object"),
    ],
)
def test_the_tests_need_to_be_told_whom_to_judge(options, message):
    metafunc = SimpleNamespace(config=SimpleNamespace(option=SimpleNamespace(**options)))
    with pytest.raises(pytest.UsageError, match=message):
        conformance_tests.pytest_generate_tests(metafunc)
