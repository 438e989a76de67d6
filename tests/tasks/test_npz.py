"""Arrays of an .npz file: names, shapes and parts, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nirvana.errors import Invalid
from nirvana.tasks.npz import read_npz

FLOATS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 0, 1])


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "arrays.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(("x", "y"), [("x", "y"), ("data", "target"), ("features", "labels"), ("X", "Y")])
def test_examples_and_labels_are_known_by_their_names(tmp_path: Path, x: str, y: str) -> None:
    found = read_npz(saved(tmp_path, **{x: FLOATS, y: LABELS}))
    assert np.array_equal(found.x, FLOATS)
    assert found.x.dtype == np.float32
    assert found.labels.tolist() == LABELS.tolist()
    assert (found.label, found.parts, found.columns) == (y, None, ())


@pytest.mark.parametrize(
    "names",
    [
        ("train_x", "train_y", "validation_x", "validation_y", "test_x", "test_y"),
        ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
    ],
)
def test_three_parts_are_kept_as_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    sizes = (3, 1, 2)
    arrays = {name: FLOATS[: sizes[place // 2]] for place, name in enumerate(names) if place % 2 == 0}
    arrays |= {name: LABELS[: sizes[place // 2], None] for place, name in enumerate(names) if place % 2}
    found = read_npz(saved(tmp_path, **arrays))
    assert found.parts is not None
    assert found.parts.tolist() == [0, 0, 0, 1, 2, 2]
    assert found.labels.tolist() == [0, 1, 0, 0, 0, 1]


def test_train_and_test_alone_leave_validation_to_be_drawn(tmp_path: Path) -> None:
    found = read_npz(saved(tmp_path, x_train=FLOATS, y_train=LABELS, x_test=FLOATS[:2], y_test=LABELS[:2]))
    assert found.parts is not None
    assert found.parts.tolist() == [0] * 6 + [2] * 2


def test_an_array_split_is_honoured(tmp_path: Path) -> None:
    words = np.array(["train", "train", "validation", "test", "train", "test"])
    found = read_npz(saved(tmp_path, x=FLOATS, y=LABELS, split=words))
    assert found.parts is not None
    assert found.parts.tolist() == [0, 0, 1, 2, 0, 2]


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "expected"),
    [
        ("x", (6, 5), "f4", (5,)),
        ("x", (6, 8, 8), "u1", (1, 8, 8)),
        ("x", (6, 8, 8), "f4", (1, 8, 8)),
        ("x", (6, 1, 50), "f4", (1, 50)),
        ("x", (6, 9, 128), "f4", (9, 128)),
        ("images", (6, 9, 128), "f4", (1, 9, 128)),
        ("signals", (6, 8, 8), "f4", (8, 8)),
        ("features", (6, 8, 8), "f4", (64,)),
        ("x", (6, 3, 8, 9), "u1", (3, 8, 9)),
        ("x", (6, 8, 9, 3), "u1", (3, 8, 9)),
        ("x", (6, 8, 9, 1), "f4", (1, 8, 9)),
        ("x", (6, 3, 8, 3), "f4", (3, 8, 3)),
    ],
)
def test_shapes_are_understood(
    tmp_path: Path, name: str, shape: tuple[int, ...], dtype: str, expected: tuple[int, ...]
) -> None:
    x = (np.random.default_rng(0).random(shape) * 200 + 0.25).astype(dtype)
    assert read_npz(saved(tmp_path, **{name: x, "y": LABELS})).x.shape == (6, *expected)


def test_channels_that_come_last_are_moved_and_not_reshaped(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (6, 8, 9, 3)).astype(np.uint8)
    found = read_npz(saved(tmp_path, x=x, y=LABELS)).x
    assert np.array_equal(found[4, 2], x[4, :, :, 2])


def test_the_kind_can_be_said(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((6, 8, 8))
    path = saved(tmp_path, x=x, y=LABELS)
    assert read_npz(path, kind="signals").x.shape == (6, 8, 8)
    assert read_npz(path, kind="images").x.shape == (6, 1, 8, 8)
    assert read_npz(path, kind="table").x.shape == (6, 64)


def test_labels_may_be_words_or_bytes(tmp_path: Path) -> None:
    for labels in (np.array(list("ababab")), np.array(list("ababab"), "S1")):
        assert read_npz(saved(tmp_path, x=FLOATS, y=labels)).labels.tolist() == list("ababab")


@pytest.mark.parametrize(
    ("arrays", "pointer", "complaint"),
    [
        ({"x": FLOATS, "y": LABELS[:4]}, "/arrays/y", "'x' has 6 examples and 'y' 4, expected as many"),
        ({"x": FLOATS}, "/arrays", "found the arrays x, expected examples .* and labels"),
        ({"a": FLOATS, "b": LABELS}, "/arrays", "found the arrays a, b, expected examples"),
        ({}, "/arrays", "found the arrays none, expected"),
        (
            {"train_x": FLOATS, "train_y": LABELS},
            "/arrays",
            "found the arrays train_x, train_y, expected examples and labels for test",
        ),
        (
            {"train_x": FLOATS, "train_y": LABELS, "test_x": FLOATS[:, :3], "test_y": LABELS},
            "/arrays",
            r"differ in shape: train_x: \[4\], test_x: \[3\]",
        ),
        ({"x": FLOATS[0], "y": LABELS[:4]}, "/arrays/x", r"has shape \[4\], expected \(n, features\)"),
        ({"x": FLOATS[:0], "y": LABELS[:0]}, "/arrays/x", r"has shape \[0, 4\], expected"),
        ({"x": FLOATS.astype("c8"), "y": LABELS}, "/arrays/x", "is of type complex64, expected numbers"),
        (
            {"x": FLOATS, "y": np.eye(6)},
            "/arrays/y",
            r"has shape \[6, 6\] and type float64, expected one label",
        ),
        (
            {"x": FLOATS, "y": LABELS, "split": np.array(["train"] * 5 + ["dev"])},
            "/arrays/split",
            "the split is 'dev' in data row 6",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, Any], pointer: str, complaint: str
) -> None:
    with pytest.raises(Invalid, match=complaint) as refusal:
        read_npz(saved(tmp_path, **arrays))
    assert [problem.pointer for problem in refusal.value.errors] == [pointer]


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = saved(tmp_path, x=FLOATS, y=np.array(["a", 1, None, "a", 1, "a"], dtype=object))
    with pytest.raises(Invalid, match=r"array 'y' cannot be read .*pickles, which are never read"):
        read_npz(path)


def test_a_named_label_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no array 'kind', expected one of x, y"):
        read_npz(saved(tmp_path, x=FLOATS, y=LABELS), label="kind")


def test_a_label_array_can_be_named(tmp_path: Path) -> None:
    found = read_npz(saved(tmp_path, x=FLOATS, y=LABELS, species=LABELS + 5), label="species")
    assert found.labels.tolist() == [5, 6, 5, 6, 5, 6]


def test_a_kind_that_the_shape_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"'x' has shape \[6, 4\], expected images"):
        read_npz(saved(tmp_path, x=FLOATS, y=LABELS), kind="images")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"hello", b"\x80\x04."])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "arrays.npz"
    path.write_bytes(content)
    with pytest.raises(Invalid, match=r"found no \.npz file"):
        read_npz(path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, FLOATS)
    path = tmp_path / "arrays.npz"
    path.write_bytes(stream.getvalue())
    with pytest.raises(Invalid, match=r"found a single array \(\.npy\), expected an \.npz file"):
        read_npz(path)


def test_a_truncated_npz_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, x=FLOATS, y=LABELS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Invalid, match=r"found no \.npz file"):
        read_npz(path)


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, x=FLOATS, y=LABELS)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("x.npy").header_offset + 200
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(Invalid, match=r"found no \.npz file .*CRC"):
        read_npz(path)
