"""The machines and the checks: what is accepted, and that a refusal quotes the argument, the rule and the offender."""

import dataclasses
import itertools

import numpy as np
import pytest

from reference import vocabulary
from reference.vocabulary import RBM, BoltzmannMachine, DomainError, ShapeError


def test_an_rbm_is_checked_and_copied():
    a1, a2, W = np.zeros(3), np.zeros(2, np.float32), np.zeros((3, 2), int)
    rbm = RBM(a1, a2, W)
    assert {rbm.a1.dtype, rbm.a2.dtype, rbm.W.dtype} == {np.dtype(np.float64)}
    assert (rbm.n1, rbm.n2) == (3, 2)
    a1[0] = np.nan
    assert rbm.a1[0] == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        rbm.a1 = np.ones(3)
    with pytest.raises(ShapeError, match=r"^W must be \(N1, N2\) = \(3, 2\) to match .*; got \(2, 3\)\. Transposed\?$"):
        RBM(np.zeros(3), a2, W.T)
    with pytest.raises(ShapeError, match=r"got \(3, 3\)\.$"):
        RBM(np.zeros(3), a2, np.zeros((3, 3)))
    with pytest.raises(ShapeError, match=r"a2 must be a vector with at least one unit; got \(0,\)"):
        RBM(np.zeros(3), [], np.zeros((3, 0)))
    with pytest.raises(ShapeError, match=r"a1 must be a vector with at least one unit; got \(\)"):
        RBM(0.0, [0.0], [[0.0]])
    with pytest.raises(DomainError, match=r"W must be finite; entry \(1, 0\) is nan"):
        RBM(np.zeros(2), np.zeros(1), [[0.0], [np.nan]])
    with pytest.raises(DomainError, match="a1 must be finite; entry 1 is inf"):
        RBM([0.0, np.inf], np.zeros(1), np.zeros((2, 1)))
    with pytest.raises(TypeError, match="a1 must be float32 or float64"):
        RBM(["x"], np.zeros(1), np.zeros((1, 1)))


def test_a_general_machine_is_checked_and_copied():
    a, J = np.zeros(3, np.float32), np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]])
    machine = BoltzmannMachine(a, J)
    assert {machine.a.dtype, machine.J.dtype} == {np.dtype(np.float64)}
    assert machine.n == 3
    J[0, 1] = 7
    assert machine.J[0, 1] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        machine.J = J
    with pytest.raises(ShapeError, match=r"^J must be \(N, N\) = \(3, 3\) to match a; got \(2, 3\)$"):
        BoltzmannMachine(a, J[:2])
    with pytest.raises(ShapeError, match=r"^a must be a vector with at least one unit; got \(0,\)"):
        BoltzmannMachine([], np.zeros((0, 0)))
    with pytest.raises(ShapeError, match=r"^a must be a vector with at least one unit; got \(1, 3\)"):
        BoltzmannMachine(a[None], J)
    with pytest.raises(DomainError, match=r"^a must be finite; entry 2 is -inf"):
        BoltzmannMachine([0, 0, -np.inf], np.zeros((3, 3)))
    with pytest.raises(DomainError, match=r"^J must be finite; entry \(0, 1\) is nan"):
        BoltzmannMachine(np.zeros(2), [[0, np.nan], [np.nan, 0]])
    with pytest.raises(DomainError, match=r"^J must be 0 on its diagonal; put it into a; entry \(1, 1\) is 0\.5"):
        BoltzmannMachine(np.zeros(2), np.diag([0.0, 0.5]))
    with pytest.raises(DomainError, match=r"^J must be symmetric; for .* pass J \+ J\.T; entry \(0, 1\) is 2\.0"):
        BoltzmannMachine(np.zeros(2), [[0.0, 2.0], [0.0, 0.0]])
    with pytest.raises(TypeError, match=r"^J must be float32 or float64"):
        BoltzmannMachine(np.zeros(2), np.zeros((2, 2), complex))


