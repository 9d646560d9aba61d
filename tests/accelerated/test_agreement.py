"""Every operation of every backend, with every derivative, against the reference.

What agreement means, and by how much, is stated in ``validation.agreement`` and ``validation.tolerances``; here are the
inputs: shapes, dtypes and values found by Hypothesis, odd sizes, strides, and what must be refused.
"""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import accelerated
from accelerated.protocol import EXTRAS, KINDS, OPERATIONS, Machine, Smoothed
from reference.vocabulary import DomainError, ShapeError
from validation import accuracy, agreement
from validation.cases import BETA_RANGE, Cases, all_cases
from validation.tolerances import ANNEALING_LOG_WEIGHT, TRANSFORM_MIXED_ERROR

DTYPES = [np.float32, np.float64]
SIZES = [1, 3, 17, 100, 129]
LAYOUTS = ["contiguous", "every other", "reversed", "transposed"]

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
kinds = pytest.mark.parametrize("kind", KINDS)
seeds = st.integers(0, 2**32 - 1)


def needs(backend, *operations):
    if lacking := set(operations) - backend.operations():
        pytest.skip(f"{backend.name} lacks {', '.join(lacking)}")


def examples(backend, n):
    """As many examples; the reference against itself shows that the judge is right, and is slow."""
    return settings(max_examples=n if backend.name != "numpy_oracle" else 5)


def assert_holds(*findings):
    for finding in findings:
        assert finding.holds, finding


def laid_out(backend, array, layout):
    """The array in the backend's memory, its entries where the layout puts them."""
    if layout == "every other" and array.ndim:
        return backend.asarray(np.repeat(array, 2, axis=-1))[..., ::2]
    if layout == "reversed" and array.ndim:
        return backend.asarray(np.ascontiguousarray(array[..., ::-1]))[..., ::-1]
    if layout == "transposed" and array.ndim > 1:
        return backend.asarray(np.ascontiguousarray(array.T)).T
    return backend.asarray(array)


def host(backend, results):
    """All arrays of a result as NumPy arrays."""
    return [backend.to_numpy(array) for array in results if array is not None]


