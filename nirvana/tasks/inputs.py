"""Examples of a user's own, read from files for a network that was trained on a task.

Arrays (.npy, .npz), tables (.csv, .tsv) and images become raw values of the task's input shape;
`Task.normalise` turns those into what the network reads.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, NotFound
from nirvana.tasks.files import missing_extra
from nirvana.tasks.task import Array, Task

ARRAYS, TABLES = (".npy", ".npz"), (".csv", ".tsv")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_LABELS = ("y", "label", "labels", "class", "target")
_WHITE = 255  # of an image file


@dataclass(frozen=True)
class Inputs:
    """Raw examples.

    Attributes:
        x: (n, *input_shape); uint8 or float64.
        labels: (n,) int64, the class's index, where the file says it.
        names: (n,) of the examples, where they have names.
    """

    x: Array
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] | None = None


def read_inputs(paths: Sequence[Path], task: Task, label: str | None = None) -> Inputs:
    """Read the examples in an array file, a table, or one or more images.

    Args:
        label: the array or column that holds labels; None: one called y, label, labels, class or target.

    Raises:
        NotFound: there is no such file. Unavailable: an image, and pillow is not installed.
        Invalid: it cannot be read, has no example, another shape than the task's, or a value that is not
            finite; says what was found and what was expected.
    """
    for path in paths:
        if not path.is_file():
            raise NotFound(f"no such file: {path}")
        if path.suffix.lower() not in (*ARRAYS, *TABLES, *IMAGES):
            known = ", ".join((*ARRAYS, *TABLES, *IMAGES))
            raise Invalid(f"{path} ends in {path.suffix!r}, expected one of {known}")
    first = paths[0]
    if all(path.suffix.lower() in IMAGES for path in paths):
        inputs = _read_images(paths, task)
    elif len(paths) > 1:
        raise Invalid(f"{len(paths)} files, expected images, or one file of arrays or a table: {first}")
    else:
        read = _read_table if first.suffix.lower() in TABLES else _read_arrays
        inputs = read(first, task, label)
    return _checked(inputs, task, str(first))


def check_raw(x: Array, task: Task) -> None:
    """Refuse values that cannot be the task's raw pixels; where white is 1, every value may be raw.

    Raises:
        Invalid: below 0, above the task's white, or (not bytes) all within [0, 1].
    """
    if task.pixel_max == 1:
        return
    least, greatest = float(x.min()), float(x.max())
    expected = f"raw pixels of {task.name}, 0 to {task.pixel_max}"
    if least < 0:
        raise Invalid(f"values from {least:g} to {greatest:g}, expected {expected}, or --normalised")
    if greatest > task.pixel_max:
        raise Invalid(f"values up to {greatest:g}, expected {expected}; --white {greatest:g} scales them")
    if x.dtype != np.uint8 and 0 < greatest <= 1:
        raise Invalid(f"values within 0 and 1, expected {expected}; --white 1 scales them")


def _read_arrays(path: Path, task: Task, label: str | None) -> Inputs:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return Inputs(_in_shape(content, task, str(path)))
        with content as arrays:
            names = list(arrays.files)
            y = label if label is not None else next((n for n in names if n in _LABELS), None)
            rest = [name for name in names if name != y]
            x = "x" if "x" in rest else rest[0] if len(rest) == 1 else None
            if x is None or (y is not None and y not in names):
                wanted = f"an array {label!r}" if label is not None and label not in names else "one called x"
                raise Invalid(f"{path} holds {', '.join(names) or 'nothing'}, expected {wanted}")
            labels = None if y is None else _classes(arrays[y].ravel().tolist(), task, str(path))
            return Inputs(_in_shape(arrays[x], task, f"{path}: {x}"), labels)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise Invalid(f"{path}: found no arrays ({error}), expected what numpy.save writes") from error


def _in_shape(array: Array, task: Task, where: str) -> Array:
    """Return as (n, *input_shape) one example, rows of features, or images without or with channels last."""
    if array.dtype.kind not in "buif":
        raise Invalid(f"{where} holds {array.dtype}, expected numbers")
    shape, features = task.input_shape, math.prod(task.input_shape)
    shown = f"{where} has the shape {list(array.shape)}, expected (n, {', '.join(map(str, shape))})"
    if array.ndim and not len(array):
        raise Invalid(f"{shown}: there is no example in it")
    last = (*shape[1:], shape[0])
    if array.shape in (shape, last) or (array.shape == shape[1:] and shape[0] == 1):
        array = array[None]
    if len(shape) > 1 and array.shape[1:] == last != shape:
        array = np.moveaxis(array, -1, 1)
    fits = array.shape[1:] in (shape, (features,)) or (shape[0] == 1 and array.shape[1:] == shape[1:])
    if not fits or array.ndim < 2:
        raise Invalid(shown)
    whole = array.reshape(-1, *shape)
    return whole if whole.dtype == np.uint8 else whole.astype(np.float64)


def _read_table(path: Path, task: Task, label: str | None) -> Inputs:
    rows = _read_rows(path)
    has_header = bool(rows) and any(_number(text) is None for text in rows[0])
    names = [name.strip() for name in rows.pop(0)] if has_header else []
    if not rows:
        raise Invalid(f"{path} has no row of numbers, expected at least one example")
    place = _label_column(names, label, str(path))
    width = math.prod(task.input_shape) + (place is not None)
    for number, row in enumerate(rows, 1 + has_header):
        if len(row) != width:
            extra = "" if place is not None else "; --label names the column of labels"
            raise Invalid(f"{path}: line {number} has {len(row)} fields, expected {width}{extra}")
    labels = None if place is None else _classes([row.pop(place).strip() for row in rows], task, str(path))
    x = np.array([_numbers(row, number, path) for number, row in enumerate(rows, 1 + has_header)])
    is_bytes = bool(((x >= 0) & (x <= 255) & (x == np.floor(x))).all())
    x = x.reshape(-1, *task.input_shape)
    return Inputs(x.astype(np.uint8) if is_bytes else x, labels)


def _read_rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            mark = "\t" if path.suffix.lower() == ".tsv" else ","
            return [row for row in csv.reader(stream, delimiter=mark, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Invalid(f"{path}: found no table ({error}), expected rows of numbers") from error


def _label_column(names: Sequence[str], label: str | None, where: str) -> int | None:
    if label is not None and label not in names:
        header = ", ".join(names[:20]) or "no header"
        raise Invalid(f"{where} has no column {label!r}: found {header}")
    known = [label] if label is not None else _LABELS
    return next((place for place, name in enumerate(names) if name in known), None)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _numbers(row: Sequence[str], number: int, path: Path) -> list[float]:
    for column, text in enumerate(row, 1):
        if _number(text) is None:
            raise Invalid(f"{path}: line {number}, column {column} is {text[:50]!r}, expected a number")
    return [float(text) for text in row]


def _read_images(paths: Sequence[Path], task: Task) -> Inputs:
    """Read images in the task's size and channels, scaled to its raw values."""
    if len(task.input_shape) != 3 or task.input_shape[0] not in (1, 3):
        raise Invalid(f"{paths[0]} is an image, but {task.name} has inputs of {list(task.input_shape)}")
    images = np.stack([_read_image(path, task.input_shape) for path in paths])
    names = tuple(str(path) for path in paths)
    if task.pixel_max == _WHITE:
        return Inputs(images, names=names)
    return Inputs(images * (task.pixel_max / _WHITE), names=names)


