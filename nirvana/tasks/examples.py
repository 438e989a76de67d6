"""Examples as a user's file holds them, and the classes of their labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, Problem
from nirvana.tasks.task import PARTS, Array

MOST_CLASSES = 1_000
MOST_VALUES = 2**28

NO_LABEL = frozenset({"", "na", "n/a", "nan", "null"})


@dataclass(frozen=True)
class Examples:
    """Examples as they were read, before they are checked, split and standardised.

    Attributes:
        x: (n, features), (n, channels, length) or (n, channels, height, width); uint8, float32 or float64.
        labels: (n,), integers, numbers or text.
        label: the labels' column or array.
        parts: (n,) of 0 train, 1 validation, 2 test, 3 sealed, where the file says so; all but train and
            test may be missing.
        columns: names of a table's features; empty for arrays.
    """

    x: Array
    labels: Array
    label: str
    parts: NDArray[np.uint8] | None = None
    columns: tuple[str, ...] = ()


def refuse(pointer: str, code: str, detail: str) -> Invalid:
    """Return the error of a single problem."""
    return Invalid(detail, errors=[Problem(pointer, code, detail)])


def listed(names: Iterable[object], most: int = 20) -> str:
    """Join names for a message: the first ones, and the number of the others."""
    words = [str(name) for name in names]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def check_size(values: int, what: str) -> None:
    """Refuse more values than a task may have.

    Raises:
        Invalid: says how many there are.
    """
    if values > MOST_VALUES:
        raise refuse("", "too-large", f"{what} has {values:,} values, expected at most {MOST_VALUES:,}")


def compact(x: Array) -> Array:
    """Return values as they are kept: bytes where every value is one, else float32 where they were that,
    else float64."""
    if x.dtype == np.uint8:
        return x
    if x.size and x.min() >= 0 and x.max() <= 255 and bool((x == np.floor(x)).all()):
        return x.astype(np.uint8)
    return x.astype(np.float32 if x.dtype in (np.float16, np.float32) else np.float64)


def read_parts(values: Array, pointer: str) -> NDArray[np.uint8]:
    """Return a split that is given in words as 0 train, 1 validation, 2 test, 3 sealed.

    Raises:
        Invalid: another word; says which and where.
    """
    words = values.astype(np.str_)
    known = (*PARTS, "sealed")
    wrong = np.flatnonzero(~np.isin(words, known))
    if len(wrong):
        at, word = int(wrong[0]), str(words[wrong[0]])
        detail = f"the split is {word!r} in data row {at + 1}, expected one of {', '.join(known)}"
        raise refuse(pointer, "split", detail)
    return np.array([known.index(word) for word in words], np.uint8)


def find_classes(labels: Array, label: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the classes' names, sorted (integers by value, words by code point), and each example's class.

    Raises:
        Invalid: labels missing, continuous, of one class or of more than 1,000.
    """
    pointer = f"/columns/{label}"
    values = _whole_numbers(labels, label, pointer)
    classes, indices = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        detail = f"label {label!r} has one class only, {str(classes[0])!r}, expected two or more"
        raise refuse(pointer, "one-class", detail)
    if len(classes) > MOST_CLASSES:
        detail = (
            f"label {label!r} has {len(classes):,} different values, expected at most {MOST_CLASSES:,} "
            f"classes; is it a number to predict, or an identifier?"
        )
        raise refuse(pointer, "too-many-classes", detail)
    return tuple(str(name) for name in classes.tolist()), indices.astype(np.int64)


def _whole_numbers(labels: Array, label: str, pointer: str) -> Array:
    """Return labels as integers, or as words where not all of them are numbers."""
    if labels.dtype.kind == "U":
        missing = np.isin(np.char.lower(labels), list(NO_LABEL))
    else:
        missing = np.isnan(labels) if labels.dtype.kind == "f" else np.zeros(len(labels), bool)
    if missing.any():
        first = int(np.argmax(missing))
        detail = (
            f"label {label!r} lacks {missing.sum()} of {len(labels)} values, "
            f"first in data row {first + 1} ({str(labels[first])!r})"
        )
        raise refuse(pointer, "missing-values", detail)
    if labels.dtype.kind == "U":
        numbers = {text: _number(text) for text in np.unique(labels).tolist()}
        if None in numbers.values():
            return labels
        labels = np.array([numbers[text] for text in labels.tolist()], np.float64)
    return _integral(labels, label, pointer) if labels.dtype.kind == "f" else labels


def _integral(labels: Array, label: str, pointer: str) -> NDArray[np.int64]:
    wrong = np.flatnonzero(~np.isfinite(labels) | (labels != np.floor(labels)) | (np.abs(labels) > 2**53))
    if len(wrong):
        detail = (
            f"label {label!r} holds continuous numbers ({labels[wrong[0]]} in data row {int(wrong[0]) + 1}; "
            f"{len(np.unique(labels))} different ones), expected classes: a task here is a classification, "
            f"no regression. Write classes as words or integers"
        )
        raise refuse(pointer, "continuous-labels", detail)
    return labels.astype(np.int64)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