def assert_same_bits(backend, one, other):
    for x, y in zip(host(backend, one), host(backend, other), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_same_sums(backend, one, other):
    """The same bits, but for the reference: NumPy's order of summation depends on shapes and strides."""
    if backend.name != "numpy_oracle":
        assert_same_bits(backend, one, other)
    for x, y in zip(host(backend, one), host(backend, other), strict=True):
        np.testing.assert_allclose(x, y, rtol=8 * np.finfo(x.dtype).eps)


def random_machine(rng, n1, n2, dtype, scale=None):
    scale = 2 / np.sqrt(n1) if scale is None else scale
    parameters = rng.normal(size=n1), rng.normal(size=n2), scale * rng.normal(size=(n1, n2))
    return Machine(*(x.astype(dtype) for x in parameters))


def on(backend, machine, layout="contiguous"):
    return Machine(*(laid_out(backend, x, layout) for x in machine))


def coins(rng, *shape, dtype):
    return rng.integers(2, size=shape).astype(dtype)


@dtypes
def test_one_examination_finds_nothing(backend, dtype):
    # What ``python -m validation agreement`` does, on fewer cases.
    for _, finding in agreement.examine_all(backend, all_cases(300, dtype, seed=3)[::11], seed=5, size=33):
        assert_holds(finding)


# ---- transforms ------------------------------------------------------------------------------------------------------


def numbers(dtype, low, high):
    width = np.dtype(dtype).itemsize * 8
    return st.floats(float(dtype(low)), float(dtype(high)), width=width)


@st.composite
def transforms(draw, dtype):
    """rho and logit_q of one shape, 0 to 3 axes that may be empty, and a sharpness."""
    shape = draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
    rho = draw(arrays(dtype, shape, elements=numbers(dtype, 0, 1)))
    logits = st.one_of(numbers(dtype, -30, 30), numbers(dtype, -np.inf, np.inf).filter(lambda x: x == x))
    logit_q = draw(arrays(dtype, shape, elements=logits))
    low, high = (float(dtype(end)) for end in BETA_RANGE)
    beta = draw(st.one_of(st.floats(0.5, 30), st.floats(low, high)))
    return rho, logit_q, float(np.clip(dtype(beta), dtype(low), dtype(high)))


@dtypes
@kinds
def test_transforms_agree(backend, kind, dtype):
    needs(backend, "inverse_cdf")

    @examples(backend, 40)
    @given(transforms(dtype), st.sampled_from(LAYOUTS), st.sampled_from([(), ("dzeta_dlogit_q",)]))
    def agree(inputs, layout, some):
        rho, logit_q, beta = inputs
        device = [laid_out(backend, x, layout) for x in (rho, logit_q)]
        result = backend.inverse_cdf(kind, *device, beta, EXTRAS)
        for output in host(backend, result):
            assert output.shape == rho.shape
            assert output.dtype == dtype
        subset = backend.inverse_cdf(kind, *device, beta, some)
        for name, values in subset._asdict().items():
            if name != "zeta" and name not in some:
                assert values is None
            else:
                assert_same_bits(backend, [values], [getattr(result, name)])
        if rho.size:
            cases = Cases(rho.ravel(), logit_q.ravel(), np.full(rho.size, beta, dtype=dtype))
            assert_holds(*agreement.disagreements(agreement.inverse_cdf(backend, kind), cases))
            assert_holds(*agreement.posterior_disagreements(backend, kind, cases))

    agree()


@dtypes
@kinds
def test_transforms_keep_the_bound_at_the_edges(backend, kind, dtype):
    needs(backend, "inverse_cdf")
    # The truth costs up to a tenth of a second a point; ``python -m validation`` takes more of them.
    cases = all_cases(700, dtype, seed=2)[:: 29 if kind != "power" else 61]
    outputs = accuracy.backend_inverse_cdf(backend, kind, cases.rho, cases.logit_q, cases.beta)
    for worst in accuracy.mixed_errors(outputs, cases.rho, cases.logit_q, cases.beta, kind).values():
        assert worst.mixed_error <= TRANSFORM_MIXED_ERROR, str(worst)
    if backend.name == "numpy_oracle":
        return  # judged in tests/validation, and nothing to compare with
    cases = all_cases(700, dtype, seed=2)[:: 1 if kind != "power" else 7]
    assert_holds(*agreement.disagreements(agreement.inverse_cdf(backend, kind), cases))
    assert_holds(*agreement.posterior_disagreements(backend, kind, cases))


@dtypes
@kinds
def test_a_number_has_one_transform_wherever_it_stands(backend, kind, dtype):
    needs(backend, "inverse_cdf")
    cases = all_cases(100, dtype, seed=4)[::3]
    alone = [
        host(backend, backend.inverse_cdf(kind, *(backend.asarray(x[i : i + 1]) for x in (rho, logit)), 8.0, EXTRAS))
        for rho, logit in [(cases.rho, cases.logit_q)]
        for i in range(0, len(cases), 13)
    ]
    together = host(backend, backend.inverse_cdf(kind, *map(backend.asarray, (cases.rho, cases.logit_q)), 8.0, EXTRAS))
    for one, i in zip(alone, range(0, len(cases), 13), strict=True):
        for value, values in zip(one, together, strict=True):
            np.testing.assert_array_equal(value, values[i : i + 1])


@dtypes
@kinds
def test_transforms_fill_what_they_are_given(backend, kind, dtype):
    needs(backend, "inverse_cdf")
    rng = np.random.default_rng(6)
    inputs = [backend.asarray(x.astype(dtype)) for x in (rng.uniform(size=(7, 19)), rng.normal(size=(7, 19)))]
    expected = backend.inverse_cdf(kind, *inputs, 5.0, EXTRAS)
    out = Smoothed(*(backend.asarray(np.full((7, 19), -7, dtype=dtype)) for _ in Smoothed._fields))
    result = backend.inverse_cdf(kind, *inputs, 5.0, EXTRAS, out)
    assert_same_bits(backend, result, expected)
    assert_same_bits(backend, out, expected)
    some = Smoothed(*(backend.asarray(np.zeros((7, 19), dtype)) for _ in range(2)))
    backend.inverse_cdf(kind, *inputs, 5.0, ("dzeta_dlogit_q",), some)
    assert_same_bits(backend, some[:2], expected[:2])


@dtypes
@kinds
def test_what_is_no_number_stays_none(backend, kind, dtype):
    needs(backend, "inverse_cdf")
    rho = np.array([np.nan, 0.3, -0.1, 1.1, 0.5], dtype=dtype)
    logit_q = np.array([0.5, np.nan, 0.5, 0.5, 0.5], dtype=dtype)
    try:  # values are refused where looking at them is free, else they are passed on
        result = backend.inverse_cdf(kind, backend.asarray(rho), backend.asarray(logit_q), 5.0, EXTRAS)
    except DomainError:
        return
    for output in host(backend, result):
        assert np.isnan(output[:4]).all()
        assert not np.isnan(output[4])  # though the spike's log ratio is infinite


# ---- sums ------------------------------------------------------------------------------------------------------------


@dtypes
def test_entropies_agree(backend, dtype):
    needs(backend, "entropy")
    logits = st.one_of(numbers(dtype, -30, 30), numbers(dtype, -np.inf, np.inf).filter(lambda x: x == x))
    shapes = array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20)

    @examples(backend, 60)
    @given(arrays(dtype, shapes, elements=logits), st.sampled_from(LAYOUTS))
    def agree(logit_q, layout):
        result = backend.entropy(laid_out(backend, logit_q, layout))
        value, slope = host(backend, result)
        assert value.shape == logit_q.shape[:1]
        assert slope.shape == logit_q.shape
        assert value.dtype == slope.dtype == dtype
        assert_same_sums(backend, result, backend.entropy(backend.asarray(logit_q)))
        if logit_q.size:
            assert_holds(*agreement.entropy_disagreements(backend, logit_q))

    agree()


