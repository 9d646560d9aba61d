"""The torch estimators against the reference's, on the same noise, and against the enumerated gradient."""

import numpy as np
import pytest
import torch

import reference.estimators as judge
from dvaepp import estimators
from dvaepp.estimators import RunningMoments, TangentPlane
from reference.estimators import Integrand
from reference.vocabulary import ShapeError

N = 4
LEADING = [(), (3,), (2, 3)]
TEMPERATURE, ETA = 0.6, 0.7
#: Within rounding: sums of a few terms, some of which cancel.
CLOSE = {"rtol": 1e-11, "atol": 1e-13}

rng = np.random.default_rng(11)
PAIRS, SLOPE, INNER = rng.normal(size=(N, N)), rng.normal(size=N), 0.7 * rng.normal(size=N)
WEIGHTS, READOUT = rng.normal(size=(N, 3)), rng.normal(size=3)


def f(x):
    """Neither linear nor a sum over units, of arrays and of tensors."""
    lib, matrix, slope, inner = (np, PAIRS, SLOPE, INNER) if isinstance(x, np.ndarray) else (torch, *TENSORS)
    return ((x @ matrix) * x).sum(-1) / 2 + x @ slope + lib.exp(x @ inner)


TENSORS = tuple(torch.from_numpy(array) for array in (PAIRS, SLOPE, INNER))
INTEGRAND = Integrand(f, lambda x: x @ (PAIRS + PAIRS.T) / 2 + SLOPE + np.exp(x @ INNER)[:, None] * INNER)
SURROGATE = Integrand(
    lambda g: np.tanh(g @ WEIGHTS) @ READOUT, lambda g: ((1 - np.tanh(g @ WEIGHTS) ** 2) * READOUT) @ WEIGHTS.T
)


def surrogate(g):
    return torch.tanh(g @ torch.from_numpy(WEIGHTS)) @ torch.from_numpy(READOUT)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape)


def case(leading):
    """Noise, a second noise, logits and a baseline for 5 rows, some of the logits far out."""
    logits = np.random.default_rng(2).normal(size=(*leading, 5, N)) * np.array([1, 2, 5, 12.0])
    return noise(*leading, 5, N), noise(*leading, 5, N, seed=1), logits, noise(*leading, 5, seed=3)


def rows(array):
    return array.reshape(-1, N)


#: Each estimate written once, for both: by module e, integrand f and surrogate c of theirs.
SAME = {
    "draw": lambda e, f, c, rho, v, logits, b: e.draw(rho, logits),
    "score": lambda e, f, c, rho, v, logits, b: e.score(e.draw(rho, logits), logits),
    "reinforce": lambda e, f, c, rho, v, logits, b: e.reinforce(f, rho, logits, b),
    "nvil": lambda e, f, c, rho, v, logits, b: e.nvil(f, rho, logits, b, 2.5),
    "nvil, small signal": lambda e, f, c, rho, v, logits, b: e.nvil(f, rho, logits, b, 0.5),
    "muprop": lambda e, f, c, rho, v, logits, b: e.muprop(f, rho, logits, b),
    "arm": lambda e, f, c, rho, v, logits, b: e.arm(f, rho, logits),
    "disarm": lambda e, f, c, rho, v, logits, b: e.disarm(f, rho, logits),
    "logistic": lambda e, f, c, rho, v, logits, b: e.logistic(rho, logits),
    "conditional": lambda e, f, c, rho, v, logits, b: e.conditional_logistic(e.draw(rho, logits), v, logits).value,
    "its slope": lambda e, f, c, rho, v, logits, b: e.conditional_logistic(e.draw(rho, logits), v, logits)[1],
    "matching_noise": lambda e, f, c, rho, v, logits, b: e.matching_noise(rho, logits),
    "relax": lambda e, f, c, rho, v, logits, b: e.relax(f, c, rho, v, logits),
    "rebar": lambda e, f, c, rho, v, logits, b: e.rebar(f, rho, v, logits, TEMPERATURE, ETA),
    "straight_through": lambda e, f, c, rho, v, logits, b: e.straight_through(f, rho, logits),
}


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("name", SAME)
def test_each_estimator_is_the_references_on_the_same_noise(name, leading):
    rho, v, logits, baseline = case(leading)
    tensors = (torch.from_numpy(array) for array in (rho, v, logits, baseline))
    result = SAME[name](estimators, f, surrogate, *tensors)
    assert not result.requires_grad
    assert result.shape == rho.shape
    expected = SAME[name](judge, INTEGRAND, SURROGATE, rows(rho), rows(v), rows(logits), baseline.ravel())
    np.testing.assert_allclose(rows(result.numpy()), expected, **CLOSE)


@pytest.mark.parametrize("name", ["relax", "rebar"])
def test_no_second_noise_is_matching_noise(name):
    rho, _, logits, _ = case((2,))
    result = SAME[name](estimators, f, surrogate, torch.from_numpy(rho), None, torch.from_numpy(logits), None)
    matched = judge.matching_noise(rows(rho), rows(logits))
    expected = SAME[name](judge, INTEGRAND, SURROGATE, rows(rho), matched, rows(logits), None)
    np.testing.assert_allclose(rows(result.numpy()), expected, **CLOSE)


