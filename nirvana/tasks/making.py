"""A task from examples: classes, split, standardisation, margin.

Where the file does not say, the split is drawn within each class, from (seed, class) alone. Standardisation
is fitted on the training part: for each feature of a table, for each channel of signals and images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, Problem, raise_problems
from nirvana.initial import epoch_order
from nirvana.tasks.examples import PARTS, Examples, find_classes, listed, refuse
from nirvana.tasks.task import Normalisation, Task

LEAST_OF_A_CLASS = 2
LEAST_TEST = 10
LARGEST = 3e38  # float32's largest is 3.4e38

_CHUNK = 4096
_DIGITS = 10  # of a mean or standard deviation that are kept

Say = Callable[[str], None]


@dataclass(frozen=True)
class Shares:
    """Shares of all examples that become test and validation, and the seed of the draw."""

    test: float = 0.2
    validation: float = 0.2
    seed: int = 0

    def check(self) -> None:
        """Raises: Invalid: a share outside (0, 1), or nothing left to train on."""
        for name, share in (("test", self.test), ("validation", self.validation)):
            if not 0 < share < 1:
                raise refuse(f"/{name}_share", "range", f"{name} share is {share}, expected above 0, below 1")
        if self.test + self.validation >= 1:
            detail = f"test and validation shares add up to {self.test + self.validation:g}, expected below 1"
            raise refuse("/test_share", "range", detail)


def split(y: NDArray[np.int64], shares: Shares, given: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """0 train, 1 validation or 2 test for each example.

    Each class gives its share of both, rounded half to even. A given split is kept; where it has no
    validation, that is drawn from its training part.
    """
    if given is not None and (given == 1).any():
        return given
    parts = np.zeros(len(y), np.uint8) if given is None else given.copy()
    for which in np.unique(y):
        members = np.flatnonzero((y == which) & (parts == 0))
        drawn = members[epoch_order(shares.seed, int(which), len(members))]
        tests = 0 if given is not None else round(shares.test * len(members))
        parts[drawn[:tests]] = 2
        parts[drawn[tests : tests + round(shares.validation * len(members))]] = 1
    return parts


def check_parts(y: NDArray[np.int64], parts: NDArray[np.uint8], names: Sequence[str]) -> None:
    """Refuse parts that are too small to learn from or to measure with.

    Raises:
        Invalid: fewer than 2 examples of a class in a part, or fewer than 10 to test on; with the numbers.
    """
    problems = []
    for part, part_name in enumerate(PARTS):
        counts = np.bincount(y[parts == part], minlength=len(names))
        few = [
            f"{name!r} {count}" for name, count in zip(names, counts, strict=True) if count < LEAST_OF_A_CLASS
        ]
        if few:
            detail = (
                f"{part_name} has too few examples of a class: {listed(few)}; expected at least 2 of each"
            )
            problems.append(Problem(f"/{part_name}", "tiny", f"{detail} (of {len(y)} examples)"))
    tests = int((parts == 2).sum())
    if tests < LEAST_TEST:
        detail = f"test has {tests} of {len(y)} examples, expected at least {LEAST_TEST}"
        problems.append(Problem("/test", "tiny", detail))
    raise_problems(Invalid, "split", problems)


def check_values(examples: Examples) -> None:
    """Refuse values that are missing, infinite or beyond float32.

    Raises:
        Invalid: says which columns, how many and the first row.
    """
    x = examples.x
    if x.dtype == np.uint8:
        return
    problems = []
    rows = x.reshape(len(x), -1) if examples.columns else x.reshape(len(x), 1, -1)
    names = examples.columns or ("",)
    for place, name in enumerate(names):
        values = rows[:, place].reshape(len(x), -1)
        found = {
            "missing-values": (
                np.isnan(values),
                "lacks {} of {} values",
                "; fill them in or leave the rows out",
            ),
            "infinite-values": (np.abs(values) > LARGEST, "has {} of {} values infinite or above 3e38", ""),
        }
        for code, (wrong, said, advice) in found.items():
            if wrong.any():
                first = int(wrong.any(axis=1).argmax()) + 1
                what = f"column {name!r}" if examples.columns else "the array of examples"
                detail = f"{what} {said.format(wrong.sum(), values.size)}, first in data row {first}{advice}"
                problems.append(Problem(f"/columns/{name}" if examples.columns else "", code, detail))
    raise_problems(Invalid, "examples", problems)


def fit(x: NDArray[Any]) -> tuple[Normalisation, NDArray[np.int64]]:
    """Mean and standard deviation along the first axis of an example, and which entries are constant.

    Args:
        x: training examples, (n, entries, ...).

    Returns:
        two numbers where there is one entry, else two tuples; a constant entry has sd 1.
    """
    entries = x.shape[1]
    chunks = [x[start : start + _CHUNK] for start in range(0, len(x), _CHUNK)]
    other = (0, *range(2, x.ndim))
    values = x.size // entries
    column = (-1, *[1] * (x.ndim - 2))
    mean = np.sum([c.sum(axis=other, dtype=np.float64) for c in chunks], axis=0) / values
    squares = [((c - mean.reshape(column)) ** 2).sum(axis=other) for c in chunks]
    is_constant = x.max(axis=other) == x.min(axis=other)
    sd = np.where(is_constant, 1.0, np.sqrt(np.sum(squares, axis=0) / values))
    means, sds = ([float(f"{number:.{_DIGITS}g}") for number in part] for part in (mean, sd))
    pair: Normalisation = (means[0], sds[0]) if entries == 1 else (tuple(means), tuple(sds))
    return pair, np.flatnonzero(is_constant)


def default_margin(tests: int) -> tuple[float, str]:
    """The margin that a test set of this size can tell, and why.

    One binomial standard error at an accuracy of 90 %, rounded up to 0.1 pp, and at least 1.0 pp.
    """
    error = math.sqrt(0.9 * 0.1 / tests)
    margin = max(0.01, math.ceil(round(1000 * error, 6)) / 1000)
    reason = (
        f"{100 * margin:.1f} pp by rule, before anything was measured: the larger of 1.0 pp and one binomial "
        f"standard error at 90 % on {tests:,} test examples ({100 * error:.2f} pp, rounded up)"
    )
    return margin, reason


def make_task(
    examples: Examples, name: str, shares: Shares, margin: float | None, said: Mapping[str, Any], say: Say
) -> tuple[Task, dict[str, NDArray[Any]]]:
    """The task, its digest still to come, and its arrays: x, y and part.

    Args:
        said: title, license and source.
        say: called with a line for each thing that is odd and no error.

    Raises:
        Invalid: the examples cannot be a task; says why.
    """
    if margin is not None and not 0 < margin <= 0.5:
        raise refuse("/margin", "range", f"margin is {margin}, expected a fraction above 0 and up to 0.5")
    shares.check()
    check_values(examples)
    class_names, y = find_classes(examples.labels, examples.label)
    parts = split(y, shares, examples.parts)
    check_parts(y, parts, class_names)
    normalisation, constant = fit(examples.x[parts == 0])
    sizes = {part: int((parts == place).sum()) for place, part in enumerate(PARTS)}
    chosen, reason = (margin, "chosen by who added the task") if margin else default_margin(sizes["test"])
    task = Task(
        name=name,
        description=_describe(examples, constant, say),
        input_shape=examples.x.shape[1:],
        classes=len(class_names),
        class_names=class_names,
        margin=chosen,
        margin_reason=reason,
        pixel_max=1,
        normalisation=normalisation,
        sizes=sizes,
        split=_split_sentence(shares, examples.parts),
        data_sha256=None,
        **said,
    )
    _check_standardised(task, examples)
    return task, {"x": examples.x, "y": y, "part": parts}


def _describe(examples: Examples, constant: NDArray[np.int64], say: Say) -> str:
    """What was found; constant features are named, here and to `say`."""
    shape = examples.x.shape[1:]
    kind = ("features", "(channels x length)", "(channels x height x width)")[len(shape) - 1]
    sizes = "x".join(map(str, shape))
    text = f"{len(examples.x):,} examples of {sizes} {kind}, labelled by {examples.label!r}."
    if not len(constant):
        return text
    names = listed(examples.columns[place] if examples.columns else place for place in constant)
    what = ("features", "channels", "channels")[len(shape) - 1]
    line = f"constant in the training part, left at a standard deviation of 1: {what} {names}"
    say(line)
    return f"{text} {line[0].upper()}{line[1:]}."


def _split_sentence(shares: Shares, given: NDArray[np.uint8] | None) -> str:
    if given is None:
        return (
            f"drawn within each class with the seed {shares.seed}: {100 * shares.test:g} % test, "
            f"{100 * shares.validation:g} % validation, the others train"
        )
    if (given == 1).any():
        return "train, validation and test as the file says"
    return (
        f"train and test as the file says; validation: {100 * shares.validation:g} % of its training part, "
        f"drawn within each class with the seed {shares.seed}"
    )


def _check_standardised(task: Task, examples: Examples) -> None:
    """Raises: Invalid: a value so far from the training part's that float32 cannot hold it standardised."""
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(task.normalise(examples.x)).reshape(len(examples.x), -1)
    if not is_finite.all():
        row, place = (int(index) for index in np.argwhere(~is_finite)[0])
        name = f"column {examples.columns[place]!r}" if examples.columns else "the array"
        detail = f"{name} has in data row {row + 1} a value that float32 cannot hold once standardised"
        raise refuse("", "infinite-values", detail)