def posteriors(rng, n_rows, n_units, dtype):
    """Means that are certain here and there."""
    values = rng.uniform(size=(2, n_rows, n_units)) * rng.choice([1, 0], size=(2, n_rows, n_units), p=[0.8, 0.2])
    return np.where(rng.uniform(size=values.shape) < 0.1, 1, values).astype(dtype)


@dtypes
def test_cross_entropies_and_their_gradients_agree(backend, dtype):
    needs(backend, "cross_entropy", "cross_entropy_gradients")

    @examples(backend, 40)
    @given(st.sampled_from([1, 2, 3, 8, 17]), st.sampled_from([1, 3, 8, 17]), st.integers(0, 9), st.data(), seeds)
    def agree(n1, n2, n_rows, data, seed):
        rng = np.random.default_rng(seed)
        n_groups = data.draw(st.sampled_from([g for g in range(1, n1 + n2 + 1) if (n1 + n2) % g == 0]))
        layout = data.draw(st.sampled_from(LAYOUTS))
        machine = random_machine(rng, n1, n2, dtype, scale=data.draw(st.sampled_from([0, 1, 100])))
        mu, nu = posteriors(rng, n_rows, n1 + n2, dtype)
        upstream = (3 * rng.normal(size=n_rows)).astype(dtype)
        device = on(backend, machine, layout), laid_out(backend, mu, layout), laid_out(backend, nu, layout), n_groups
        value = backend.to_numpy(backend.cross_entropy(*device))
        gradients = host(backend, backend.cross_entropy_gradients(*device, backend.asarray(upstream)))
        assert value.shape == (n_rows,)
        assert [x.shape for x in gradients] == [mu.shape, nu.shape, *(x.shape for x in machine)]
        assert {x.dtype for x in (value, *gradients)} == {np.dtype(dtype)}
        if n_rows:
            found = agreement.cross_entropy_disagreements(backend, machine, mu, nu, n_groups, upstream)
            assert_holds(*found)
        else:
            assert not any(x.any() for x in gradients)

    agree()


def test_cross_entropies_of_round_numbers_are_exact(backend):
    # Multiples of 1/8 and 1/16 below 4: every product and sum has less than 53 bits, whatever the order.
    needs(backend, "cross_entropy", "cross_entropy_gradients")
    rng = np.random.default_rng(7)
    value = accelerated.load("numpy_oracle").cross_entropy
    for n1, n2, n_groups in ((1, 1, 2), (17, 17, 2), (100, 128, 4), (9, 9, 3), (33, 100, 1)):
        machine = Machine(*(rng.integers(-31, 32, size=shape) / 8 for shape in (n1, n2, (n1, n2))))
        mu, nu = rng.integers(0, 17, size=(2, 5, n1 + n2)) / 16
        upstream = rng.integers(-31, 32, size=5) / 8
        device = on(backend, machine), backend.asarray(mu), backend.asarray(nu), n_groups
        expected = value(machine, mu, nu, n_groups)
        np.testing.assert_array_equal(backend.to_numpy(backend.cross_entropy(*device)), expected)
        if backend.name == "numpy_oracle":
            continue  # it differentiates by the logits of mu, which are no round numbers
        gradients = backend.cross_entropy_gradients(*device, backend.asarray(upstream))
        unit = rng.integers(n1 + n2)  # of degree one in each number: a difference of values is the derivative
        on_, off = mu.copy(), mu.copy()
        on_[:, unit], off[:, unit] = 1, 0
        slope = value(machine, on_, nu, n_groups) - value(machine, off, nu, n_groups)
        np.testing.assert_array_equal(backend.to_numpy(gradients.mu)[:, unit], upstream * slope)
        on_, off = nu.copy(), nu.copy()
        on_[:, unit], off[:, unit] = 1, 0
        slope = value(machine, mu, on_, n_groups) - value(machine, mu, off, n_groups)
        np.testing.assert_array_equal(backend.to_numpy(gradients.nu)[:, unit], upstream * slope)
        i, j = rng.integers(n1), rng.integers(n2)
        for name, index in (("a1", i), ("a2", j), ("W", (i, j))):
            moved = getattr(machine, name).copy()
            moved[index] += 1
            slope = value(machine._replace(**{name: moved}), mu, nu, n_groups) - expected
            assert backend.to_numpy(getattr(gradients, name))[index] == upstream @ slope


