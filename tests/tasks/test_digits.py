"""The embedded digits: what they are, and how they are split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nirvana import tasks
from nirvana.format.initial import epoch_order
from nirvana.tasks.arrays import read_digits
from scripts.embed_digits import embed_digits
from tests.tasks.test_published import arrays_sha256


def test_the_embedded_digits_equal_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = (
        np.concatenate(parts) for parts in zip(read_digits(), read_digits("digits-sealed"), strict=True)
    )
    expected = datasets.load_digits()
    order = epoch_order(0, 0, 1797)
    assert np.array_equal(images, expected.images[order])
    assert np.array_equal(labels, expected.target[order])


def test_the_embedded_file_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    pytest.importorskip("sklearn.datasets")
    embed_digits(tmp_path)
    for name in ("digits.npz", "digits-sealed.npz"):
        embedded = Path(tasks.__file__).parent / "data" / name
        with np.load(tmp_path / name) as again, np.load(embedded) as here:
            assert {part: again[part].tobytes() for part in again} == {
                part: here[part].tobytes() for part in here
            }


def test_the_tasks_digest_is_that_of_the_embedded_arrays() -> None:
    task = tasks.get("digits")
    assert task.data_sha256 == arrays_sha256(*read_digits())
    assert task.seal is not None
    assert (task.seal.sha256, task.seal.rows) == (arrays_sha256(*read_digits("digits-sealed")), 300)


def test_every_digit_is_in_exactly_one_part_of_the_split() -> None:
    task, parts = tasks.get("digits"), tasks.load("digits")
    images, labels = read_digits()
    everything = np.concatenate([parts.train_x, parts.validation_x, parts.test_x])
    assert np.array_equal(everything, task.normalise(images))
    assert np.array_equal(np.concatenate([parts.train_y, parts.validation_y, parts.test_y]), labels)
    assert [len(part) for part in (parts.train_x, parts.validation_x, parts.test_x)] == [1000, 297, 200]


def test_no_training_sees_a_sealed_digit() -> None:
    sealed, parts = tasks.load_sealed("digits"), tasks.load("digits")
    assert sealed is not None
    assert sealed.x.shape == (300, 1, 8, 8)
    seen = {row.tobytes() for x in (parts.train_x, parts.validation_x, parts.test_x) for row in x}
    assert not seen & {row.tobytes() for row in sealed.x}
    assert tasks.load_sealed("mnist") is None


def test_the_split_of_the_digits_never_moves() -> None:
    parts = tasks.load("digits")
    assert parts.train_y[:10].tolist() == [1, 3, 7, 1, 6, 5, 5, 9, 4, 3]
    assert parts.test_y[-10:].tolist() == [6, 4, 4, 5, 7, 7, 0, 4, 2, 6]


def test_digits_are_standardised_by_their_training_part() -> None:
    x = tasks.load("digits").train_x
    assert x.dtype == np.float32
    assert x.shape == (1000, 1, 8, 8)
    assert abs(float(x.mean())) < 1e-3
    assert abs(float(x.std()) - 1) < 1e-3


def test_a_task_is_read_once_a_process() -> None:
    assert tasks.load("digits") is tasks.load(tasks.get("digits"))
