"""A task's arrays: read once a process, split and normalised; and the IDX files of MNIST and its relatives.

An IDX file is a magic number, big-endian dimensions and bytes.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nirvana import environment
from nirvana.errors import DataDamaged
from nirvana.tasks.catalogue import DIGITS, SOURCE_FILES, TASKS
from nirvana.tasks.cifar import read_batches, read_jpegs
from nirvana.tasks.files import Progress, obtain
from nirvana.tasks.own import read_own, read_own_seal
from nirvana.tasks.task import PARTS, Array, Task
from nirvana.training.spec import ByteData, SealedRows, TaskData

Bytes = NDArray[np.uint8]

_UNSIGNED_BYTES = 0x08
_CACHE_TASKS = 2
_cache: dict[tuple[str | Path | None, ...], TaskData] = {}


def load_arrays(task: Task, progress: Progress | None = None) -> TaskData:
    """Return the arrays of `task`, cached in this process for the folders that the environment names now.

    Raises:
        DataMissing: a file is nowhere on this machine and cannot be downloaded.
        DataDamaged: a file is not the published one.
    """
    folders = (environment.data_folder(), environment.tasks_folder(), environment.home())
    key = (task.name, task.data_sha256, *folders)
    if key not in _cache:
        while len(_cache) >= _CACHE_TASKS:
            _cache.pop(next(iter(_cache)))
        parts = _read_raw(task, progress)
        a, c, e = (task.normalise(x) for x in parts[::2])
        b, d, f = (y.astype(np.int64) for y in parts[1::2])
        _cache[key] = TaskData(a, b, c, d, e, f)
    return _cache[key]


def load_byte_arrays(task: Task, progress: Progress | None = None) -> ByteData | None:
    """Return the arrays of `task` as bytes, read anew at each call; None where its raw values are no bytes.

    They are not copied: train and validation are views of the published training set.

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
) -> tuple[Array, NDArray[np.int64]]:
    """Return raw x, (n, *input_shape), and y, (n,), of a split, read anew at each call.

    Raises:
        DataMissing, DataDamaged: as `load_arrays`.
    """
    place = 2 * PARTS.index(split)
    parts = _read_raw(task, progress)
    return parts[place].reshape(-1, *task.input_shape), parts[place + 1].astype(np.int64)


def _read_raw(task: Task, progress: Progress | None) -> tuple[Array, ...]:
    """Return x and y of the train, validation and test parts, as they were read."""
    if task.name not in TASKS:
        return read_own(task)
    train, validation = task.sizes["train"], task.sizes["validation"]
    if task is DIGITS:
        images, labels = read_digits()
        starts = (train, train + validation)
        parts = zip(np.split(images, starts), np.split(labels, starts), strict=True)
        return tuple(array for part in parts for array in part)
    images, labels, test_images, test_labels = read_published(task, progress)
    return images[:train], labels[:train], images[train:], labels[train:], test_images, test_labels


def load_sealed_rows(task: Task) -> SealedRows | None:
    """Return the rows of a task that are sealed, normalised; None where it has none.

    Raises:
        DataMissing: they are not here, DataDamaged: nor the ones that were sealed.
    """
    if task.seal is None:
        return None
    x, y = read_digits("digits-sealed") if task is DIGITS else read_own_seal(task)
    return SealedRows(task.normalise(x), y.astype(np.int64))


@lru_cache(maxsize=2)
def read_digits(name: str = "digits") -> tuple[Bytes, Bytes]:
    """Return embedded digits, `digits` or `digits-sealed`, in the order of the task's split: images
    (n, 8, 8) with values 0..16, labels (n,)."""
    with resources.files("nirvana.tasks").joinpath(f"data/{name}.npz").open("rb") as stream:
        arrays = np.load(stream, allow_pickle=False)
        return arrays["images"], arrays["labels"]


def read_published(task: Task, progress: Progress | None = None) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Return train images, train labels, test images and test labels as published, uint8."""
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


def parse_idx(content: bytes, shape: tuple[int, ...], name: str) -> NDArray[np.uint8]:
    """Return the array of an IDX file.

    Args:
        content: the whole file, decompressed.
        shape: the shape it must have.
        name: what an error calls the file.

    Raises:
        DataDamaged: another magic number, other dimensions, or bytes missing or left over.
    """
    dimensions = len(shape)
    header_bytes = 4 + 4 * dimensions
    if len(content) < header_bytes:
        raise DataDamaged(f"{name}: found {len(content)} bytes, expected a header of {header_bytes}")
    magic = struct.unpack(">I", content[:4])[0]
    expected_magic = _UNSIGNED_BYTES << 8 | dimensions
    if magic != expected_magic:
        raise DataDamaged(f"{name}: found the magic number {magic:#010x}, expected {expected_magic:#010x}")
    stored_shape = struct.unpack(f">{dimensions}I", content[4:header_bytes])
    if stored_shape != shape:
        raise DataDamaged(f"{name}: found the dimensions {stored_shape}, expected {shape}")
    size = int(np.prod(shape))
    if len(content) - header_bytes != size:
        raise DataDamaged(f"{name}: found {len(content) - header_bytes} values, expected {size}")
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape)


def read_idx_gz(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the array of a gzipped IDX file; no more is decompressed than `shape` needs.

    Raises:
        DataDamaged: the file is not gzip, ends too early, or is not the IDX file of `shape`.
    """
    most = 4 + 4 * len(shape) + int(np.prod(shape)) + 1
    try:
        with gzip.open(path) as stream:
            content = stream.read(most)
            if len(content) < most:
                stream.read(1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataDamaged(f"{path}: found a broken gzip file ({error}), expected a whole one") from error
    return parse_idx(content, shape, str(path))
