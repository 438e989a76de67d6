"""A task's arrays: read once a process, split and normalised."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nirvana import environment
from nirvana.initial import epoch_order
from nirvana.tasks.catalogue import DIGITS, SOURCE_FILES, TASKS
from nirvana.tasks.cifar import read_batches, read_jpegs
from nirvana.tasks.files import Progress, obtain
from nirvana.tasks.idx import read_idx_gz
from nirvana.tasks.task import Task, TaskData

Bytes = NDArray[np.uint8]


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


def _split_digits() -> TaskData:
    images, labels = read_digits()
    order = epoch_order(0, 0, len(images))
    train = DIGITS.sizes["train"]
    validation = train + DIGITS.sizes["validation"]
    parts = (order[:train], order[train:validation], order[validation:])
    (a, b), (c, d), (e, f) = (
        (DIGITS.normalise(images[part]), labels[part].astype(np.int64)) for part in parts
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
