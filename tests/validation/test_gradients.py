"""The check of derivatives: what is right passes, and each planted fault fails where it belongs, and there alone."""

import dataclasses

import numpy as np
import pytest
import torch

import dvaepp.likelihoods
import dvaepp.smoothing
from accelerated.backends.numpy_oracle import NumpyOracle
from dvaepp.errors import ConfigError
from reference import boltzmann, boltzmann_kl, directed, likelihoods, posterior, tiny_model
from reference.smoothing import OverlappingExponential
from validation import gradients, subjects
from validation.derivatives import textbook, torch_tiny_model
from validation.derivatives.differences import complex_step, slope
from validation.rows import Request, Subject, Task
from validation.subjects import BUILT_IN

ENCODER1 = {"V1", "u1", "A1", "c1"}
ENCODER2 = {"V2", "S2", "u2", "A2", "c2"}


def perform(subject, operation, kind="", quick=True, at="", seed=0):
    return list(gradients.perform(Task("gradients", subject, operation, kind, "float64", seed, quick, at)))


def failing(findings):
    return {finding.output for finding in findings if not finding.holds}


def parameters_that_fail(findings):
    return {output.split(":")[0] for output in failing(findings)}


# ---- what measures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "truth"),
    [
        (np.exp, np.exp),
        (np.sin, np.cos),
        (np.arctan, lambda x: 1 / (1 + x * x)),
        (lambda x: np.tanh(30 * x), lambda x: 30 / np.cosh(30 * x) ** 2),
        (lambda x: np.abs(x - 0.37), lambda x: np.sign(x - 0.37)),
        (lambda x: x**3, lambda x: 3 * x * x),
        (lambda x: 0 * x + 2, np.zeros_like),
    ],
)
def test_the_estimated_error_holds(function, truth):
    x = np.random.default_rng(0).uniform(-2, 2, 4000)
    x = x[np.abs(x - 0.37) > 1e-3]
    measured = slope(lambda t: function(x + t), np.full(x.shape, 0.2), 4.0, 0.0, np.abs(x))
    assert (np.abs(measured.value - truth(x)) <= measured.error).all()
    assert np.median(measured.error) < 1e-10


def test_noise_makes_the_estimated_error_larger():
    x, noise = np.linspace(-1, 1, 300), np.random.default_rng(1)
    measured = slope(lambda t: np.sin(x + t) + 1e-7 * noise.uniform(-1, 1, x.shape), 0.2, 4.0, 0.0)
    assert np.median(measured.error) > 1e-8


def test_numbers_that_are_none_measure_nothing():
    with np.errstate(invalid="ignore"):
        measured = slope(lambda t: np.log(np.array([-1.0, 2.0]) + t), 0.1, 4.0, 0.0)
    assert np.isnan(measured.value[0])
    assert measured.error[0] == np.inf
    assert measured.value[1] == pytest.approx(0.5, abs=1e-12)
    finding = gradients.against_quotients("f", np.array([0.0, 0.5]), measured)
    assert finding.error == np.inf


def test_a_complex_step_is_exact():
    assert complex_step(lambda t: np.exp(np.array([0.3, 1.0]) + t)) == pytest.approx(np.exp([0.3, 1.0]), rel=1e-15)


def test_a_claim_that_is_no_number_fails():
    for claimed in (np.nan, np.inf):
        assert not gradients.against_another("f", np.array([claimed, 1.0]), np.ones(2), 3).holds
    assert gradients.against_another("f", np.ones(2), np.ones(2), 3).holds


# ---- what is asked ---------------------------------------------------------------------------------------------------


def test_tasks_are_those_that_were_asked_for():
    reference, torch_twin = BUILT_IN["reference"], BUILT_IN["torch"]
    names = {(task.operation, task.kind) for task in gradients.tasks(reference, Request())}
    assert names == {("inverse_cdf", kind) for kind in reference.kinds} | {
        (name, "") for name in (*textbook.GRADIENTS, "objective")
    }
    assert {task.operation for task in gradients.tasks(torch_twin, Request())} >= {"inverse_cdf", "nu", "training_loss"}
    one = Request(kinds=("power",), operations=("inverse_cdf",), seed=3)
    (task,) = gradients.tasks(reference, one)
    assert (task.operation, task.kind, task.dtype, task.seed) == ("inverse_cdf", "power", "float64", 3)
    assert gradients.tasks(reference, Request(dtypes=("float32",))) == []
    at = Request(kinds=("power",), at="rho=0.5, logit_q=0.0, beta=1.0")
    assert [task.at for task in gradients.tasks(reference, at)] == [at.at]
    with pytest.raises(ConfigError, match="rho must lie in"):
        gradients.tasks(reference, Request(at="rho=1.5, logit_q=0.0, beta=1.0"))
    some = Subject("mine", frozenset({"entropy", "gibbs"}))
    assert [task.operation for task in gradients.tasks(some, Request())] == ["entropy"]