@dtypes
def test_log_means_agree_with_arithmetic_of_many_digits(backend, dtype):
    needs(backend, "importance_log_mean")
    elements = st.one_of(numbers(dtype, -100, 100), numbers(dtype, -1e30, 1e30), st.just(-np.inf))

    @examples(backend, 60)
    @given(st.integers(0, 5), st.integers(1, 20), st.data())
    def agree(n_rows, n_weights, data):
        weights = data.draw(arrays(dtype, (n_rows, n_weights), elements=elements))
        cuts = sorted(data.draw(st.sets(st.integers(1, n_weights - 1), max_size=3))) if n_weights > 1 else []
        layout = data.draw(st.sampled_from(LAYOUTS))
        whole = backend.importance_log_mean(laid_out(backend, weights, layout))
        value, largest, total = host(backend, whole[:3])
        assert whole.n_weights == n_weights
        assert value.shape == largest.shape == total.shape == (n_rows,)
        assert value.dtype == largest.dtype == total.dtype == np.float64
        np.testing.assert_array_equal(largest, weights.max(axis=1, initial=-np.inf))
        with mpmath.workdps(60):
            for row, got in zip(weights.tolist(), value.tolist(), strict=True):
                mean = mpmath.fsum(mpmath.exp(mpmath.mpf(w)) for w in row) / n_weights
                expected = mpmath.log(mean) if mean else -mpmath.inf
                size = 1 + abs(max(row)) if max(row) > -np.inf else 1
                error = abs(got - expected) if mean else float(got != expected)
                assert error <= (4 + n_weights / 2) * 2.0**-52 * size
        if n_rows:
            assert_holds(agreement.log_mean_disagreements(backend, weights))
            assert_holds(agreement.log_mean_disagreements(backend, weights, tuple(cuts)))

    agree()


# ---- chains ----------------------------------------------------------------------------------------------------------

addresses = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**56 - 10), st.integers(0, 2**32 - 200))


@dtypes
def test_gibbs_bits_agree_outside_the_band(backend, dtype):
    needs(backend, "gibbs")
    all_bits = agreement.Bits()

    @examples(backend, 60)
    @given(
        st.sampled_from(SIZES),
        st.sampled_from(SIZES),
        st.sampled_from([1, 2, 3, 17, 64, 100]),
        st.integers(1, 3),
        st.sampled_from([0.0, 0.1, 1.0, 30.0]),
        addresses,
        seeds,
    )
    def agree(n1, n2, n_chains, n_sweeps, scale, address, seed):
        rng = np.random.default_rng(seed)
        machine = random_machine(rng, n1, n2, dtype, scale=scale / np.sqrt(n1))
        z1 = coins(rng, n_chains, n1, dtype=dtype)
        seed, step, first_chain = address
        bits = agreement.gibbs_bits(backend, machine, z1, n_sweeps, seed, step, first_chain)
        assert not bits.wrong
        all_bits.n_units += bits.n_units
        all_bits.n_inside += bits.n_inside
        all_bits.n_expected += bits.n_expected

    agree()
    assert all_bits.rare, all_bits
    # Of a million units a few hundred may be either way in float32, and none in float64.
    assert all_bits.n_expected / all_bits.n_units < (1e-3 if dtype == np.float32 else 1e-10)


@dtypes
@pytest.mark.parametrize(("n1", "n2"), [(1000, 129), (129, 1000), (1000, 1000), (1, 1000)])
def test_gibbs_bits_of_large_machines_agree(backend, dtype, n1, n2):
    needs(backend, "gibbs")
    rng = np.random.default_rng(n1 + n2)
    machine = random_machine(rng, n1, n2, dtype)
    bits = agreement.gibbs_bits(backend, machine, coins(rng, 33, n1, dtype=dtype), 2, 11, 2**33)
    assert not bits.wrong
    assert bits.rare, bits
    assert not agreement.edge_bits(backend, machine.W, coins(rng, 1, n1, dtype=dtype), 2**40, 3, 2).wrong


