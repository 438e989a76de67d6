"""csv and Parquet tables: what is read, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nirvana.errors import Invalid, Unavailable
from nirvana.tasks.examples import Examples, find_classes
from nirvana.tasks.tables import read_csv, read_parquet

PLAIN = "a,b,class\n1,2.5,x\n3,-4e-1,y\n"
Read = Callable[..., Examples]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_text(text: str | bytes, label: str | None = None, drop: tuple[str, ...] = ()) -> Examples:
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_csv(path, label, drop)

    return read_text


def test_the_last_column_holds_the_labels_unless_one_is_named(read: Read) -> None:
    found = read(PLAIN)
    assert (found.columns, found.label, found.labels.tolist()) == (("a", "b"), "class", ["x", "y"])
    assert found.x.tolist() == [[1, 2.5], [3, -0.4]]
    assert found.x.dtype == np.float64
    named = read("class,b\nx,1.5\ny,2\n", label="class")
    assert (named.columns, named.labels.tolist()) == (("b",), ["x", "y"])


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_delimiter_is_found_by_the_header(read: Read, mark: str) -> None:
    assert read(PLAIN.replace(",", mark)).x.tolist() == [[1, 2.5], [3, -0.4]]


def test_quoted_fields_may_hold_delimiters_quotes_and_line_ends(read: Read) -> None:
    found = read('"a, in cm";"the ""b""";class\r\n"1";2;"x\ny"\r\n3;4;"x;y"\r\n')
    assert found.columns == ("a, in cm", 'the "b"')
    assert found.labels.tolist() == ["x\ny", "x;y"]


def test_a_byte_order_mark_and_blank_lines_are_no_data(read: Read) -> None:
    found = read("﻿a,class\n\n1,x\n\n2,y\n\n")
    assert found.columns == ("a",)
    assert len(found.x) == 2


def test_whole_numbers_of_a_byte_are_kept_as_bytes(read: Read) -> None:
    assert read("a,class\n0,x\n255,y\n").x.dtype == np.uint8
    assert read("a,class\n0,x\n256,y\n").x.dtype == np.float64
    assert read("a,class\n-1,x\n25,y\n").x.dtype == np.float64


def test_rows_beyond_one_chunk_stay_in_order(read: Read) -> None:
    rows = 4096 * 2 + 3
    found = read("a,class\n" + "".join(f"{row}.5,{row % 3}\n" for row in range(rows)))
    assert found.x[:, 0].tolist() == [row + 0.5 for row in range(rows)]
    assert found.labels.tolist() == [str(row % 3) for row in range(rows)]


def test_columns_can_be_left_out(read: Read) -> None:
    found = read("id,a,class\np1,1,x\np2,2,y\n", drop=("id",))
    assert found.columns == ("a",)


def test_a_split_column_is_no_feature(read: Read) -> None:
    found = read("a,class,split\n1,x,train\n2,y,test\n3,y,validation\n")
    assert (found.columns, found.label) == (("a",), "class")
    assert found.parts is not None
    assert found.parts.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("text", "pointer", "complaint"),
    [
        ("", "", "found an empty file, expected a header and rows"),
        ("a,class\n", "", "found a header and no rows"),
        (
            "1,2,3\n4,5,6\n",
            "/lines/1",
            r"the first line holds numbers \(1, 2, 3\), expected the columns' names",
        ),
        ("a,class\n1,x\n2,y,z\n", "/lines/3", "line 3 has 3 fields, expected 2 as in the header"),
        ('a,class\n1,"x\ny"\n2\n', "/lines/4", "line 4 has 1 fields, expected 2"),
        ("a,b,a,class\n1,2,3,x\n", "/columns/2", "columns 1 and 3 are both 'a'"),
        (",a,class\n0,1,x\n", "/columns/0", "column 1 has no name"),
        ("class\nx\n", "/columns", "no column is left beside the label: found class"),
        ('a,class\n1,"x\n', "/lines/2", "line 2 cannot be parsed: unexpected end of data"),
        ("a,class\nParis,x\n", "/columns/a", r"'a' is not numeric: found 'Paris' in data row 1.*--drop 'a'"),
        ("a;class\n1;x\n1,5;y\n", "/columns/a", "found '1,5' in data row 2; write decimals with a point"),
        ("a,class\n1_000,x\n", "/columns/a", "'a' is not numeric: found '1_000'"),
        (
            "a,class,split\n1,x,dev\n",
            "/columns/split",
            "the split is 'dev' in data row 1, expected one of train",
        ),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(read: Read, text: str, pointer: str, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint) as refusal:
        read(text)
    assert [problem.pointer for problem in refusal.value.errors] == [pointer]


def test_an_unknown_label_is_refused_with_the_columns_there_are(read: Read) -> None:
    with pytest.raises(Invalid, match="there is no column 'kind', expected one of a, b, class"):
        read(PLAIN, label="kind")
    with pytest.raises(Invalid, match="there is no column 'c', expected one of a, b, class"):
        read(PLAIN, drop=("c",))


def test_a_label_that_is_dropped_is_refused(read: Read) -> None:
    with pytest.raises(Invalid, match="'class' is the label, found in drop"):
        read(PLAIN, label="class", drop=("class",))


def test_every_column_that_is_not_numeric_is_named(read: Read) -> None:
    with pytest.raises(Invalid, match=r"column 'a'.*\(and 1 more\)") as refusal:
        read("a,b,c,class\nred,1,2,x\n1,1,old,y\n")
    assert [problem.pointer for problem in refusal.value.errors] == ["/columns/a", "/columns/c"]


def test_text_that_is_not_utf_8_is_refused_with_its_byte(read: Read) -> None:
    with pytest.raises(Invalid, match="found the byte 0xe9, which is not UTF-8"):
        read(b"a,class\n1,caf\xe9\n")


@pytest.mark.parametrize("token", ["", "NA", "n/a", "NaN", "null", "None", "?"])
def test_missing_numbers_are_no_words(read: Read, token: str) -> None:
    assert np.isnan(read(f"a,b,class\n1,2,x\n{token},3,y\n").x[1, 0])


# Labels.


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        (["10", "9", "10"], ("9", "10"), [1, 0, 1]),
        (["1.0", "2.0", "1.0"], ("1", "2"), [0, 1, 0]),
        (["1", "x", "10"], ("1", "10", "x"), [0, 2, 1]),
        (["-1", "1", "-1"], ("-1", "1"), [0, 1, 0]),
    ],
)
def test_classes_are_sorted_integers_by_value(labels: list[str], names: Any, indices: list[int]) -> None:
    found, y = find_classes(np.array(labels), "class")
    assert found == names
    assert y.tolist() == indices
    assert y.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (["x", "x", "x"], "label 'class' has one class only, 'x', expected two or more"),
        (["x", "", ""], r"label 'class' lacks 2 of 3 values, first in data row 2 \(''\)"),
        (["1", "2", "NA"], r"lacks 1 of 3 values, first in data row 3 \('NA'\)"),
        (["1", "2.5", "2"], r"holds continuous numbers \(2.5 in data row 2; 3 different ones\)"),
        (["1", "inf", "2"], r"holds continuous numbers \(inf in data row 2"),
        (
            [f"c{number}" for number in range(1001)],
            "has 1,001 different values, expected at most 1,000 classes",
        ),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: list[str], complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint) as refusal:
        find_classes(np.array(labels), "class")
    assert refusal.value.errors[0].pointer == "/columns/class"