@pytest.mark.parametrize("subject", ["reference", "torch", "torch-number", "numba_cpu"])
def test_everything_holds_in_a_quick_run(subject):
    for task in gradients.tasks(subjects.probe(subject), Request(quick=True)):
        findings = list(gradients.perform(task))
        assert findings
        assert failing(findings) == set(), task


def test_results_are_the_same_twice_and_hold_for_a_full_run():
    for operation in ("directed_kl", "rolfe_gradient", "estimators"):
        findings = perform("reference", operation, quick=False, seed=5)
        assert failing(findings) == set()
        assert findings == perform("reference", operation, quick=False, seed=5)


# ---- planted faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dzeta_dlogit_q", "dzeta_drho", "dzeta_dbeta"])
def test_a_wrong_derivative_of_the_inverse_cdf_is_named_and_can_be_replayed(name, monkeypatch):
    right = OverlappingExponential.inverse_cdf_with_derivatives

    def wrong(self, rho, logit_q):
        draw = right(self, rho, logit_q)
        return dataclasses.replace(draw, **{name: getattr(draw, name) * (1 + 1e-6)})

    monkeypatch.setattr(OverlappingExponential, "inverse_cdf_with_derivatives", wrong)
    findings = perform("reference", "inverse_cdf", "exponential")
    assert failing(findings) == {f"{name}, differences"}
    (finding,) = (finding for finding in findings if not finding.holds)
    assert failing(perform("reference", "inverse_cdf", "exponential", at=finding.at)) == {f"{name}, differences"}


def test_a_derivative_that_is_no_number_is_found(monkeypatch):
    right = OverlappingExponential.inverse_cdf_with_derivatives

    def wrong(self, rho, logit_q):
        draw = right(self, rho, logit_q)
        return dataclasses.replace(draw, dzeta_drho=np.where(draw.zeta > 0.9, np.nan, draw.dzeta_drho))

    monkeypatch.setattr(OverlappingExponential, "inverse_cdf_with_derivatives", wrong)
    findings = perform("reference", "inverse_cdf", "exponential")
    assert [f.output for f in findings if f.error == np.inf] == ["dzeta_drho, differences"]


FAULTS = [  # operation; where a function is; how its result is spoilt; what must fail
    (
        "boltzmann_kl",
        boltzmann_kl,
        "kl_with_gradients",
        lambda g: g._replace(dkl_dlogit_q=-g.dkl_dlogit_q),
        "by logit_q",
    ),
    ("boltzmann_kl", boltzmann_kl, "kl_with_gradients", lambda g: g._replace(dkl_dnu=g.dkl_dnu / 2), "by nu"),
    ("log_partition", boltzmann, "marginals", lambda g: g._replace(mean1=g.mean1 * (1 + 1e-7)), "by a1"),
    ("directed_kl", directed, "joint_kl_gradient", lambda g: g._replace(dkl_dlogit_p=g.dkl_dlogit_q), "by logit_p"),
    ("directed_kl", directed, "marginal_kl_gradient", lambda g: g._replace(dkl_dlog_ratio=0 * g[2]), "by zeta"),
    ("likelihoods", likelihoods, "bernoulli_log_prob_gradient", lambda g: g / 4, "by logits"),
    ("rolfe_gradient", boltzmann_kl, "rolfe_gradient", lambda g: 1.001 * g, "by logit_q"),
]


@pytest.mark.parametrize(("operation", "module", "name", "spoil", "output"), FAULTS)
def test_a_wrong_gradient_of_the_reference_is_named(operation, module, name, spoil, output, monkeypatch):
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: spoil(right(*arguments)))
    found = failing(perform("reference", operation))
    assert found
    assert all(f"{output}, " in each for each in found)


def test_a_value_that_lost_a_term_is_told_by_differences_alone(monkeypatch):
    """The gradients stay right, and so do complex steps of the textbook form."""
    right = likelihoods.bernoulli_log_prob
    monkeypatch.setattr(likelihoods, "bernoulli_log_prob", lambda x, logits: right(x, logits) + logits.sum(axis=-1))
    assert failing(perform("reference", "likelihoods")) == {"Bernoulli by logits, differences"}


def test_a_wrong_sign_in_nu_fails_where_nu_carries_a_gradient(monkeypatch):
    """The forward pass has it, the backward pass does not: what lies before zeta1 is wrong, and nothing else."""

    def wrong(smoothing, zeta, logit_q):
        return 1 / (1 + np.exp(-(logit_q - smoothing.log_ratio(zeta))))

    monkeypatch.setattr(posterior, "nu", wrong)
    assert parameters_that_fail(perform("reference", "objective")) == ENCODER1


def test_half_a_beta_in_torchs_nu_fails_where_nu_enters(monkeypatch):
    def wrong(smoothing, zeta, logit_q):
        return torch.sigmoid(logit_q + smoothing.beta / 2 * (2 * zeta - 1))

    monkeypatch.setattr(torch_tiny_model, "nu", wrong)
    assert parameters_that_fail(perform("torch", "objective")) == ENCODER1 | ENCODER2 | {"W"}