@dtypes
def test_gibbs_bits_at_the_edge_of_the_band_agree(backend, dtype):
    """Machines whose units all lie just outside the band: what a random machine shows once in a million units."""
    needs(backend, "gibbs")

    @examples(backend, 60)
    @given(st.sampled_from(SIZES), st.sampled_from(SIZES), st.sampled_from([0.0, 0.1, 1.0, 10.0]), addresses, seeds)
    def agree(n1, n2, scale, address, seed):
        rng = np.random.default_rng(seed)
        W = random_machine(rng, n1, n2, dtype, scale=scale / np.sqrt(n1)).W
        bits = agreement.edge_bits(backend, W, coins(rng, 1, n1, dtype=dtype), *address)
        assert not bits.wrong
        assert bits.n_inside <= (n1 + n2) / 4 + 2  # the others are judged

    agree()


@dtypes
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_certain_units_are_certain(backend, dtype, size):
    needs(backend, "gibbs")
    rng = np.random.default_rng(8)
    signs = [rng.choice([-1, 1], size=n) for n in (17, 5)]
    machine = Machine(*((size * sign).astype(dtype) for sign in signs), np.zeros((17, 5), dtype=dtype))
    result = host(backend, backend.gibbs(on(backend, machine), backend.asarray(np.zeros((9, 17), dtype)), 3, 1, 0))
    for z, sign in zip(result, signs, strict=True):
        np.testing.assert_array_equal(z, np.tile(sign > 0, (9, 1)))


@dtypes
def test_gibbs_goes_on_splits_and_fills_without_a_bit_changing(backend, dtype):
    needs(backend, "gibbs")

    @examples(backend, 30)
    @given(
        st.sampled_from(SIZES),
        st.sampled_from(SIZES),
        st.integers(0, 70),
        st.integers(1, 4),
        st.integers(1, 4),
        st.sampled_from(LAYOUTS),
        seeds,
    )
    def agree(n1, n2, n_chains, a, b, layout, seed):
        rng = np.random.default_rng(seed)
        machine = random_machine(rng, n1, n2, dtype)
        z1, rbm, address = coins(rng, n_chains, n1, dtype=dtype), on(backend, machine), (seed, 2**32 - 2)
        whole = backend.gibbs(rbm, backend.asarray(z1), a + b, *address)
        assert [x.shape for x in host(backend, whole)] == [(n_chains, n1), (n_chains, n2)]
        assert {x.dtype for x in host(backend, whole)} == {np.dtype(dtype)}
        middle = backend.gibbs(rbm, backend.asarray(z1), a, *address)
        assert_same_bits(backend, backend.gibbs(rbm, middle[0], b, seed, 2**32 - 2 + a), whole)

        strided = on(backend, machine, layout), laid_out(backend, z1, layout)
        assert_same_bits(backend, backend.gibbs(*strided, a + b, *address), whole)

        cut = int(rng.integers(n_chains + 1))
        parts = [
            host(backend, backend.gibbs(rbm, backend.asarray(z1[rows]), a + b, *address, first_chain=rows.start))
            for rows in (slice(0, cut), slice(cut, n_chains))
        ]
        for part, all_rows in zip(zip(*parts, strict=True), host(backend, whole), strict=True):
            np.testing.assert_array_equal(np.concatenate(part), all_rows)

        mine = backend.asarray(z1.copy())
        out = mine, backend.asarray(np.full((n_chains, n2), 7, dtype=dtype))  # out may hold z1 itself
        assert_same_bits(backend, backend.gibbs(rbm, mine, a + b, *address, out=out), whole)
        assert_same_bits(backend, out, whole)

    agree()


def test_gibbs_leaves_its_arguments_alone(backend):
    needs(backend, "gibbs")
    machine = random_machine(np.random.default_rng(9), 5, 6, np.float32)
    rbm, z1 = on(backend, machine), backend.asarray(np.ones((4, 5), np.float32))
    backend.gibbs(rbm, z1, 3, 0, 0)
    assert_same_bits(backend, (*rbm, z1), tuple(map(backend.asarray, (*machine, np.ones((4, 5), np.float32)))))


def ladders(draw, n):
    return np.append(np.sort(draw(st.lists(st.floats(0, 0.99), min_size=n - 1, max_size=n - 1, unique=True))), 1.0)


