"""The embedded digits: what they are, and how they are split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nirvana import tasks
from nirvana.initial import epoch_order
from nirvana.tasks.arrays import arrays_sha256, read_digits
from nirvana.tasks.embed_digits import embed_digits


def test_the_embedded_digits_equal_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = read_digits()
    expected = datasets.load_digits()
    assert np.array_equal(images, expected.images)
    assert np.array_equal(labels, expected.target)


def test_the_embedded_file_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    pytest.importorskip("sklearn.datasets")
    embed_digits(tmp_path / "digits.npz")
    embedded = Path(tasks.__file__).parent / "data" / "digits.npz"
    with np.load(tmp_path / "digits.npz") as again, np.load(embedded) as here:
        assert {name: again[name].tobytes() for name in again} == {
            name: here[name].tobytes() for name in here
        }


def test_the_tasks_digest_is_that_of_the_embedded_arrays() -> None:
    assert tasks.get("digits").data_sha256 == arrays_sha256(*read_digits())


def test_every_digit_is_in_exactly_one_part_of_the_split() -> None:
    task, parts = tasks.get("digits"), tasks.load("digits")
    images, labels = read_digits()
    everything = np.concatenate([parts.train_x, parts.validation_x, parts.test_x])
    order = epoch_order(0, 0, len(images))
    assert np.array_equal(everything, task.normalise(images[order]))
    assert np.array_equal(np.concatenate([parts.train_y, parts.validation_y, parts.test_y]), labels[order])
    assert [len(part) for part in (parts.train_x, parts.validation_x, parts.test_x)] == [1000, 297, 500]


def test_the_split_of_the_digits_never_moves() -> None:
    parts = tasks.load("digits")
    assert parts.train_y[:10].tolist() == [1, 3, 7, 1, 6, 5, 5, 9, 4, 3]
    assert parts.test_y[-10:].tolist() == [0, 5, 4, 1, 9, 5, 7, 6, 1, 9]


def test_digits_are_standardised_by_their_training_part() -> None:
    x = tasks.load("digits").train_x
    assert x.dtype == np.float32
    assert x.shape == (1000, 1, 8, 8)
    assert abs(float(x.mean())) < 1e-3
    assert abs(float(x.std()) - 1) < 1e-3


def test_a_task_is_read_once_a_process() -> None:
    assert tasks.load("digits") is tasks.load(tasks.get("digits"))
