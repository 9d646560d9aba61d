"""The examples, strangers' code, are judged: what is right holds, and what is wrong is found and shown."""

import math
import re

import numpy as np
import pytest

import accelerated
from dvaepp.errors import ConfigError
from examples import pyro_digits, relaxed_bernoulli
from reference.smoothing import OverlappingExponential
from validation import conformance
from validation.rows import DTYPES

TORCH = "examples.torch_backend:create"
NAIVE = "examples.naive_equation_3:create"


def verdict(case):
    """What a case complains of; nothing if it holds."""
    try:
        case.check()
    except AssertionError as failure:
        return str(failure)
    return ""


def failing_outputs(message):
    return set(re.findall(r"^  ([^ ].*): error ", message, re.MULTILINE))


def test_the_torch_backend_holds_but_for_what_its_readme_says():
    cases = conformance.cases(TORCH, dtypes=["float32"]) + conformance.cases(TORCH, checks=["gradients"])
    failing = {str(case): failing_outputs(message) for case in cases if (message := verdict(case))}
    assert set(failing) == {f"{check}-inverse_cdf-exponential-float32" for check in ("accuracy", "agreement")}
    for outputs in failing.values():
        assert outputs == {"zeta", "dzeta_dlogit_q", "dzeta_dbeta", "nu"}
    assert len(cases) == 9


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_the_torch_backend_is_meant_to_be_used_it_is_right(dtype):
    """Ordinary logits and sharpnesses, all derivatives, by another path to the truth than its own: the reference."""
    rng = np.random.default_rng(7)
    rho, logit_q = rng.uniform(0.01, 0.99, 500).astype(dtype), rng.normal(0, 2, 500).astype(dtype)
    got = accelerated.load(TORCH).inverse_cdf(
        "exponential", rho, logit_q, 5.0, ("dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta")
    )
    expected = OverlappingExponential(5.0).inverse_cdf_with_derivatives(rho.astype(float), logit_q.astype(float))
    for name in ("zeta", "dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta"):
        truth = getattr(expected, name)
        error = np.abs(getattr(got, name) - truth).max() / np.abs(truth).max()
        assert error < 40 * np.finfo(dtype).eps


@pytest.mark.parametrize("operations", [(), ("inverse_cdf",)])
def test_naive_equation_3_fails_everywhere_and_says_where(operations):
    cases = conformance.cases(NAIVE, operations, dtypes=("float32",), checks=("accuracy",))
    assert [str(case) for case in cases] == ["accuracy-inverse_cdf-exponential-float32"]
    message = verdict(cases[0])
    assert failing_outputs(message) == {
        *("zeta", "dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta", "log_ratio", "nu"),
    }
    inputs = re.search(r"again: python -m validation accuracy .*--at '(.*)'", message).group(1)
    rho, logit_q, beta = (np.float32(value) for value in re.findall(r"=([^,]+)", inputs))
    zeta = accelerated.load(NAIVE).inverse_cdf("exponential", np.full(3, rho), np.full(3, logit_q), float(beta)).zeta
    assert not np.isfinite(zeta).any()


def test_naive_equation_3_is_equation_3():
    """In float64 and for quiet inputs it is right: what fails is its arithmetic, not its algebra."""
    rng = np.random.default_rng(3)
    rho, logit_q = rng.uniform(0.1, 0.9, (2, 50))
    got = accelerated.load(NAIVE).inverse_cdf("exponential", rho, logit_q, 4.0, ("dzeta_dlogit_q", "dzeta_dbeta"))
    expected = OverlappingExponential(4.0).inverse_cdf_with_derivatives(rho, logit_q)
    np.testing.assert_allclose(got.zeta, expected.zeta, rtol=1e-11)
    np.testing.assert_allclose(got.dzeta_dlogit_q, expected.dzeta_dlogit_q, rtol=1e-10)
    np.testing.assert_allclose(got.dzeta_dbeta, expected.dzeta_dbeta, rtol=1e-9, atol=1e-12)


def test_relaxed_bernoulli_is_judged(capsys):
    assert relaxed_bernoulli.main(["--quick"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 2 * 5
    verdicts = {(line[:7], line[9:17].strip(), line[19:41].strip()): " holds " in line for line in lines}
    assert verdicts["float32", "ordinary", "log_prob"]
    assert not verdicts["float32", "ordinary", "rsample dzeta_dlogit_q"]
    assert not verdicts["float32", "all", "log_prob"]
    # Every line's input shows the same again.
    line = next(line for line in lines if line.startswith("float32") and "rsample dzeta_dlogit_q FAILS" in line)
    at, got = re.search(r"--at '(.*)'", line).group(1), re.search(r"got \S+, expected \S+", line).group(0)
    relaxed_bernoulli.main(["--at", at])
    assert any(
        again.startswith("float32  rsample dzeta_dlogit_q FAILS") and got in again
        for again in capsys.readouterr().out.splitlines()
    )


def test_relaxed_bernoulli_saturates():
    """The reason, without any of our judges: a sample is 1 - eps and its derivative 0 long before they have to be."""
    found = relaxed_bernoulli.rsample(*(np.array([x], dtype=np.float32) for x in (0.5, 20.0, 0.5)))
    assert found["dzeta_dlogit_q"] == 0
    assert math.exp(-40) / 0.5 > np.finfo(np.float32).tiny
    probabilities = relaxed_bernoulli.log_prob(*(np.array([x], dtype=np.float32) for x in (0.5, 100.0, 1.0)))
    assert np.isinf(probabilities["log_prob"])  # the true density is about e^-100


def test_relaxed_bernoulli_refuses_bad_input():
    with pytest.raises(ConfigError, match=r"^--at: rho must lie in \[0, 1\]; got 1.5$"):
        relaxed_bernoulli.main(["--at", "rho=1.5, logit_q=0, beta=1"])


def test_pyro_trains_with_ours_in_the_place_of_its_own(capsys):
    """A few steps: the binary Concrete retraces RelaxedBernoulli, the bounds of all are those of trained models."""
    pytest.importorskip("pyro")
    pyro_digits.main(["--steps", "12", "--latents", "8", "--draws", "2", "--learning-rate", "0.01"])
    _, *rows = capsys.readouterr().out.splitlines()
    bounds = {name: np.array([float(relaxed), float(binary)]) for name, relaxed, binary, _ in map(str.split, rows)}
    assert list(bounds) == list(pyro_digits.RELAXATIONS)
    np.testing.assert_allclose(bounds["ConcreteBernoulli"], bounds["RelaxedBernoulli"], atol=0.02)
    assert abs(bounds["OverlappingExponential"] - bounds["RelaxedBernoulli"]).min() > 0.02
    pyro_digits.main(["--steps", "1", "--latents", "8", "--draws", "2", "--learning-rate", "0.01"])
    _, *rows = capsys.readouterr().out.splitlines()
    for name, _, binary, _ in map(str.split, rows):
        assert bounds[name][1] > float(binary) + 1


@pytest.mark.parametrize("flag", ["--steps", "--latents", "--draws"])
def test_pyro_example_refuses_nothing_to_do(flag):
    with pytest.raises(ConfigError, match=f"{flag} must be at least 1; got 0"):
        pyro_digits.main([flag, "0"])


def test_pyro_example_without_pyro(monkeypatch):
    monkeypatch.setattr(pyro_digits, "HAS_PYRO", False)
    with pytest.raises(ConfigError, match="needs Pyro, which is not installed: pip install pyro-ppl"):
        pyro_digits.main([])
