"""A task's arrays: read once a process, split and normalised."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana import environment
from nirvana.initial import epoch_order
from nirvana.tasks.catalogue import DIGITS, SOURCE_FILES, TASKS
from nirvana.tasks.cifar import read_batches, read_jpegs
from nirvana.tasks.files import Progress, obtain
from nirvana.tasks.idx import read_idx_gz
from nirvana.tasks.task import ByteData, Task, TaskData

Bytes = NDArray[np.uint8]
SPLITS = ("train", "validation", "test")


def load_arrays(task: Task, progress: Progress | None = None) -> TaskData:
    """The arrays of `task`, cached in this process for the folders that the environment names now.

    Raises:
        DataMissing: a file is nowhere on this machine and cannot be downloaded.
        DataDamaged: a file is not the published one.
    """
    key = (task.name, task.data_sha256, environment.data_folder(), environment.home())
    if key not in _cache:
        while len(_cache) >= _CACHE_TASKS:
            _cache.pop(next(iter(_cache)))
        _cache[key] = _read(task, progress)
    return _cache[key]


def load_byte_arrays(task: Task, progress: Progress | None = None) -> ByteData | None:
    """The arrays of `task` as bytes, read anew at each call; None where its raw values are no bytes.

    What is read is not copied: train and validation are views of the published training set.

    Raises:
        DataMissing, DataDamaged: as `load_arrays`.
    """
    parts = _read_raw(task, progress)
    if parts[0].dtype != np.uint8:
        return None
    a, c, e = (x.reshape(-1, *task.input_shape) for x in parts[::2])
    b, d, f = (y.astype(np.int64) for y in parts[1::2])
    return ByteData(a, b, c, d, e, f, *task.scale_and_shift())


def load_raw_split(
    task: Task, split: str, progress: Progress | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Raw x, (n, *input_shape), and y, (n,), of a split, read anew at each call.

    Raises:
        DataMissing, DataDamaged: as `load_arrays`.
    """
    place = 2 * list(SPLITS).index(split)
    parts = _read_raw(task, progress)
    return parts[place].reshape(-1, *task.input_shape), parts[place + 1].astype(np.int64)


def _read_raw(task: Task, progress: Progress | None) -> tuple[NDArray[Any], ...]:
    """x and y of the train, validation and test parts, as they were read."""
    if task.name not in TASKS:
        from nirvana.tasks.stored import read_raw_split

        return read_raw_split(task)
    if task is DIGITS:
        images, labels = read_digits()
        return tuple(array[part] for part in _digit_parts(len(images)) for array in (images, labels))
    images, labels, test_images, test_labels = read_published(task, progress)
    train = task.sizes["train"]
    return images[:train], labels[:train], images[train:], labels[train:], test_images, test_labels


def _read(task: Task, progress: Progress | None) -> TaskData:
    if task.name not in TASKS:
        from nirvana.tasks.stored import read_split

        return read_split(task)
    return _split_digits() if task is DIGITS else _split_published(task, progress)


_CACHE_TASKS = 2
_cache: dict[tuple[str, str | None, Path | None, Path], TaskData] = {}


@lru_cache(maxsize=1)
def read_digits() -> tuple[Bytes, Bytes]:
    """The embedded digits: images (1797, 8, 8) with values 0..16, labels (1797,)."""
    with resources.files("nirvana.tasks").joinpath("data/digits.npz").open("rb") as stream:
        arrays = np.load(stream, allow_pickle=False)
        return arrays["images"], arrays["labels"]


def read_published(task: Task, progress: Progress | None = None) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Train images, train labels, test images and test labels as published, uint8."""
    if task.name == "cifar-10":
        return read_batches(task, progress)
    if task.name == "cifar-10-jpeg":
        return read_jpegs(task)
    files = SOURCE_FILES[task.name]
    paths = [obtain(task.name, source, task.homes, progress) for source in files]
    images, labels, test_images, test_labels = (
        read_idx_gz(path, source.shape) for path, source in zip(paths, files, strict=True)
    )
    return images, labels, test_images, test_labels


def arrays_sha256(*arrays: Bytes) -> str:
    """sha256 of the arrays' bytes, one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _digit_parts(n: int) -> tuple[NDArray[np.int64], ...]:
    """Which digits train, validate and test."""
    order = epoch_order(0, 0, n)
    train = DIGITS.sizes["train"]
    validation = train + DIGITS.sizes["validation"]
    return order[:train], order[train:validation], order[validation:]


def _split_digits() -> TaskData:
    images, labels = read_digits()
    (a, b), (c, d), (e, f) = (
        (DIGITS.normalise(images[part]), labels[part].astype(np.int64)) for part in _digit_parts(len(images))
    )
    return TaskData(a, b, c, d, e, f)


def _split_published(task: Task, progress: Progress | None) -> TaskData:
    images, labels, test_images, test_labels = read_published(task, progress)
    train = task.sizes["train"]
    targets = labels.astype(np.int64)
    return TaskData(
        task.normalise(images[:train]),
        targets[:train],
        task.normalise(images[train:]),
        targets[train:],
        task.normalise(test_images),
        test_labels.astype(np.int64),
    )