def test_an_rbm_seen_as_a_general_machine_has_the_same_energies():
    rng = np.random.default_rng(0)
    rbm = RBM(rng.normal(size=3), rng.normal(size=2), rng.normal(size=(3, 2)))
    machine = rbm.general()
    for z in itertools.product([0, 1], repeat=5):
        one_by_one = sum(rbm.a1[i] for i in range(3) if z[i]) + sum(rbm.a2[j] for j in range(2) if z[3 + j])
        one_by_one += sum(rbm.W[i, j] for i in range(3) for j in range(2) if z[i] and z[3 + j])
        assert machine.a @ z + z @ machine.J @ z / 2 == pytest.approx(one_by_one, abs=1e-13)


def test_numbers_become_floats_and_floats_stay():
    for dtype in (np.float32, np.float64):
        assert vocabulary.as_float("x", np.zeros(2, dtype)).dtype == dtype
    for value in (True, 3, [1, 2], np.zeros(2, np.uint8)):
        assert vocabulary.as_float("x", value).dtype == np.float64
    for value in (np.zeros(1, np.float16), np.zeros(1, complex), ["a"], None, np.zeros(1, np.longdouble)):
        with pytest.raises(TypeError, match=r"^x must be float32 or float64 numbers; got dtype"):
            vocabulary.as_float("x", value)


@pytest.mark.parametrize(
    ("function", "good", "bad", "rule"),
    [
        (
            vocabulary.check_unit_interval,
            [0.0, 0.5, 1.0],
            [-1e-300, 1.0000000000000002, np.nan, np.inf],
            "lie in [0, 1]",
        ),
        (vocabulary.check_positive, [5e-324, 1e308], [0.0, -1.0, np.inf, np.nan], "be positive and finite"),
        (vocabulary.check_finite, [-1e308, 0.0, 1e308], [np.inf, -np.inf, np.nan], "be finite"),
        (vocabulary.check_not_nan, [-np.inf, 0.0, np.inf], [np.nan], "not be NaN"),
        (vocabulary.check_binary, [0.0, -0.0, 1.0], [0.5, 2.0, -1.0, np.nan], "be 0 or 1"),
    ],
)
def test_domains(function, good, bad, rule):
    function("x", np.array(good))
    function("x", np.zeros((0, 3)))  # nothing breaks no rule
    function("x", np.array(good[1]))
    for offender in bad:
        matrix = np.array([good[:2], [offender, offender]])
        with pytest.raises(DomainError) as error:
            function("x", matrix)
        assert str(error.value) == f"x must {rule}; entry (1, 0) is {matrix[1, 0]}"
        with pytest.raises(DomainError) as error:
            function("x", np.array([good[0], offender]))
        assert str(error.value) == f"x must {rule}; entry 1 is {np.float64(offender)}"
        with pytest.raises(DomainError) as error:
            function("x", np.array(offender))
        assert str(error.value) == f"x must {rule}; it is {np.float64(offender)}"


def test_counts():
    assert vocabulary.check_count("n", 3.0) == 3
    assert type(vocabulary.check_count("n", np.int32(7))) is int
    assert vocabulary.check_count("n", 0, least=0) == 0
    for value in (0, -1, 1.5, np.nan, np.inf, True):
        with pytest.raises(DomainError) as error:
            vocabulary.check_count("n", value)
        assert str(error.value) == f"n must be a whole number of at least 1; got {value}"
    with pytest.raises(DomainError, match="at least 2; got 1"):
        vocabulary.check_count("n", 1, least=2)


