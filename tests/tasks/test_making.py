"""Split, standardisation and margin of a task of one's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nirvana.errors import Invalid
from nirvana.format.initial import epoch_order
from nirvana.tasks.examples import Examples
from nirvana.tasks.making import (
    SEALED,
    NewTask,
    Shares,
    check_parts,
    check_values,
    default_margin,
    fit,
    make_task,
    split,
)
from nirvana.tasks.task import Task

RNG = np.random.default_rng(0)


def table(n: int = 100, features: int = 3) -> Examples:
    labels = np.array(["no", "yes"])[np.arange(n) % 2]
    names = tuple(f"f{number}" for number in range(features))
    return Examples(RNG.normal(5, 2, (n, features)), labels, "class", columns=names)


def make(examples: Examples, margin: float | None = None) -> tuple[Task, dict[str, NDArray[np.generic]]]:
    lines: list[str] = []
    return make_task(examples, NewTask("own", "Test", "CC0-1.0", "here", margin), lines.append)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=200),
    st.floats(0.01, 0.5),
    st.floats(0.01, 0.45),
    st.integers(0, 2**64 - 1),
)
def test_each_class_gives_its_share_to_test_and_validation(
    labels: list[int], test: float, validation: float, seed: int
) -> None:
    y = np.array(labels)
    parts = split(y, Shares(test, validation, seed), None)
    for which in set(labels):
        counts = np.bincount(parts[y == which], minlength=3)
        n = labels.count(which)
        assert counts.sum() == n
        assert counts[2] == round(test * n)
        assert counts[1] == min(round(validation * n), n - counts[2])


def test_the_split_follows_from_the_seed_and_the_class_alone() -> None:
    y = np.arange(40) % 2
    parts = split(y, Shares(seed=7), None)
    first = np.flatnonzero(y == 1)[epoch_order(7, 1, 20)]
    assert set(first[:4]) == set(np.flatnonzero((parts == 2) & (y == 1)))
    assert set(first[4:8]) == set(np.flatnonzero((parts == 1) & (y == 1)))
    assert not np.array_equal(parts, split(y, Shares(seed=8), None))
    more = np.concatenate([y, np.full(10, 2)])
    assert np.array_equal(split(more, Shares(seed=7), None)[:40], parts)


def test_a_given_split_is_kept() -> None:
    given_parts = np.array([0, 1, 2] * 10, np.uint8)
    assert np.array_equal(split(np.arange(30) % 2, Shares(), given_parts), given_parts)


def test_validation_is_drawn_from_train_where_the_file_has_none() -> None:
    given_parts = np.array([0, 0, 0, 0, 0, 2] * 10, np.uint8)
    parts = split(np.zeros(60, np.int64), Shares(), given_parts)
    assert np.array_equal(parts == 2, given_parts == 2)
    assert (parts == 1).sum() == 10


@pytest.mark.parametrize(
    ("test", "validation", "complaint"),
    [
        (0.0, 0.2, "test share is 0.0, expected above 0, below 1"),
        (0.2, 1.0, "validation share is 1.0, expected above 0, below 1"),
        (0.5, 0.5, "test, validation and sealed shares add up to 1, expected below 1"),
        (float("nan"), 0.2, "test share is nan"),
    ],
)
def test_shares_that_leave_nothing_are_refused(test: float, validation: float, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        Shares(test, validation).check()


def test_tiny_sets_are_refused_with_their_numbers() -> None:
    y, parts = np.array([0] * 20 + [1] * 4), np.array([0] * 10 + [1] * 5 + [2] * 5 + [0, 0, 1, 2])
    with pytest.raises(Invalid, match=r"\(and 2 more\)") as refusal:
        check_parts(y, parts, ["many", "few"])
    assert [problem.detail for problem in refusal.value.errors] == [
        "validation has too few examples of a class: 'few' 1; expected at least 2 of each (of 24 examples)",
        "test has too few examples of a class: 'few' 1; expected at least 2 of each (of 24 examples)",
        "test has 6 of 24 examples, expected at least 10",
    ]


def test_missing_values_are_counted_by_column_with_their_first_row() -> None:
    examples = table()
    examples.x[[3, 9], 1] = np.nan
    examples.x[5, 2] = np.nan
    with pytest.raises(Invalid, match=r"column 'f1' lacks 2 of 100 values, first in data row 4") as refusal:
        check_values(examples)
    assert [problem.pointer for problem in refusal.value.errors] == ["/columns/f1", "/columns/f2"]


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39])
def test_values_that_float32_cannot_hold_are_refused(value: float) -> None:
    examples = table()
    examples.x[7, 0] = value
    with pytest.raises(Invalid, match=r"column 'f0' has 1 of 100 values infinite or above 3e38, .* row 8"):
        check_values(examples)


def test_missing_pixels_are_counted_over_the_whole_array() -> None:
    images = np.zeros((30, 1, 4, 4), np.float32)
    images[2, 0, 1, :3] = np.nan
    with pytest.raises(Invalid, match="the array of examples lacks 3 of 480 values, first in data row 3"):
        check_values(Examples(images, np.arange(30) % 2, "y"))


def test_an_outlier_beyond_float32_once_standardised_is_refused() -> None:
    examples = table()
    examples.x[:, 0] = 1e-3 * (np.arange(100) % 2)
    _, arrays = make(examples)
    examples.x[np.flatnonzero(arrays["part"] == 2)[0], 0] = 2e38
    with pytest.raises(Invalid, match=r"column 'f0' has in data row .* cannot hold once standardised"):
        make(examples)


def test_standardisation_is_fitted_on_the_training_part_alone() -> None:
    examples = table()
    task, arrays = make(examples)
    train = examples.x[arrays["part"] == 0]
    assert task.normalisation[0] == pytest.approx(train.mean(axis=0), rel=1e-9)
    assert task.normalisation[1] == pytest.approx(train.std(axis=0), rel=1e-9)
    changed = examples.x.copy()
    changed[arrays["part"] != 0] += 1000
    again, _ = make(dataclasses.replace(examples, x=changed))
    assert again.normalisation == task.normalisation


def test_images_are_standardised_by_channel_over_all_pixels() -> None:
    x = RNG.integers(0, 255, (5_000, 3, 2, 2)).astype(np.uint8)
    (mean, sd), constant = fit(x)
    assert mean == pytest.approx(x.mean(axis=(0, 2, 3)), rel=1e-9)
    assert sd == pytest.approx(x.std(axis=(0, 2, 3)), rel=1e-9)
    assert len(constant) == 0


def test_one_channel_has_one_mean_and_one_sd() -> None:
    x = RNG.normal(3, 2, (50, 1, 4, 4))
    (mean, sd), _ = fit(x)
    assert mean == pytest.approx(x.mean())
    assert sd == pytest.approx(x.std())


def test_a_constant_feature_keeps_an_sd_of_1_and_is_named() -> None:
    examples = table()
    examples.x[:, 1] = 0.1
    lines: list[str] = []
    task, _ = make_task(examples, NewTask("own", "Test", "CC0-1.0", "here"), lines.append)
    assert isinstance(task.normalisation[1], tuple)
    assert task.normalisation[1][1] == 1
    assert lines == ["constant in the training part, left at a standard deviation of 1: features f1"]
    assert lines[0][1:] in task.description
    assert not task.normalise(examples.x)[:, 1].any()


@pytest.mark.parametrize(
    ("tests", "margin"), [(10, 0.095), (100, 0.03), (113, 0.029), (900, 0.01), (10_000, 0.01)]
)
def test_the_margin_is_one_standard_error_and_at_least_1_pp(tests: int, margin: float) -> None:
    found, reason = default_margin(tests)
    assert found == margin
    assert f"{tests:,} examples to test on" in reason


def test_a_chosen_margin_is_kept_and_said_to_be_chosen() -> None:
    task, _ = make(table(), margin=0.05)
    assert (task.margin, task.margin_reason) == (0.05, "chosen by who added the task")


@pytest.mark.parametrize("margin", [0.0, -0.1, 0.6, float("nan")])
def test_an_impossible_margin_is_refused(margin: float) -> None:
    with pytest.raises(Invalid, match=r"margin is .*, expected a fraction above 0 and up to 0.5"):
        make(table(), margin=margin)


def test_sealed_rows_are_drawn_within_each_class_and_the_others_stay() -> None:
    y = np.arange(100) % 2
    parts = split(y, Shares(sealed=0.2), None)
    assert [np.bincount(parts[y == which]).tolist() for which in (0, 1)] == [[20, 10, 10, 10]] * 2
    open_parts = split(y, Shares(), None)
    assert np.array_equal(parts == 2, open_parts == 2)
    assert np.array_equal(parts == 1, open_parts == 1)


def test_sealed_rows_of_a_given_split_are_of_its_test_part_and_at_most_half_of_it() -> None:
    given_parts = np.array([0, 0, 0, 1, 2] * 20, np.uint8)
    parts = split(np.zeros(100, np.int64), Shares(sealed=0.05), given_parts)
    assert (parts == SEALED).sum() == 5
    assert set(given_parts[parts == SEALED]) == {2}
    assert (split(np.zeros(100, np.int64), Shares(sealed=0.2), given_parts) == SEALED).sum() == 10
    already = np.array([0, 1, 2, 3] * 10, np.uint8)
    assert np.array_equal(split(np.zeros(40, np.int64), Shares(sealed=0.2), already), already)


@pytest.mark.parametrize("sealed", [-0.1, 1.0, float("nan"), 0.7])
def test_a_sealed_share_that_leaves_nothing_is_refused(sealed: float) -> None:
    with pytest.raises(Invalid, match="sealed share"):
        Shares(sealed=sealed).check()
