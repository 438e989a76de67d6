"""The published data sets, where this machine has them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nirvana import tasks
from nirvana.errors import DataDamaged
from nirvana.tasks.arrays import read_published
from nirvana.tasks.cifar import BATCHES, KNOWN_RECORDS, decode, read_encoded


def data_folder() -> Path:
    named = os.environ.get("NIRVANA_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


def need(name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data set `name`; the test is skipped where there is none."""
    folder = data_folder()
    if not (folder / name).is_dir():
        pytest.skip(f"data set not here: no {name} in {folder}: set NIRVANA_DATA to the folder that holds it")
    monkeypatch.setenv("NIRVANA_DATA", str(folder))
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    return folder / name


def arrays_sha256(*arrays: NDArray[np.uint8]) -> str:
    """sha256 of the arrays' bytes, one after the other: a task's `data_sha256`."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@pytest.fixture(params=["mnist", "fashion-mnist"])
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    need(request.param, monkeypatch)
    return str(request.param)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist-partial"])
def test_the_published_arrays_have_the_tasks_digest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(name, monkeypatch)
    assert arrays_sha256(*read_published(tasks.get(name))) == tasks.get(name).data_sha256


def test_validation_is_the_last_5000_published_training_images(name: str) -> None:
    task, parts = tasks.get(name), tasks.load(name)
    images, labels, _, test_labels = read_published(task)
    assert np.array_equal(parts.validation_x, task.normalise(images[55_000:]))
    assert np.array_equal(parts.validation_y, labels[55_000:])
    assert np.array_equal(parts.test_y, test_labels)
    assert parts.train_x.shape == (55_000, 1, 28, 28)


def test_pixels_are_standardised_by_the_training_part(name: str) -> None:
    x = tasks.load(name).train_x
    assert abs(float(x.mean(dtype=np.float64))) < 1e-3
    assert abs(float(x.std(dtype=np.float64)) - 1) < 1e-3


def test_the_partial_kmnist_is_split_after_6011_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    need("kmnist-partial", monkeypatch)
    task, parts = tasks.get("kmnist-partial"), tasks.load("kmnist-partial")
    images, labels, _, test_labels = read_published(task)
    assert (len(parts.train_y), len(parts.validation_y), len(parts.test_y)) == (6_011, 1_000, 10_000)
    assert np.array_equal(parts.validation_x, task.normalise(images[6_011:]))
    assert np.array_equal(parts.train_y, labels[:6_011])
    assert np.array_equal(parts.test_y, test_labels)
    assert abs(float(parts.train_x.mean(dtype=np.float64))) < 1e-3
    assert abs(float(parts.train_x.std(dtype=np.float64)) - 1) < 1e-3


def test_a_published_file_with_one_other_byte_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = need("kmnist-partial", monkeypatch)
    copy = tmp_path / "kmnist-partial"
    copy.mkdir()
    for path in folder.glob("*.gz"):
        (copy / path.name).write_bytes(path.read_bytes())
    labels = copy / "train7011-labels-idx1-ubyte.gz"
    content = bytearray(labels.read_bytes())
    content[100] ^= 1
    labels.write_bytes(content)
    monkeypatch.setenv("NIRVANA_DATA", str(tmp_path))
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(DataDamaged, match=rf"train7011-labels.*found sha256:{found}, expected sha256:c7f766"):
        tasks.load("kmnist-partial")


# CIFAR-10: the JPEG copy, and what the reader of the official batches holds them against.


def test_the_jpeg_copy_has_the_tasks_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    need("cifar10-jpeg", monkeypatch)
    task = tasks.get("cifar-10-jpeg")
    arrays = read_encoded(task)
    names = ("train_jpeg", "train_labels", "test_jpeg", "test_labels")
    assert arrays_sha256(*(arrays[name] for name in names)) == task.data_sha256


def test_the_jpeg_copy_decodes_to_whole_classes_standardised_by_its_training_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need("cifar10-jpeg", monkeypatch)
    task = tasks.get("cifar-10-jpeg")
    images, labels, test_images, test_labels = read_published(task)
    assert (images.shape, test_images.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert np.bincount(labels).tolist() == [5_000] * 10
    assert np.bincount(test_labels).tolist() == [1_000] * 10
    grey = np.arange(256) / 255
    counts = [np.bincount(images[:45_000, channel].ravel(), minlength=256) for channel in range(3)]
    mean, sd = task.normalisation
    assert [np.average(grey, weights=count) for count in counts] == pytest.approx(mean, abs=1e-4)
    second = [np.average(grey**2, weights=count) for count in counts]
    assert np.sqrt(second - np.square(mean)) == pytest.approx(sd, abs=1e-3)


def lossless(folder: Path) -> dict[str, NDArray[np.uint8]]:
    with np.load(folder / "cifar10_lossless_subset.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize(("part", "first"), [("train", 4_000), ("test", 1_017)])
def test_every_jpeg_is_the_same_picture_as_its_lossless_original(
    part: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = lossless(need("cifar10-jpeg", monkeypatch))
    assert known[f"{part}_index"][:first].tolist() == list(range(first))
    encoded = read_encoded(tasks.get("cifar-10-jpeg"))
    found = decode(encoded[f"{part}_jpeg"], encoded[f"{part}_offsets"][: first + 1]).astype(np.float64)
    original = known[f"{part}_images"][:first].transpose(0, 3, 1, 2)
    psnr = 10 * np.log10(255**2 / ((found - original) ** 2).mean(axis=(1, 2, 3)))
    assert psnr.min() > 20
    assert 29 < psnr.mean() < 32
    assert np.array_equal(encoded[f"{part}_labels"][:first], known[f"{part}_labels"][:first])


def test_the_digests_of_the_official_batches_are_those_of_the_known_originals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = lossless(need("cifar10-jpeg", monkeypatch))
    encoded = read_encoded(tasks.get("cifar-10-jpeg"))
    for number, batch in enumerate(BATCHES):
        part, start = ("train", 10_000 * number) if number < 5 else ("test", 0)
        labels = encoded[f"{part}_labels"][start : start + 10_000]
        assert hashlib.sha256(labels.tobytes()).hexdigest() == batch.labels
        places = np.flatnonzero(np.isin(known[f"{part}_index"], np.arange(start, start + KNOWN_RECORDS)))
        images = known[f"{part}_images"][places].transpose(0, 3, 1, 2).reshape(KNOWN_RECORDS, -1)
        records = np.concatenate([labels[:KNOWN_RECORDS, None], images], axis=1)
        assert hashlib.sha256(records.tobytes()).hexdigest() == batch.start