@pytest.mark.parametrize("leading", LEADING)
def test_vimco_is_the_references_on_the_same_noise(leading):
    _, _, logits, _ = case(leading)
    rho = noise(3, *leading, 5, N)
    result = estimators.vimco(f, torch.from_numpy(rho), torch.from_numpy(logits))
    by_rows = np.moveaxis(rho.reshape(3, -1, N), 0, 1)
    np.testing.assert_allclose(rows(result.numpy()), judge.vimco(f, by_rows, logits.reshape(-1, N)), **CLOSE)


def test_logits_may_be_one_vector_for_all_rows():
    rho, v, logits, _ = (torch.from_numpy(array) for array in case(()))
    one = logits[0]
    repeated = one.expand(rho.shape)
    for estimate in (
        lambda logits: estimators.disarm(f, rho, logits),
        lambda logits: estimators.muprop(f, rho, logits),
        lambda logits: estimators.rebar(f, rho, v, logits, TEMPERATURE),
        lambda logits: estimators.rebar(f, rho, None, logits, TEMPERATURE),
    ):
        assert torch.equal(estimate(one), estimate(repeated))


def test_a_known_value_at_the_draw_is_not_evaluated_again():
    rho, v, logits, _ = (torch.from_numpy(array) for array in case((2,)))
    z = estimators.draw(rho, logits)
    f_z = f(z)
    calls = []

    def counted(x):
        calls.append(x)
        return f(x)

    plane = estimators.tangent_plane(f, z, logits)
    samples = torch.stack([rho, v])
    for estimate, n_known, n_else in (
        (lambda **known: estimators.reinforce(counted, rho, logits, **known), 0, 1),
        (lambda **known: estimators.nvil(counted, rho, logits, 0.0, 2.0, **known), 0, 1),
        (lambda **known: estimators.muprop(counted, rho, logits, **known), 1, 2),
        (lambda **known: estimators.muprop(counted, rho, logits, plane=plane, **known), 0, 1),
        (lambda **known: estimators.arm(counted, rho, logits, **known), 1, 2),
        (lambda **known: estimators.disarm(counted, rho, logits, **known), 1, 2),
        (lambda **known: estimators.rebar(counted, rho, v, logits, 0.5, **known), 2, 3),
        (lambda **known: estimators.rebar(counted, rho, None, logits, 0.5, **known), 1, 2),
    ):
        counts, results = [], []
        for known in ({"f_z": f_z}, {}):
            calls.clear()
            results.append(estimate(**known))
            counts.append(len(calls))
        assert counts == [n_known, n_else]
        assert torch.equal(*results)
    calls.clear()
    known = estimators.vimco(counted, samples, logits, f_z=f(estimators.draw(samples, logits)))
    assert not calls
    assert torch.equal(known, estimators.vimco(f, samples, logits))


#: Draws for each test of bias, in one batch.
DRAWS = 100_000
CHANCE = np.array([-1.2, 0.4, 0.9, -0.3])
UNBIASED = {
    "reinforce": lambda rho, v, logits: estimators.reinforce(f, rho, logits, 1.5),
    "nvil": lambda rho, v, logits: 3.0 * estimators.nvil(f, rho, logits, 1.5, torch.tensor(3.0)),
    "muprop": lambda rho, v, logits: estimators.muprop(f, rho, logits, 0.4),
    "muprop, another plane": lambda rho, v, logits: estimators.muprop(
        lambda x: x.sin().sum(-1), rho, logits, f_z=f(estimators.draw(rho, logits))
    ),
    "arm": lambda rho, v, logits: estimators.arm(f, rho, logits),
    "disarm": lambda rho, v, logits: estimators.disarm(f, rho, logits),
    "relax": lambda rho, v, logits: estimators.relax(f, surrogate, rho, v, logits),
    "relax, matched": lambda rho, v, logits: estimators.relax(f, surrogate, rho, None, logits),
    "rebar": lambda rho, v, logits: estimators.rebar(f, rho, v, logits, TEMPERATURE, ETA),
    "rebar, matched": lambda rho, v, logits: estimators.rebar(f, rho, None, logits, TEMPERATURE, ETA),
}


def t_statistics(estimates, exact):
    """Deviations of the mean over rows from the exact gradient in standard errors."""
    return (estimates.mean(0).numpy() - exact) / (estimates.std(0).numpy() / np.sqrt(len(estimates)))


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased(name):
    """Right for 10 x 4 normal deviates beyond 4 standard errors once in 400 seeds; the seed is fixed."""
    exact = judge.exact_gradient(f, CHANCE)
    rho, v = (torch.from_numpy(noise(DRAWS, N, seed=seed)) for seed in (4, 5))
    estimates = UNBIASED[name](rho, v, torch.from_numpy(CHANCE))
    assert np.abs(t_statistics(estimates, exact)).max() < 4