def test_a_missing_softplus_fails_in_decoder_and_encoders(monkeypatch):
    wrong = lambda x, logits: (x * logits).sum(-1)  # noqa: E731
    monkeypatch.setattr(torch_tiny_model, "bernoulli_log_prob", wrong)
    assert parameters_that_fail(perform("torch", "objective")) == set(torch_tiny_model.NAMES) - {"a1", "a2", "W"}
    monkeypatch.setattr(dvaepp.likelihoods, "bernoulli_log_prob", wrong)
    assert failing(perform("torch", "likelihoods")) == {"logits, reference"}


def test_a_dropped_jacobian_fails_in_the_encoders(monkeypatch):
    right = OverlappingExponential.inverse_cdf_with_derivatives
    monkeypatch.setattr(
        OverlappingExponential,
        "inverse_cdf_with_derivatives",
        lambda self, *noise: dataclasses.replace(right(self, *noise), dzeta_dlogit_q=np.ones_like(noise[0])),
    )
    assert parameters_that_fail(perform("reference", "objective")) == ENCODER1 | ENCODER2


def test_a_transposed_gradient_fails_in_W(monkeypatch):
    right = boltzmann.marginals
    monkeypatch.setattr(boltzmann, "marginals", lambda rbm: (m := right(rbm))._replace(pair=m.pair.T))
    assert parameters_that_fail(perform("reference", "objective")) == {"W"}
    assert parameters_that_fail(perform("torch", "objective")) == {"W"}


def test_an_averaged_kl_fails_in_all_but_the_decoder(monkeypatch):
    right = torch_tiny_model.cross_entropy
    monkeypatch.setattr(torch_tiny_model, "entropy", lambda logit_q: dvaepp.boltzmann.entropy(logit_q) / 4)
    monkeypatch.setattr(torch_tiny_model, "cross_entropy", lambda *arguments: right(*arguments) / 4)
    decoder = {"V3", "u3", "A3", "c3"}
    assert parameters_that_fail(perform("torch", "objective")) == set(torch_tiny_model.NAMES) - decoder


def test_a_wrong_line_of_the_backward_pass_is_named(monkeypatch):
    right = tiny_model.backward

    def wrong(*arguments):
        gradient = right(*arguments)
        return dataclasses.replace(gradient, S2=gradient.S2 / 2)

    monkeypatch.setattr(tiny_model, "backward", wrong)
    assert failing(perform("reference", "objective")) == {"S2: backward, differences"}
    assert failing(perform("torch", "objective")) == {"S2: autograd, backward"}


def test_a_dropped_derivative_of_torch_fails_its_own_check(monkeypatch):
    function = dvaepp.smoothing.family._InverseCDF
    right = function.backward
    monkeypatch.setattr(function, "backward", staticmethod(lambda ctx, grad: right(ctx, 2 * grad)))
    found = failing(perform("torch-number", "inverse_cdf", "exponential"))
    assert {"gradcheck", "dzeta_drho, differences", "dzeta_drho, reference"} <= found
    assert "groups: 2; prior.W, differences" not in failing(losses := perform("torch", "training_loss"))
    assert "groups: 2; encoders.0.0.weight, differences" in failing(losses)


class Wrong(NumpyOracle):
    """The oracle with one derivative spoilt."""

    def __init__(self, operation, name):
        self._spoilt, self._name = operation, name

    def _spoil(self, operation, result):
        if operation != self._spoilt:
            return result
        return result._replace(**{self._name: getattr(result, self._name) * (1 + 1e-5)})

    def inverse_cdf(self, *arguments, **more):
        return self._spoil("inverse_cdf", super().inverse_cdf(*arguments, **more))

    def entropy(self, *arguments):
        return self._spoil("entropy", super().entropy(*arguments))

    def cross_entropy_gradients(self, *arguments):
        return self._spoil("cross_entropy_gradients", super().cross_entropy_gradients(*arguments))


@pytest.mark.parametrize(
    ("operation", "name", "output"),
    [
        ("inverse_cdf", "dzeta_dbeta", "dzeta_dbeta, "),
        ("entropy", "dvalue_dlogit_q", "entropy by logit_q, "),
        ("cross_entropy_gradients", "W", "cross-entropy by W, "),
        ("cross_entropy_gradients", "nu", "cross-entropy by nu, "),
    ],
)
def test_a_backends_wrong_derivative_is_named(operation, name, output, monkeypatch):
    monkeypatch.setattr(gradients, "backend", lambda _: Wrong(operation, name))
    found = failing(perform("mine:Wrong", operation, "logistic" if operation == "inverse_cdf" else ""))
    assert found
    assert all(output in each for each in found)


def test_what_torchs_check_raises_is_its_verdict():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def raises(_):
        raise RuntimeError("no such kernel")

    finding = gradients.gradcheck("gradcheck", raises, [x])
    assert finding.error == np.inf
    assert finding.where == "no such kernel"
    assert gradients.gradcheck("gradcheck", torch.sin, [x]).holds
