"""Wilson's interval, the bootstrap of a ratio, and how alpha is spent over the looks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nirvana.errors import Invalid
from nirvana.verification.protocol import Look, alpha_of, plan_looks
from nirvana.verification.statistics import ratio_interval, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(4, 5, 0.3755, 0.9638), (10, 10, 0.7225, 1.0), (1, 5, 0.0362, 0.6245)],
)
def test_wilsons_interval_has_the_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_scipys(case: tuple[int, int]) -> None:
    successes, n = case
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((float(expected.low), float(expected.high)), abs=1e-9)


def test_the_bootstrap_of_a_ratio_is_the_same_every_time_and_takes_sides_of_two_lengths() -> None:
    dense = [200.0, 240.0, 280.0, 220.0, 260.0]
    assert ratio_interval([200.0] * 4, [100.0] * 5) == (2.0, 2.0, 2.0)
    mixed = [130.0, 100.0, 140.0, 110.0, 120.0, 120.0]
    ratio, low, high = ratio_interval(dense, mixed)
    assert ratio == 2.0
    assert low < 2.0 < high
    assert ratio_interval(dense, mixed) == (ratio, low, high)


def test_the_bootstrap_interval_is_near_scipys() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(300, 40, 20), generator.normal(200, 30, 20)
    expected = stats.bootstrap(
        (x, y),
        lambda a, b, axis: a.mean(axis) / b.mean(axis),
        paired=False,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    _, low, high = ratio_interval(list(x), list(y))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_a_ticket_that_stops_at_once_divides_by_one_step_and_not_by_zero() -> None:
    assert ratio_interval([100.0, 100.0], [0.0, 0.0]) == (100.0, 100.0, 100.0)


@pytest.mark.parametrize(
    ("replicates", "cap", "sizes"),
    [
        (5, None, [5]),
        (5, 5, [5]),
        (5, 7, [5, 7]),
        (5, 10, [5, 10]),
        (5, 12, [5, 10, 12]),
        (5, 20, [5, 10, 20]),
        (1, 3, [1, 2, 3]),
    ],
)
def test_looks_double_up_to_the_cap_and_end_there(replicates: int, cap: int | None, sizes: list[int]) -> None:
    assert [look.n for look in plan_looks(replicates, cap)] == sizes


CASE = st.integers(1, 50).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, 4 * n)))


@given(st.lists(CASE, min_size=1, max_size=30))
def test_no_number_of_verifications_of_an_exam_spends_more_than_alpha(cases: list[tuple[int, int]]) -> None:
    looks: tuple[Look, ...] = ()
    for case in cases:
        planned = plan_looks(*case, looks)
        assert (planned[0].first, planned[-1].n) == (looks[-1].n if looks else 0, planned[0].first + case[1])
        looks = (*looks, *planned)
    assert sum(look.alpha for look in looks) < 0.05
    assert all(one.n == two.first < two.n for one, two in itertools.pairwise(looks))
    assert all(one.alpha > two.alpha for one, two in itertools.pairwise(looks))


def test_the_levels_of_all_looks_sum_to_alpha() -> None:
    assert sum(alpha_of(look) for look in range(10_000)) == pytest.approx(0.05, abs=2e-6)


@pytest.mark.parametrize(("replicates", "cap"), [(0, None), (5, 4), (5, 21), (-1, 3)])
def test_impossible_plans_are_refused(replicates: int, cap: int | None) -> None:
    with pytest.raises(Invalid, match="replicates is"):
        plan_looks(replicates, cap)


def test_looking_again_does_not_make_false_statements_more_frequent_than_alpha() -> None:
    """A difference of exactly -margin: 'not inferior' is said at some look in at most 5 % of cases."""
    generator, trials = np.random.default_rng(0), 4000
    noise = generator.normal(0, 1, (trials, 20))
    said = np.zeros(trials, bool)
    for look in plan_looks(5, 20):
        seen = noise[:, : look.n]
        error = seen.std(1, ddof=1) / np.sqrt(look.n)
        said |= seen.mean(1) - stats.t.ppf(1 - look.alpha, look.n - 1) * error > 0
    assert said.mean() < 0.05
    assert said.mean() > 0.03, "and little of it is wasted"