def test_vimco_unbiased():
    """Right for 4 normal deviates beyond 4 standard errors once in 4,000 seeds; the seed is fixed."""
    exact = judge.exact_multi_sample_gradient(f, CHANCE, 3)
    rho = torch.from_numpy(noise(3, DRAWS, N, seed=6))
    assert np.abs(t_statistics(estimators.vimco(f, rho, torch.from_numpy(CHANCE)), exact)).max() < 4


def test_straight_through_has_its_bias():
    exact = judge.exact_gradient(f, CHANCE)
    rho = torch.from_numpy(noise(DRAWS, N, seed=4))
    assert np.abs(t_statistics(estimators.straight_through(f, rho, torch.from_numpy(CHANCE)), exact)).max() > 20


def test_disarm_is_never_noisier_than_arm():
    """It is ARM's mean given the draws: in every unit the variance is smaller, here by 30 % and more."""
    rho, logits = torch.from_numpy(noise(DRAWS, N, seed=4)), torch.from_numpy(CHANCE)
    ratio = estimators.disarm(f, rho, logits).var(0) / estimators.arm(f, rho, logits).var(0)
    assert ratio.max() < 0.9


@pytest.mark.parametrize("matched", [True, False])
def test_rebars_estimate_is_differentiable_in_temperature_and_eta(matched):
    rho, v, logits, _ = (torch.from_numpy(array) for array in case((2,)))
    logits.requires_grad_()
    rho, v, logits_4 = rho[..., :3, :], v[..., :3, :], logits[..., :3, :] / 4

    def loss(temperature, eta):
        estimate = estimators.rebar(
            f, rho, None if matched else v, logits_4, temperature, eta, create_graph=True, f_z=None
        )
        return estimate.square().sum((-2, -1))

    temperature = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    eta = torch.tensor([1.0, 0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (temperature, eta))
    total = loss(temperature, eta).sum()
    (to_logits,) = torch.autograd.grad(total, logits, allow_unused=True)
    assert to_logits is None


def test_running_moments_are_the_references():
    signal = noise(2, 7)
    moments, originals = RunningMoments(torch.zeros(2).double(), torch.ones(2).double()), [judge.RunningMoments()] * 2
    for shift in (0.0, 3.0):
        moments = moments.updated(torch.from_numpy(signal + shift), 0.8)
        originals = [one.updated(row + shift, 0.8) for one, row in zip(originals, signal, strict=True)]
    assert moments.mean.tolist() == pytest.approx([one.mean for one in originals], rel=1e-14)
    assert moments.variance.tolist() == pytest.approx([one.variance for one in originals], rel=1e-14)
    assert moments.scale.tolist() == pytest.approx([one.scale for one in originals], rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_on_the_ends_gives_finite_estimates(dtype):
    """float32 generators draw a 0 once in 2**24; float64 ones can."""
    rho = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.0, 0.0]], dtype=dtype)
    for logits in (torch.tensor([1.0, -2.0, 30.0], dtype=dtype), torch.tensor([-90.0, 0.0, 90.0], dtype=dtype)):
        for v in (None, rho, estimators.matching_noise(rho, logits)):
            assert estimators.rebar(lambda x: (x * x).sum(-1), rho, v, logits, 0.1).isfinite().all()


def test_the_straight_through_draw_is_binary_and_its_slope_keeps_digits():
    logits = torch.tensor([0.3, -2.0, 50.0], dtype=torch.float64, requires_grad=True)
    z = estimators.straight_through_draw(torch.tensor([0.6, 0.6, 0.6], dtype=torch.float64), logits)
    assert z.tolist() == [1, 0, 1]
    (slope,) = torch.autograd.grad(z.sum(), logits)
    expected = [np.exp(-abs(x)) / (1 + np.exp(-abs(x))) ** 2 for x in (0.3, 2.0, 50.0)]
    assert slope.tolist() == pytest.approx(expected, rel=1e-14)


def test_shapes_that_do_not_fit():
    rho, _, logits, _ = (torch.from_numpy(array) for array in case(()))
    wrong = rho.new_zeros(5, 1)  # would broadcast into (5, 5)
    for call in (
        lambda: estimators.disarm(lambda z: z, rho, logits),
        lambda: estimators.reinforce(f, rho, logits, f_z=wrong),
        lambda: estimators.relax(f, surrogate, rho, None, logits, f_z=wrong),
        lambda: estimators.straight_through(lambda z: z.sum(), rho, logits),
    ):
        with pytest.raises(ShapeError, match=r"must be \(5,\), one number for each row; got"):
            call()
    with pytest.raises(ShapeError, match="K >= 2 samples to compare; got K = 1"):
        estimators.vimco(f, rho[None], logits)


def test_a_plane_is_taken_around_the_mean():
    logits = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    plane = estimators.tangent_plane(lambda x: (x * x).sum(-1), torch.tensor([[1.0, 0.0]]).double(), logits)
    # at (1/2, 1/2): 1/2, slope (1, 1); from there to (1, 0)
    assert isinstance(plane, TangentPlane)
    assert plane.value.tolist() == [0.5]
    assert plane.slope.tolist() == [[1.0, 1.0]]