# Parquet.


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path)
    return path


def test_a_parquet_table_gives_the_same_as_its_csv(tmp_path: Path, read: Read) -> None:
    columns = {"a": [1, 3], "b": [2.5, -0.4], "class": ["x", "y"]}
    found, expected = read_parquet(write_parquet(tmp_path / "t.parquet", columns), None), read(PLAIN)
    assert np.array_equal(found.x, expected.x)
    assert found.labels.tolist() == expected.labels.tolist()
    assert (found.columns, found.label) == (expected.columns, expected.label)


def test_parquet_nulls_are_missing_values(tmp_path: Path) -> None:
    columns = {"a": [1, None, 3], "b": [True, False, None], "class": [1, None, 2]}
    found = read_parquet(write_parquet(tmp_path / "t.parquet", columns), None)
    assert np.isnan(found.x).tolist() == [[False, False], [True, False], [False, True]]
    with pytest.raises(Invalid, match="label 'class' lacks 1 of 3 values, first in data row 2"):
        find_classes(found.labels, "class")


def test_parquet_labels_may_be_numbers_or_categories(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    for labels in ([10, 9], [10.0, 9.0], arrow.array(["b", "a"]).dictionary_encode(), [True, False]):
        path = write_parquet(tmp_path / "t.parquet", {"a": [1, 2], "class": labels})
        names, y = find_classes(read_parquet(path, None).labels, "class")
        assert names in (("9", "10"), ("a", "b"), ("False", "True"))
        assert y.tolist() == [1, 0]


def test_parquet_columns_of_text_or_lists_are_not_numeric(tmp_path: Path) -> None:
    columns = {"a": [None, "red"], "b": [[1], [2]], "c": [1, 2], "class": ["x", "y"]}
    with pytest.raises(Invalid, match="column 'a' is not numeric: found 'red' in data row 2") as refusal:
        read_parquet(write_parquet(tmp_path / "t.parquet", columns), None)
    assert [problem.pointer for problem in refusal.value.errors] == ["/columns/a", "/columns/b"]


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    path.write_bytes(b"a,class\n1,x\n")
    with pytest.raises(Invalid, match="found no Parquet file"):
        read_parquet(path, None)


def test_a_parquet_table_without_rows_is_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    columns = {"a": arrow.array([], arrow.float64()), "class": arrow.array([], arrow.string())}
    with pytest.raises(Invalid, match="found a table without rows"):
        read_parquet(write_parquet(tmp_path / "t.parquet", columns), None)


def test_without_pyarrow_the_extra_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unavailable, match=r"needs pyarrow.*pip install 'nirvana-tickets\[data\]'"):
        read_parquet(tmp_path / "t.parquet", None)


def test_a_header_that_is_too_long_for_one_field_is_still_parted(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = ",".join("x" * 50_000 + str(number) for number in range(4))
    path.write_text(f"{names},kind\n" + "1,2,3,4,a\n" * 3)
    assert read_csv(path, None).x.shape == (3, 4)
    path.write_text("x" * 200_000 + "\n1\n")
    with pytest.raises(Invalid, match="cannot be parsed"):
        read_csv(path, None)