def test_shapes_that_go_together():
    assert vocabulary.check_broadcast(x=np.zeros((3, 1)), y=np.zeros(2)) == (3, 2)
    with pytest.raises(ShapeError, match=r"^shapes must broadcast together; got x \(3,\), y \(2,\)$"):
        vocabulary.check_broadcast(x=np.zeros(3), y=np.zeros(2))
    assert vocabulary.check_same_rows(x=np.zeros((3, 1)), y=np.zeros((3, 4))) == 3
    with pytest.raises(ShapeError, match=r"^matrices must have the same number of rows; got x \(3, 1\), y \(2, 1\)$"):
        vocabulary.check_same_rows(x=np.zeros((3, 1)), y=np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("function", "value", "offender"),
    [
        (vocabulary.as_rows, [[0.0, -7.0]], None),
        (vocabulary.as_states, [[0, 1]], 0.5),
        (vocabulary.as_relaxed, [[0.25, 1]], 1.5),
    ],
)
def test_rows(function, value, offender):
    for dtype in (np.float32, np.float64):
        rows = function("x", np.array(value, dtype), 2)
        assert rows.dtype == np.float64
        np.testing.assert_array_equal(rows, value)
    assert function("x", np.zeros((0, 2)), 2).shape == (0, 2)
    for wrong in (np.zeros((2, 3)), np.zeros(2), np.zeros((1, 1, 2)), 0.0):
        with pytest.raises(ShapeError) as error:
            function("x", wrong, 2)
        assert str(error.value) == f"x must be (B, 2), one row per sample; got {np.shape(wrong)}"
    with pytest.raises(TypeError, match=r"^x must be float32 or float64 numbers; got dtype complex128"):
        function("x", np.zeros((1, 2), complex), 2)
    if offender is not None:
        for entry in (offender, np.nan):
            with pytest.raises(DomainError, match=rf"^x must .*; entry \(0, 1\) is {entry}$"):
                function("x", [[0.0, entry]], 2)


def test_scalars():
    for value in (2, np.float32(2), np.array(2.0)):
        number = vocabulary.as_scalar("x", value)
        assert (number.shape, number.dtype, float(number)) == ((), np.float64, 2.0)
    with pytest.raises(ShapeError, match=r"^x must be one number; got \(1,\)$"):
        vocabulary.as_scalar("x", [2.0])
    with pytest.raises(ShapeError, match=r"^x must be one number for all rows; got \(0,\)$"):
        vocabulary.as_scalar("x", [], "one number for all rows")
    with pytest.raises(TypeError, match=r"^x must be float32 or float64 numbers; got dtype <U1"):
        vocabulary.as_scalar("x", "2")


def test_matrices():
    for shape in ((2, 3), (0, 3), (2, 0)):
        matrix = vocabulary.as_matrix("x", np.ones(shape, np.float32))
        assert (matrix.shape, matrix.dtype) == (shape, np.float64)
    with pytest.raises(ShapeError, match=r"^x must be \(B, N\), one row per sample; got \(2,\)$"):
        vocabulary.as_matrix("x", [0, 1])
    with pytest.raises(ShapeError, match=r"^x must be \(B, N\), one row per chain; got \(1, 1, 1\)$"):
        vocabulary.as_matrix("x", [[[0]]], row="chain")
    with pytest.raises(TypeError, match=r"^x must be float32 or float64 numbers; got dtype complex128"):
        vocabulary.as_matrix("x", np.zeros((1, 2), complex))


def test_ladders():
    np.testing.assert_array_equal(vocabulary.as_ladder("x", [0, 0.5, 1]), [0, 0.5, 1])
    assert vocabulary.as_ladder("x", np.ones(1, np.float32)).dtype == np.float64
    with pytest.raises(ShapeError, match=r"^x must be a vector of at least one inverse temperature; got \(0,\)"):
        vocabulary.as_ladder("x", [])
    with pytest.raises(ShapeError, match=r"got \(\)"):
        vocabulary.as_ladder("x", 1.0)
    with pytest.raises(DomainError, match=r"^x must lie in \[0, 1\]; entry 1 is 1\.5"):
        vocabulary.as_ladder("x", [0, 1.5])
    with pytest.raises(DomainError, match=r"^x must rise strictly; entry 2 is 0\.5"):
        vocabulary.as_ladder("x", [0, 0.5, 0.5, 1])
    with pytest.raises(DomainError, match=r"^x must end at 1, the machine itself; the last entry is 0\.5"):
        vocabulary.as_ladder("x", [0, 0.5])
    with pytest.raises(TypeError, match=r"^x must be float32 or float64"):
        vocabulary.as_ladder("x", ["0", "1"])
