"""The search finds what lies in narrow places, and what edges and as many random cases miss."""

import numpy as np
import pytest

from reference.smoothing import OverlappingExponential
from validation.accuracy import EXPONENTIAL, Question, reference_inverse_cdf, worst_found
from validation.cases import BETA_RANGE, Cases, edge_cases, random_cases
from validation.search import Effort, climb, worst_apart
from validation.tolerances import TRANSFORM_MIXED_ERROR

ROUGH = 2.0**-40  # thousands of roundings of float64


def right(rho, logit_q, beta):
    return {"zeta": OverlappingExponential(beta).inverse_cdf(rho, logit_q)}


def window_beside_a_balance(rho, logit_q, beta):
    """|l| within 1e-4 of beta, and not beta itself: where a formula for both sides might divide by the difference."""
    distance = np.abs(np.abs(logit_q) / beta - 1)
    return np.where((distance < 1e-4) & (distance > 1e-9), ROUGH, 0.0)


def switch_too_late(rho, logit_q, beta):
    """A series that is good below beta = 3, and is used to 3.001."""
    return np.where((beta > 3) & (beta < 3.001), ROUGH, 0.0)


def cancellation(rho, logit_q, beta):
    """Digits lost about l = 2.37 - beta, in inverse proportion to the distance."""
    distance = np.abs(logit_q + beta - 2.37) / beta
    return np.where(rho > 0.5, 2.0**-53 * 1e-4 / np.maximum(distance, 1e-9), 0.0)


@pytest.mark.parametrize("defect", [window_beside_a_balance, switch_too_late, cancellation])
def test_a_narrow_defect_is_found_and_without_the_search_it_is_not(defect):
    def broken(rho, logit_q, beta):
        return {"zeta": right(rho, logit_q, beta)["zeta"] * (1 - defect(rho, logit_q, beta))}

    question = Question(EXPONENTIAL, "rho", ("zeta",), broken, reference_inverse_cdf)
    judge = worst_found(question, np.float64, seed=0, quick=False)
    (finding,) = judge.findings()
    assert finding.error > 10 * TRANSFORM_MIXED_ERROR
    assert "by search" in finding.where
    # All edges, and more random cases than were judged: not one of them meets it.
    cases = edge_cases(np.float64) + random_cases(judge.n_cases, np.float64, seed=0)
    assert defect(cases.rho, cases.logit_q, cases.beta).max() <= 2.0**-52


def test_the_search_climbs_to_a_peak_far_from_any_edge():
    def peak(cases):
        distance = (
            np.abs(np.log(np.maximum(cases.rho, 1e-300) / 0.0321))
            + np.abs(np.log(cases.beta / 12.34))
            + np.abs(cases.logit_q - 0.777)
        )
        return {"height": 1 / (1e-9 + distance)}

    start = random_cases(300, np.float64, seed=1)
    before = peak(start)
    cases, after = climb(peak, start, before, Effort(4, 20, 30), np.random.default_rng(0))
    assert len(cases) <= len(start) + 4 * 20 * 30
    assert after["height"].max() > 100 * before["height"].max()


def test_proposals_stay_in_the_domain_and_keep_the_dtype():
    everywhere = lambda cases: {"one": np.ones(len(cases))}  # noqa: E731
    for dtype in (np.float32, np.float64):
        start = edge_cases(dtype)[::97]
        cases, _ = climb(everywhere, start, everywhere(start), Effort(8, 200, 2), np.random.default_rng(0))
        for values in (cases.rho, cases.logit_q, cases.beta):
            assert values.dtype == dtype
            assert not np.isnan(values).any()
        assert cases.rho.min() >= 0
        assert cases.rho.max() <= 1
        assert cases.beta.min() >= dtype(BETA_RANGE[0])
        assert cases.beta.max() <= dtype(BETA_RANGE[1])
        # A backend takes one sharpness a call.
        assert len(np.unique(cases.beta)) < len(cases) / 10


def test_a_zeta_on_the_real_line_may_leave_the_interval():
    def outside(cases):
        return {"one": np.abs(cases.rho)}

    start = Cases(*(np.array([x]) for x in (1.0, 0.5, 2.0)))
    cases, _ = climb(outside, start, outside(start), Effort(1, 50, 2), np.random.default_rng(0), unit_interval=False)
    assert cases.rho.max() > 1


def test_the_worst_are_not_neighbours_and_what_is_right_is_left_alone():
    cases = Cases(np.array([0.5, 0.5000001, 0.1, 0.9]), np.full(4, 2.0), np.full(4, 3.0))
    assert worst_apart(cases, np.array([1.0, 3.0, 2.0, 0.0]), 3) == [1, 2]
    assert worst_apart(cases, np.array([1.0, np.inf, 2.0, 0.0]), 1) == [1]
    assert worst_apart(cases, np.zeros(4), 3) == []


def test_nothing_is_looked_at_where_nothing_is_wrong():
    start = random_cases(5, np.float64, seed=0)
    cases, errors = climb(
        lambda _: pytest.fail("there was nothing to climb from"),
        start,
        {"zeta": np.zeros(5)},
        Effort(2, 5, 3),
        np.random.default_rng(0),
    )
    assert len(cases) == len(errors["zeta"]) == 5