@dtypes
def test_tempering_agrees(backend, dtype):
    needs(backend, "tempering")
    met = np.zeros(2, dtype=int)

    @examples(backend, 40)
    @given(
        st.sampled_from([1, 3, 17, 100]),
        st.sampled_from([1, 3, 17, 129]),
        st.integers(1, 9),
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(0, 2**56 // 8),
        st.booleans(),
        st.data(),
        seeds,
    )
    def agree(n1, n2, n_chains, n_rounds, sweeps, first_round, from_states, data, seed):
        rng = np.random.default_rng(seed)
        n_replicas = data.draw(st.integers(1, 5))
        ladder = ladders(data.draw, n_replicas)
        machine = random_machine(rng, n1, n2, dtype)
        z1 = coins(rng, n_replicas * n_chains, n1, dtype=dtype) if from_states else None
        arguments = ladder, n_chains, n_rounds, seed, first_round, z1, sweeps
        chains = agreement.tempering_chains(backend, machine, *arguments)
        assert_holds(chains.finding("chains", 0))
        assert chains.bits.rare, chains
        met[:] += chains.n_excluded, n_chains

    agree()
    assert met[0] <= met[1] * (0.02 if dtype == np.float32 else 0)  # left out, of all


@dtypes
def test_tempering_goes_on_without_a_bit_changing(backend, dtype):
    needs(backend, "tempering")
    rng = np.random.default_rng(10)
    rbm = on(backend, random_machine(rng, 17, 9, dtype))
    ladder = [0.2, 0.5, 0.8, 1.0]
    whole = backend.tempering(rbm, ladder, 33, 5, 2**63 + 1, sweeps_per_round=2)
    first = backend.tempering(rbm, ladder, 33, 3, 2**63 + 1, sweeps_per_round=2)
    second = backend.tempering(rbm, ladder, 33, 2, 2**63 + 1, 3, first.z1, sweeps_per_round=2)
    assert_same_bits(backend, second[:2], whole[:2])
    n_accepted = [backend.to_numpy(part.n_accepted) for part in (first, second, whole)]
    assert n_accepted[2].dtype == np.int64
    np.testing.assert_array_equal(n_accepted[0] + n_accepted[1], n_accepted[2])
    assert n_accepted[2].min() > 0


@dtypes
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_annealing_agrees(backend, dtype, reverse):
    needs(backend, "reverse_ais" if reverse else "ais")
    met = np.zeros(2, dtype=int)

    @examples(backend, 40)
    @given(
        st.sampled_from([1, 3, 17, 100]),
        st.sampled_from([1, 3, 17, 129]),
        st.integers(1, 40),
        st.integers(1, 12),
        st.integers(0, 2**32 - 100),
        st.integers(0, 2**64 - 1),
        seeds,
    )
    def agree(n1, n2, n_chains, n_steps, first_chain, philox_seed, seed):
        rng = np.random.default_rng(seed)
        machine = random_machine(rng, n1, n2, dtype)
        base = tuple(rng.normal(size=n).astype(dtype) for n in (n1, n2))
        path = np.concatenate([[0.0], np.sort(rng.uniform(0.01, 0.99, n_steps - 1)), [1.0]])
        start = {"z1": coins(rng, n_chains, n1, dtype=dtype)} if reverse else {"n_chains": n_chains}
        chains = agreement.annealing_chains(backend, machine, base, path, philox_seed, first_chain=first_chain, **start)
        assert_holds(chains.finding("log-weights", ANNEALING_LOG_WEIGHT[np.dtype(dtype).name]))
        assert chains.bits.rare, chains
        met[:] += chains.n_excluded, n_chains

    agree()
    assert met[0] <= met[1] * (0.05 if dtype == np.float32 else 0)  # left out, of all


@dtypes
def test_annealing_splits_without_a_bit_changing(backend, dtype):
    needs(backend, "ais", "reverse_ais")
    rng = np.random.default_rng(11)
    machine = random_machine(rng, 17, 100, dtype)
    rbm, base = on(backend, machine), tuple(backend.asarray(np.zeros(n, dtype)) for n in (17, 100))
    path, z1 = np.linspace(0, 1, 20), coins(rng, 50, 17, dtype=dtype)
    whole = backend.ais(rbm, base, path, 50, 5)
    parts = [backend.ais(rbm, base, path, n, 5, first) for n, first in ((19, 0), (31, 19))]
    assert_same_sums(backend, [whole[:19], whole[19:]], parts)
    whole = backend.reverse_ais(rbm, base, path, backend.asarray(z1), 5)
    parts = [
        backend.reverse_ais(rbm, base, path, backend.asarray(z1[rows]), 5, rows.start)
        for rows in (slice(0, 19), slice(19, 50))
    ]
    assert_same_sums(backend, [whole[:19], whole[19:]], parts)
    strided = on(backend, machine, "transposed"), base, path, laid_out(backend, z1, "every other")
    assert_same_sums(backend, [backend.reverse_ais(*strided, 5)], [whole])


# ---- what is refused -------------------------------------------------------------------------------------------------


def calls(backend, dtype=np.float32):
    """For each operation good arguments, as a dictionary; fresh at every call."""

    def array(*shape, value=0.5):
        return backend.asarray(np.full(shape, value, dtype=dtype))

    rbm = Machine(array(5), array(7), array(5, 7))
    z1, base, path = array(3, 5, value=1), (array(5), array(7)), [0.0, 0.5, 1.0]
    means = {"mu": array(3, 12), "nu": array(3, 12), "n_groups": 2}
    return {
        "inverse_cdf": {"kind": "exponential", "rho": array(3, 4), "logit_q": array(3, 4), "beta": 8.0},
        "entropy": {"logit_q": array(3, 4)},
        "cross_entropy": {"rbm": rbm, **means},
        "cross_entropy_gradients": {"rbm": rbm, **means, "upstream": array(3)},
        "gibbs": {"rbm": rbm, "z1": z1, "n_sweeps": 2, "seed": 0, "step": 0},
        "tempering": {"rbm": rbm, "inv_temps": path, "n_chains": 3, "n_rounds": 2, "seed": 0},
        "ais": {"rbm": rbm, "base": base, "inv_temps": path, "n_chains": 3, "seed": 0},
        "reverse_ais": {"rbm": rbm, "base": base, "inv_temps": path, "z1": z1, "seed": 0},
        "importance_log_mean": {"log_weights": array(3, 4)},
    }


def test_the_calls_below_are_right_but_for_what_they_change(backend):
    assert set(calls(backend)) == OPERATIONS
    for operation in backend.operations():
        for dtype in DTYPES:
            getattr(backend, operation)(**calls(backend, dtype)[operation])


SEED = (DomainError, "seed must lie in")
STEP = (DomainError, "step must")
COUNT = (DomainError, "must be a whole number of at least 1")
PATH = (DomainError, "inv_temps must")
REFUSED = [
    ("inverse_cdf", {"kind": "exponentail"}, DomainError, "kind must be one of exponential"),
    ("inverse_cdf", {"extras": ("dzeta_dq",)}, DomainError, "extras must be of"),
    *(("inverse_cdf", {"beta": beta}, DomainError, "beta must be positive and finite") for beta in (0.0, -1.0, 1e60)),
    ("inverse_cdf", {"beta": float("nan")}, DomainError, "beta must be positive and finite"),
    ("inverse_cdf", {"beta": "8"}, TypeError, "beta must be one number; got str"),
    ("inverse_cdf", {"rho": (3, 5)}, ShapeError, r"rho and logit_q must have one shape; got \(3, 5\) and \(3, 4\)"),
    ("inverse_cdf", {"rho": "float64"}, TypeError, "arrays must be of one dtype; got rho float64, logit_q float32"),
    ("inverse_cdf", {"rho": "int32"}, TypeError, "rho must be float32 or float64; got int32"),
    ("inverse_cdf", {"rho": [[0.5] * 4] * 3}, TypeError, "rho must be an array; got list"),
    ("entropy", {"logit_q": (4,)}, ShapeError, r"logit_q must be \(B, N\)"),
    ("entropy", {"logit_q": "int64"}, TypeError, "logit_q must be float32 or float64; got int64"),
    ("cross_entropy", {"n_groups": 5}, DomainError, "n_groups must divide the number of units"),
    ("cross_entropy", {"mu": (3, 11)}, ShapeError, r"mu must be \(B, 12\)"),
    ("cross_entropy", {"nu": "float64"}, TypeError, "nu must be float32, the dtype of the machine; got float64"),
    ("cross_entropy", {"nu": (4, 12)}, ShapeError, "rows"),
    ("cross_entropy_gradients", {"upstream": (4,)}, ShapeError, "upstream"),
    ("cross_entropy_gradients", {"upstream": "float64"}, TypeError, "upstream.*float64"),
    ("cross_entropy_gradients", {"n_groups": 7}, DomainError, "n_groups must divide the number of units"),
    ("gibbs", {"z1": (3, 7)}, ShapeError, r"z1 must be \(B, 5\)"),
    ("gibbs", {"z1": "float64"}, TypeError, "z1 must be float32, the dtype of the machine; got float64"),
    ("gibbs", {"rbm": 1}, TypeError, "rbm must have a1, a2 and W; got int"),
    ("gibbs", {"n_sweeps": 0}, *COUNT),
    ("gibbs", {"n_sweeps": 1.5}, *COUNT),
    ("gibbs", {"seed": -1}, *SEED),
    ("gibbs", {"seed": 2**64}, *SEED),
    ("gibbs", {"seed": 0.5}, TypeError, "seed must be an integer"),
    ("gibbs", {"step": -1}, *STEP),
    ("gibbs", {"step": 2**56 - 1}, *STEP),
    ("gibbs", {"first_chain": 2**32 - 2}, DomainError, "first_chain"),
    ("gibbs", {"first_chain": -1}, DomainError, "first_chain"),
    ("tempering", {"inv_temps": [0.0, 0.5]}, *PATH),
    ("tempering", {"inv_temps": [0.5, 0.5, 1.0]}, *PATH),
    ("tempering", {"n_chains": 0}, *COUNT),
    ("tempering", {"n_rounds": 0}, *COUNT),
    ("tempering", {"sweeps_per_round": 0}, *COUNT),
    ("tempering", {"seed": -1}, *SEED),
    ("tempering", {"z1": (8, 5)}, ShapeError, "z1 must"),
    ("tempering", {"first_round": -1}, DomainError, "first_round must"),
    ("ais", {"inv_temps": [0.1, 1.0]}, DomainError, "inv_temps must start at 0"),
    ("ais", {"inv_temps": [0.0, 0.9]}, *PATH),
    ("ais", {"n_chains": 0}, *COUNT),
    ("ais", {"seed": 2**64}, *SEED),
    ("ais", {"first_chain": 2**32}, DomainError, "first_chain"),
    ("reverse_ais", {"z1": (3, 7)}, ShapeError, r"z1 must be \(B, 5\)"),
    ("reverse_ais", {"inv_temps": [1.0, 0.0]}, *PATH),
    ("importance_log_mean", {"log_weights": (4,)}, ShapeError, r"log_weights must be \(B, N\)"),
    ("importance_log_mean", {"log_weights": (3, 0)}, DomainError, "log_weights"),
    ("importance_log_mean", {"log_weights": "int32"}, TypeError, "log_weights must be float32 or float64; got int32"),
]


@pytest.mark.parametrize(("operation", "change", "error", "message"), REFUSED)
def test_bad_arguments_are_refused(backend, operation, change, error, message):
    needs(backend, operation)
    arguments = calls(backend)[operation]
    for name, value in change.items():
        if isinstance(value, tuple) and name != "extras":  # the shape of an array
            arguments[name] = backend.asarray(np.zeros(value, dtype=np.float32))
        elif value in ("float64", "int32", "int64"):  # the dtype of one
            arguments[name] = backend.asarray(backend.to_numpy(arguments[name]).astype(value))
        else:
            arguments[name] = value
    with pytest.raises(error, match=message):
        getattr(backend, operation)(**arguments)


@pytest.mark.parametrize("operation", ["gibbs", "cross_entropy", "cross_entropy_gradients", "tempering", "ais"])
def test_machines_that_do_not_fit_are_refused(backend, operation):
    needs(backend, operation)
    arguments = calls(backend)[operation]
    rbm = arguments.pop("rbm")
    transposed = rbm._replace(W=backend.asarray(np.zeros((7, 5), np.float32)))
    with pytest.raises(ShapeError, match=r"W must be \(N1, N2\) = \(5, 7\).*Transposed"):
        getattr(backend, operation)(rbm=transposed, **arguments)
    mixed = rbm._replace(a1=backend.asarray(np.zeros(5)))
    with pytest.raises(TypeError, match="arrays must be of one dtype; got a1 float64, a2 float32, W float32"):
        getattr(backend, operation)(rbm=mixed, **arguments)


def test_a_base_that_does_not_fit_is_refused(backend):
    needs(backend, "ais")
    arguments = calls(backend)["ais"]
    arguments["base"] = arguments["base"][::-1]
    with pytest.raises(ShapeError, match=r"base.a1 must be \(5,\)"):
        backend.ais(**arguments)
    arguments["base"] = tuple(backend.asarray(np.zeros(n)) for n in (5, 7))
    with pytest.raises(TypeError, match="base must be of the machine's dtype"):
        backend.ais(**arguments)


@pytest.mark.parametrize("wrong", [np.zeros((3, 7), np.float32), np.zeros((3, 5))], ids=["shape", "dtype"])
def test_an_out_that_does_not_fit_is_refused(backend, wrong):
    needs(backend, "gibbs")
    arguments = calls(backend)["gibbs"]
    with pytest.raises((ShapeError, TypeError, DomainError), match="out"):
        backend.gibbs(**arguments, out=(backend.asarray(wrong), backend.asarray(np.zeros((3, 7), np.float32))))


@pytest.mark.parametrize("operation", sorted(OPERATIONS - {"tempering", "ais"}))
def test_host_arrays_are_refused_by_a_device(backend, operation):
    needs(backend, operation)
    if backend.device == "cpu":
        pytest.skip(f"{backend.name} runs on the CPU")
    arguments = calls(backend)[operation]
    name = next(name for name in ("rho", "z1", "mu", "logit_q", "log_weights") if name in arguments)
    arguments[name] = backend.to_numpy(arguments[name])
    with pytest.raises(TypeError, match=rf"{name}.*asarray"):
        getattr(backend, operation)(**arguments)
