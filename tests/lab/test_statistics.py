"""Our intervals and tests agree with scipy.stats, and identical replicates are no accident."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nirvana.verification.statistics import holm, paired_difference, welch_difference

nearly_identical = pytest.mark.filterwarnings("ignore:Precision loss occurred:RuntimeWarning")  # scipy's
accuracies = st.integers(0, 500).map(lambda right: right / 500)
several = st.lists(accuracies, min_size=2, max_size=12)
pairs = st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=12)


@nearly_identical
@given(pairs)
def test_the_paired_test_and_interval_are_scipys(pairs: list[tuple[float, float]]) -> None:
    x, y = zip(*pairs, strict=True)
    found = paired_difference(x, y)
    if np.std(np.subtract(x, y)) < 1e-9:
        assert found.lower == found.mean == found.upper
        return
    greater = stats.ttest_rel(x, y, alternative="greater")
    assert found.p_greater == pytest.approx(float(greater.pvalue), rel=1e-6, abs=1e-12)
    assert found.lower == pytest.approx(float(greater.confidence_interval(0.95).low), rel=1e-9, abs=1e-12)
    less = stats.ttest_rel(x, y, alternative="less")
    assert found.p_less == pytest.approx(float(less.pvalue), rel=1e-6, abs=1e-12)
    assert found.upper == pytest.approx(float(less.confidence_interval(0.95).high), rel=1e-9, abs=1e-12)


@nearly_identical
@given(several, several)
def test_welchs_test_and_interval_are_scipys(x: list[float], y: list[float]) -> None:
    found = welch_difference(x, y)
    if max(np.std(x), np.std(y)) < 1e-9:
        assert found.lower == found.mean == found.upper
        return
    greater = stats.ttest_ind(x, y, equal_var=False, alternative="greater")
    assert found.p_greater == pytest.approx(float(greater.pvalue), rel=1e-6, abs=1e-12)
    assert found.lower == pytest.approx(float(greater.confidence_interval(0.95).low), rel=1e-9, abs=1e-12)
    assert found.degrees == pytest.approx(float(greater.df))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    named = {str(i): p for i, p in enumerate(p_values)}
    adjusted = holm(named)
    rejecting = True
    for rank, name in enumerate(sorted(named, key=lambda key: named[key])):
        exact = named[name] * (len(named) - rank)
        rejecting = rejecting and exact < 0.05
        assert (adjusted[name] < 0.05) == rejecting
        assert adjusted[name] >= named[name]


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


@pytest.mark.parametrize(
    ("x", "y", "greater", "less"),
    [([0.9, 0.9], [0.9, 0.9], 1, 1), ([0.9, 0.9], [0.8, 0.8], 0, 1), ([0.8, 0.8], [0.9, 0.9], 1, 0)],
)
def test_without_variance_the_test_is_certain_and_nothing_is_nan(
    x: list[float], y: list[float], greater: float, less: float
) -> None:
    for found in (paired_difference(x, y), welch_difference(x, y)):
        assert (found.p_greater, found.p_less) == (greater, less)
        assert found.lower == found.upper == found.mean == pytest.approx(x[0] - y[0])
        assert not any(math.isnan(v) for v in vars(found).values() if isinstance(v, float))
        assert None in found.to_dict().values(), "infinite degrees of freedom are null in JSON"


def test_the_order_of_replicates_does_not_change_a_bit() -> None:
    x, y = [0.91, 0.87, 0.88, 0.93], [0.9, 0.9, 0.84, 0.91]
    expected = paired_difference(x, y)
    for order in itertools.permutations(range(4)):
        assert paired_difference([x[i] for i in order], [y[i] for i in order]) == expected
        assert welch_difference([x[i] for i in order], y) == welch_difference(x, y)
