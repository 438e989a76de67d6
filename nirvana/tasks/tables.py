"""Tables: a csv or Parquet file with a column of labels and columns of numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, Problem, raise_problems
from nirvana.tasks.examples import NO_LABEL, Examples, check_size, compact, listed, read_parts, refuse
from nirvana.tasks.files import missing_extra
from nirvana.tasks.task import Array

if TYPE_CHECKING:
    import pyarrow

SPLIT = "split"
DELIMITERS = ",;\t"
MISSING = NO_LABEL | {"none", "?"}

_ROWS = 4096  # csv rows turned into numbers at a time


class Rows(Protocol):
    """A csv reader."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


@dataclass(frozen=True)
class Columns:
    """The roles of a table's columns: places in its header."""

    names: tuple[str, ...]
    label: int
    split: int | None
    features: tuple[int, ...]


@dataclass
class _Text:
    """Columns of text on their way to numbers; `wrong` has the first text of each that is none, by place."""

    wrong: dict[int, tuple[int, str]] = field(default_factory=dict)

    def numbers(self, place: int, texts: Sequence[str], row: int) -> list[float]:
        """Return a column's texts as numbers, NaN for missing ones; note the first that is neither."""
        try:
            if not any("_" in text for text in texts):  # float() would read 1_000
                return [float(text) for text in texts]
        except ValueError:
            pass
        numbers = []
        for offset, text in enumerate(texts):
            number = _number(text)
            if number is None:
                self.wrong.setdefault(place, (row + offset, text))
            numbers.append(float("nan") if number is None else number)
        return numbers


def _number(text: str) -> float | None:
    text = text.strip()
    if text.lower() in MISSING:
        return float("nan")
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def choose_columns(names: Sequence[str], label: str | None, drop: Sequence[str]) -> Columns:
    """Choose the label (named, or the last), the split (called `split`, where there is one) and the features.

    Raises:
        Invalid: names missing or twice; an unknown label or column to drop; no features left.
    """
    problems = []
    for place, name in enumerate(names):
        at = f"/columns/{place}"
        if not name:
            detail = f"column {place + 1} has no name (a row number written with the table?)"
            problems.append(Problem(at, "no-name", detail))
        elif name in names[:place]:
            first = list(names).index(name) + 1
            problems.append(
                Problem(at, "duplicate-name", f"columns {first} and {place + 1} are both {name!r}")
            )
    for name in [*([label] if label is not None else []), *drop]:
        if name not in names:
            detail = f"there is no column {name!r}, expected one of {listed(names)}"
            problems.append(Problem(f"/columns/{name}", "unknown-column", detail))
    if label in drop:
        problems.append(
            Problem(f"/columns/{label}", "label-dropped", f"{label!r} is the label, found in drop")
        )
    raise_problems(Invalid, "table", problems)
    left = [place for place, name in enumerate(names) if name not in drop]
    split = next((place for place in left if names[place] == SPLIT and label != SPLIT), None)
    rest = [place for place in left if place != split]
    target = names.index(label) if label is not None else rest[-1] if rest else -1
    features = tuple(place for place in rest if place != target)
    if target not in rest or not features:
        raise refuse("/columns", "no-features", f"no column is left beside the label: found {listed(names)}")
    return Columns(tuple(names), target, split, features)