def _read_image(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read (channels, height, width), resampled where its size is another one."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise missing_extra(error, "reading images") from None
    try:
        with Image.open(path) as image:
            fitted = image.convert("L" if shape[0] == 1 else "RGB")
            if fitted.size != shape[:0:-1]:
                fitted = fitted.resize((shape[2], shape[1]), Image.Resampling.LANCZOS)
            pixels = np.asarray(fitted)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise Invalid(f"{path}: found no image ({error})") from error
    return pixels.reshape(1, *shape[1:]) if shape[0] == 1 else pixels.transpose(2, 0, 1)


def _classes(labels: Iterable[object], task: Task, where: str) -> NDArray[np.int64]:
    """Return the class indices of labels that are class names or indices."""
    places = {name: place for place, name in enumerate(task.class_names)}
    indices = []
    for number, label in enumerate(labels):
        text = str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
        place = places.get(text, int(text) if text.isdecimal() and int(text) < task.classes else None)
        if place is None:
            known = ", ".join(task.class_names[:20])
            raise Invalid(f"{where}: label {number} is {text[:50]!r}, expected one of {known}")
        indices.append(place)
    return np.array(indices, np.int64)


def _checked(inputs: Inputs, task: Task, where: str) -> Inputs:
    if inputs.labels is not None and len(inputs.labels) != len(inputs.x):
        raise Invalid(
            f"{where} has {len(inputs.x)} examples and {len(inputs.labels)} labels, expected as many"
        )
    if inputs.x.dtype != np.uint8:
        wrong = np.flatnonzero(~np.isfinite(inputs.x).reshape(len(inputs.x), -1).all(1))
        if len(wrong):
            raise Invalid(f"{where}: example {wrong[0]} has a value that is not finite ({len(wrong)} such)")
    return inputs
