"""A task from examples: classes, split, standardisation, margin.

Where the file does not say, the split is drawn within each class, from (seed, class) alone. Standardisation
is fitted on the training part: for each feature of a table, for each channel of signals and images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, Problem, raise_problems
from nirvana.format.initial import epoch_order
from nirvana.tasks.examples import Examples, find_classes, listed, refuse
from nirvana.tasks.task import PARTS, Array, Normalisation, Task

LEAST_OF_A_CLASS = 2
LEAST_TEST = 10
SEALED = len(PARTS)  # the number of the part that is kept apart
LARGEST = 3e38  # float32's largest is 3.4e38

_CHUNK = 4096
_DIGITS = 10  # of a mean or standard deviation that are kept

OnWarning = Callable[[str], None]


@dataclass(frozen=True)
class Shares:
    """Shares of all examples that become test, validation and sealed rows, and the seed of the draw."""

    test: float = 0.2
    validation: float = 0.2
    seed: int = 0
    sealed: float = 0.0

    def check(self) -> None:
        """Refuse a share outside (0, 1), and shares that leave nothing to train on.

        Raises:
            Invalid: says which.
        """
        for name, share in (("test", self.test), ("validation", self.validation)):
            if not 0 < share < 1:
                raise refuse(f"/{name}_share", "range", f"{name} share is {share}, expected above 0, below 1")
        if not 0 <= self.sealed < 1:
            detail = f"sealed share is {self.sealed}, expected at least 0, below 1"
            raise refuse("/sealed_share", "range", detail)
        total = self.test + self.validation + self.sealed
        if total >= 1:
            detail = f"test, validation and sealed shares add up to {total:g}, expected below 1"
            raise refuse("/test_share", "range", detail)


@dataclass(frozen=True)
class NewTask:
    """The facts of a new task that its examples do not tell.

    Attributes:
        source: the file that the examples come from, and its checksum.
        margin: of accuracy, a fraction; None: by the size of the test set.
        shares: of the split, where the file has none.
    """

    name: str
    title: str
    license: str
    source: str
    margin: float | None = None
    shares: Shares = field(default_factory=Shares)


def split(y: NDArray[np.int64], shares: Shares, known: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return 0 train, 1 validation, 2 test or 3 sealed for each example.

    Each class gives its share of each, rounded half to even. A split that is known is kept; where it has no
    validation, that is drawn from its training part, and where it has no sealed rows, these from its test
    part: so many as their share of all, at most half.
    """
    parts = np.zeros(len(y), np.uint8) if known is None else known.copy()
    has = {part: known is not None and bool((known == part).any()) for part in (1, SEALED)}
    for which in np.unique(y):
        members = np.flatnonzero((y == which) & (parts == 0))
        drawn = members[epoch_order(shares.seed, int(which), len(members))]
        tests = 0 if known is not None else round(shares.test * len(members))
        parts[drawn[:tests]] = 2
        end = tests + (0 if has[1] else round(shares.validation * len(members)))
        parts[drawn[tests:end]] = 1
        sealed = 0 if has[SEALED] else round(shares.sealed * int((y == which).sum()))
        if known is None:
            parts[drawn[end : end + sealed]] = SEALED
        elif sealed:
            tested = np.flatnonzero((y == which) & (parts == 2))
            order = epoch_order(shares.seed, int(which), len(tested))
            parts[tested[order[: min(sealed, len(tested) // 2)]]] = SEALED
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
    for name, part in (("test", 2), ("sealed", SEALED)):
        tests = int((parts == part).sum())
        if tests < LEAST_TEST and (tests or part != SEALED):
            detail = f"{name} has {tests} of {len(y)} examples, expected at least {LEAST_TEST}"
            problems.append(Problem(f"/{name}", "tiny", detail))
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
        checks = {
            "missing-values": (
                np.isnan(values),
                "lacks {} of {} values",
                "; fill them in or leave the rows out",
            ),
            "infinite-values": (np.abs(values) > LARGEST, "has {} of {} values infinite or above 3e38", ""),
        }
        for code, (wrong, fault, advice) in checks.items():
            if wrong.any():
                first = int(wrong.any(axis=1).argmax()) + 1
                what = f"column {name!r}" if examples.columns else "the array of examples"
                detail = f"{what} {fault.format(wrong.sum(), values.size)}, first in data row {first}{advice}"
                problems.append(Problem(f"/columns/{name}" if examples.columns else "", code, detail))
    raise_problems(Invalid, "examples", problems)


def fit(x: Array) -> tuple[Normalisation, NDArray[np.int64]]:
    """Return mean and standard deviation along the first axis of an example, and the constant entries.

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
    """Return the margin that a test set of this size can tell, and the reason.

    One binomial standard error at an accuracy of 90 %, rounded up to 0.1 pp, and at least 1.0 pp.
    """
    error = math.sqrt(0.9 * 0.1 / tests)
    margin = max(0.01, math.ceil(round(1000 * error, 6)) / 1000)
    reason = (
        f"{100 * margin:.1f} pp by rule, before anything was measured: the larger of 1.0 pp and one binomial "
        f"standard error at 90 % on {tests:,} examples to test on ({100 * error:.2f} pp, rounded up)"
    )
    return margin, reason


def make_task(examples: Examples, new: NewTask, on_warning: OnWarning) -> tuple[Task, dict[str, Array]]:
    """Make the task, its digest still to come, and its arrays: x, y and part.

    Args:
        on_warning: called with a line for each thing that is odd and no error.

    Raises:
        Invalid: the examples cannot be a task; says why.
    """
    if new.margin is not None and not 0 < new.margin <= 0.5:
        raise refuse("/margin", "range", f"margin is {new.margin}, expected a fraction above 0 and up to 0.5")
    new.shares.check()
    check_values(examples)
    class_names, y = find_classes(examples.labels, examples.label)
    parts = split(y, new.shares, examples.parts)
    check_parts(y, parts, class_names)
    normalisation, constant = fit(examples.x[parts == 0])
    sizes = {part: int((parts == place).sum()) for place, part in enumerate(PARTS)}
    by_rule = default_margin(int((parts == SEALED).sum()) or sizes["test"])
    margin, reason = (new.margin, "chosen by who added the task") if new.margin is not None else by_rule
    task = Task(
        name=new.name,
        title=new.title,
        description=_describe(examples, constant, on_warning),
        input_shape=examples.x.shape[1:],
        classes=len(class_names),
        class_names=class_names,
        margin=margin,
        margin_reason=reason,
        pixel_max=1,
        normalisation=normalisation,
        sizes=sizes,
        split=_split_sentence(new.shares, examples.parts),
        license=new.license,
        source=new.source,
        data_sha256=None,
    )
    _check_standardised(task, examples)
    return task, {"x": examples.x, "y": y, "part": parts}


def _describe(examples: Examples, constant: NDArray[np.int64], on_warning: OnWarning) -> str:
    """Describe the examples; constant features are named, here and to `on_warning`."""
    shape = examples.x.shape[1:]
    kind = ("features", "(channels x length)", "(channels x height x width)")[len(shape) - 1]
    sizes = "x".join(map(str, shape))
    text = f"{len(examples.x):,} examples of {sizes} {kind}, labelled by {examples.label!r}."
    if not len(constant):
        return text
    names = listed(examples.columns[place] if examples.columns else place for place in constant)
    what = ("features", "channels", "channels")[len(shape) - 1]
    line = f"constant in the training part, left at a standard deviation of 1: {what} {names}"
    on_warning(line)
    return f"{text} {line[0].upper()}{line[1:]}."


def _split_sentence(shares: Shares, known: NDArray[np.uint8] | None) -> str:
    drawn = f"drawn within each class with the seed {shares.seed}"
    seal = f"{100 * shares.sealed:g} % sealed, read by verifications alone"
    if known is None:
        parts = [f"{100 * shares.test:g} % test", f"{100 * shares.validation:g} % validation"]
        parts += [seal] if shares.sealed else []
        return f"{drawn}: {', '.join(parts)}, the others train"
    if (known == 1).any():
        text = "train, validation and test as the file says"
    else:
        text = (
            f"train and test as the file says; validation: {100 * shares.validation:g} % of its training "
            f"part, {drawn}"
        )
    if (known == SEALED).any():
        return f"{text}; the rows that it calls sealed are read by verifications alone"
    return f"{text}; of its test part, {drawn}: {seal}" if shares.sealed else text


def _check_standardised(task: Task, examples: Examples) -> None:
    """Refuse values so far from the training part's that float32 cannot hold them standardised.

    Raises:
        Invalid: names the first.
    """
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(task.normalise(examples.x)).reshape(len(examples.x), -1)
    if not is_finite.all():
        row, place = (int(index) for index in np.argwhere(~is_finite)[0])
        name = f"column {examples.columns[place]!r}" if examples.columns else "the array"
        detail = f"{name} has in data row {row + 1} a value that float32 cannot hold once standardised"
        raise refuse("", "infinite-values", detail)