def read_csv(path: Path, label: str | None, drop: Sequence[str] = ()) -> Examples:
    """Read the examples of a csv file: UTF-8, a header, fields parted by commas, semicolons or tabs.

    Raises:
        Invalid: it is not such a file, or not a table of numbers; says which line or column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            start = stream.readline()
            stream.seek(0)
            rows = csv.reader(stream, delimiter=_sniff(start), strict=True)
            try:
                return _read_rows(rows, label, drop)
            except csv.Error as error:
                detail = f"line {rows.line_num} cannot be parsed: {error}"
                raise refuse(f"/lines/{rows.line_num}", "csv", detail) from error
    except UnicodeDecodeError as error:
        detail = f"found the byte {error.object[error.start]:#04x}, which is not UTF-8, expected a text file"
        raise refuse("", "encoding", detail) from error


def _sniff(line: str) -> str:
    """Return the delimiter that parts a line into the most fields."""
    counts = {mark: _count_fields(line, mark) for mark in DELIMITERS}
    return max(DELIMITERS, key=counts.__getitem__)


def _count_fields(line: str, mark: str) -> int:
    """Count the fields of a line; 0 where one would be longer than any may be."""
    try:
        return len(next(csv.reader([line], delimiter=mark), []))
    except csv.Error:
        return 0


def _read_rows(rows: Rows, label: str | None, drop: Sequence[str]) -> Examples:
    names = [name.strip() for name in next(rows, [])]
    if not names:
        raise refuse("", "empty", "found an empty file, expected a header and rows")
    if all(_number(name) is not None and name for name in names):
        detail = f"the first line holds numbers ({listed(names, 5)}), expected the columns' names"
        raise refuse("/lines/1", "no-header", detail)
    columns = choose_columns(names, label, drop)
    labels: list[str] = []
    parts: list[str] = []
    chunks, text = [], _Text()
    whole = _whole_rows(rows, len(names))
    while chunk := list(islice(whole, _ROWS)):
        check_size((len(labels) + len(chunk)) * len(columns.features), "the table")
        fields = list(zip(*chunk, strict=True))
        numbers = [text.numbers(place, fields[place], len(labels)) for place in columns.features]
        chunks.append(np.array(numbers, np.float64).T)
        labels += [name.strip() for name in fields[columns.label]]
        parts += fields[columns.split] if columns.split is not None else []
    if not labels:
        raise refuse("", "empty", "found a header and no rows")
    words = np.array(labels, np.str_), np.array(parts, np.str_) if parts else None
    return _make(columns, np.concatenate(chunks), *words, text.wrong)


def _whole_rows(rows: Rows, width: int) -> Iterator[list[str]]:
    """Yield the rows that are not blank.

    Raises:
        Invalid: one has more or fewer fields than the header.
    """
    for row in rows:
        if row and len(row) != width:
            detail = f"line {rows.line_num} has {len(row)} fields, expected {width} as in the header"
            raise refuse(f"/lines/{rows.line_num}", "ragged-row", detail)
        if row:
            yield row


def read_parquet(path: Path, label: str | None, drop: Sequence[str] = ()) -> Examples:
    """Read the examples of a Parquet file.

    Raises:
        Unavailable: pyarrow is not installed.
        Invalid: it is not such a file, or not a table of numbers; says which column.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise missing_extra(error, "reading Parquet") from None
    try:
        with parquet.ParquetFile(path) as file:
            check_size(file.metadata.num_rows * file.metadata.num_columns, "the table")
            table = file.read()
    except (arrow.ArrowException, OSError) as error:
        raise refuse("", "parquet", f"found no Parquet file ({error})") from error
    if not table.num_rows:
        raise refuse("", "empty", "found a table without rows")
    columns = choose_columns(table.column_names, label, drop)
    wrong: dict[int, tuple[int, str]] = {}
    x = np.empty((table.num_rows, len(columns.features)))
    for to, place in enumerate(columns.features):
        values = table.column(place)
        if _is_numeric(values.type):
            x[:, to] = values.cast(arrow.float64(), safe=False).to_numpy()
        else:
            wrong[place] = next(((row, str(v)) for row, v in enumerate(values.to_pylist()) if v), (0, ""))
    parts = None if columns.split is None else _plain(table.column(columns.split))
    return _make(columns, x, _plain(table.column(columns.label)), parts, wrong)


def _is_numeric(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    return any(test(kind) for test in tests)


def _plain(column: pyarrow.ChunkedArray) -> NDArray[np.str_]:
    """Return a column of labels as text, "" where there is none."""
    return np.array(["" if value is None else str(value).strip() for value in column.to_pylist()], np.str_)


def _make(
    columns: Columns,
    x: NDArray[np.float64],
    labels: Array,
    parts: Array | None,
    wrong: dict[int, tuple[int, str]],
) -> Examples:
    """Assemble the examples.

    Raises:
        Invalid: columns that are not numeric, each with an example.
    """
    problems = []
    for place, (row, text) in sorted(wrong.items()):
        name = columns.names[place]
        is_comma = bool(text) and _number(text.replace(",", ".", 1)) is not None
        advice = (
            "write decimals with a point"
            if is_comma
            else f"write it as numbers (a column of 0 and 1 for each value) or leave it out: --drop {name!r}"
        )
        detail = f"column {name!r} is not numeric: found {text[:50]!r} in data row {row + 1}; {advice}"
        problems.append(Problem(f"/columns/{name}", "not-numeric", detail))
    raise_problems(Invalid, "table", problems)
    return Examples(
        compact(x),
        labels,
        columns.names[columns.label],
        None if parts is None else read_parts(parts, f"/columns/{SPLIT}"),
        tuple(columns.names[place] for place in columns.features),
    )
