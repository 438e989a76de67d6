"""CIFAR-10: the official binary batches, and a JPEG copy.

A batch is 10,000 records of 3,073 bytes: the label, then 1,024 bytes each of red, green and blue, by rows.
Only the archive has a published checksum. Batches that lie unpacked are held against the sha256 of all their
labels and of their first 1,017 records, whose original pixels are known; what follows is checked for size
alone.

Reference: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", and the data set's page.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import DataDamaged, DataMissing
from nirvana.tasks.files import Progress, SourceFile, missing_extra, named_folders, obtain
from nirvana.tasks.task import Array, Task

Bytes = NDArray[np.uint8]

FOLDER = "cifar-10-batches-bin"
ARCHIVE = SourceFile("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530", ())
JPEG = SourceFile(
    "cifar10_jpeg.npz", "sha256:793e4ede56cf08668e9ec4fe4093dc63e232294dde60bd5242b9cf980d116d97", ()
)
JPEG_FOLDERS = ("cifar10-jpeg",)
IMAGE = (3, 32, 32)
RECORDS = 10_000
KNOWN_RECORDS = 1_017
_RECORD_BYTES = 1 + 3 * 32 * 32


@dataclass(frozen=True)
class Batch:
    """One official file.

    Attributes:
        labels: hex sha256 of its labels.
        start: hex sha256 of its first 1,017 records.
    """

    name: str
    labels: str
    start: str
    records: int = RECORDS


BATCHES = (
    Batch(
        "data_batch_1.bin",
        "d829dbdf32167c9d7b3687cee66d92d80d46c441308b5aca0d11e8b69e27dac9",
        "ea2c7a46f23371a3f814ce8e198838201147e8e6d1f8a84baa3583ebbec03247",
    ),
    Batch(
        "data_batch_2.bin",
        "5d18f7371ed35ea9ade77952fe958b0660a45cd6c8b8a8970030f21612cfd7e3",
        "57dc4e8db7ddc925938d1f2821ee0b499020fa077bedd98d88e6459c7cacb2ab",
    ),
    Batch(
        "data_batch_3.bin",
        "32cf77b0ee2e790b1c4384d2d82e42dc1571b87e67f6da8f444b2725b2973f65",
        "be335161c2afa9c985a48c2dec47238b9438dd6686773cc9725a5bfc8217e3f2",
    ),
    Batch(
        "data_batch_4.bin",
        "d2815e3f8f656272864920fc0edde56b04ec9cf81bf397c0dd3069f4aea51aeb",
        "34046a49d60fa18b42147571ad4e995a81c77fb47b46fef2e0798d19c0a30303",
    ),
    Batch(
        "data_batch_5.bin",
        "2ddf3ab27d5d04409c94ce7b56849c243129c10de1058ae0bfe14c77e934800c",
        "e04d47eac99eb22c5406c696680423d9d7ff080be029363b6c6b947c5165f985",
    ),
    Batch(
        "test_batch.bin",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        "c77ad46116beb3508f55d38aa34893560beae9515f9aca4a4dd0ea3617ac289e",
    ),
)


def parse_batch(content: bytes, name: str, records: int = RECORDS) -> tuple[Bytes, Bytes]:
    """Return images (records, 3, 32, 32) and labels (records,) of a binary batch.

    Raises:
        DataDamaged: another size, or a label that is not 0 to 9; says which record.
    """
    expected = records * _RECORD_BYTES
    if len(content) != expected:
        raise DataDamaged(
            f"{name}: found {len(content):,} bytes, expected {expected:,}: {records:,} records of "
            f"{_RECORD_BYTES:,}"
        )
    table = np.frombuffer(content, np.uint8).reshape(records, _RECORD_BYTES)
    images, labels = table[:, 1:].reshape(records, *IMAGE), table[:, 0]
    wrong = np.flatnonzero(labels > 9)
    if len(wrong):
        raise DataDamaged(
            f"{name}: record {wrong[0]} has the label {labels[wrong[0]]}, expected 0 to 9 "
            f"({len(wrong):,} of {records:,} are wrong)"
        )
    return images, labels


def check_batch(content: bytes, batch: Batch, name: str) -> None:
    """Hold a batch against what is known of the official one.

    Raises:
        DataDamaged: other labels or other first records; with both digests.
    """
    expectations = {
        f"the first {KNOWN_RECORDS:,} records": (content[: KNOWN_RECORDS * _RECORD_BYTES], batch.start),
        "the labels": (content[::_RECORD_BYTES], batch.labels),
    }
    for what, (part, expected) in expectations.items():
        digest = hashlib.sha256(part).hexdigest()
        if digest != expected:
            raise DataDamaged(
                f"{name}: found sha256:{digest} of {what}, expected sha256:{expected}; remove it or mend it"
            )


def read_batches(
    task: Task, progress: Progress | None = None, batches: Sequence[Batch] = BATCHES
) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Read train images and labels, test images and labels: from unpacked batches, or from the archive.

    Raises:
        DataMissing: neither is here and the archive cannot be downloaded, or a batch is missing.
        DataDamaged: a file is not the official one.
    """
    folder = _find_folder(task.name, batches)
    if folder:
        contents = {batch.name: (folder / batch.name).read_bytes() for batch in batches}
        where = str(folder)
    else:
        archive = obtain(task.name, ARCHIVE, task.homes, progress)
        contents, where = read_archive(archive, [batch.name for batch in batches]), str(archive)
    parts = []
    for batch in batches:
        name = f"{where}/{batch.name}"
        parts.append(parse_batch(contents[batch.name], name, batch.records))
        check_batch(contents[batch.name], batch, name)
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
    return images, labels, *parts[-1]


def _find_folder(task: str, batches: Sequence[Batch]) -> Path | None:
    """Return the folder of the unpacked batches, or None where there is not one of them."""
    for place in named_folders([task]):
        for folder in (place / FOLDER, place):
            missing = [batch.name for batch in batches if not (folder / batch.name).is_file()]
            if missing and len(missing) < len(batches):
                raise DataMissing(
                    f"{folder}: found {len(batches) - len(missing)} of the {len(batches)} batches of {task}, "
                    f"expected {', '.join(missing)} too"
                )
            if not missing:
                return folder
    return None


def read_archive(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Read the batches in the official .tar.gz, by name; nothing is unpacked to the disk.

    Raises:
        DataDamaged: it is not such an archive, or a batch is not in it.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for name in names:
                stream = archive.extractfile(f"{FOLDER}/{name}")
                if stream is None:
                    raise KeyError(name)
                contents[name] = stream.read(RECORDS * _RECORD_BYTES + 1)
    except (tarfile.TarError, KeyError, EOFError, zlib.error, OSError) as error:
        wanted = next((name for name in names if name not in contents), names[-1])
        raise DataDamaged(f"{path}: found {error}, expected an archive with {FOLDER}/{wanted}") from error
    return contents


def read_encoded(task: Task, source: SourceFile = JPEG) -> dict[str, Array]:
    """Read the arrays of the JPEG copy, images still encoded: for train and test, `*_jpeg` holds all files
    end to end, `*_offsets` (n + 1) where each begins, `*_labels` (n,).

    Raises:
        DataMissing, DataDamaged: it is not here, or is another file.
    """
    with np.load(obtain(task.name, source, task.homes, None, JPEG_FOLDERS), allow_pickle=False) as arrays:
        return dict(arrays)


def read_jpegs(task: Task) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Read train images and labels, test images and labels of the JPEG copy; decoding takes some seconds.

    Raises:
        Unavailable: Pillow is not installed. DataMissing, DataDamaged: as in `read_encoded`.
    """
    arrays = read_encoded(task)
    train, test = (decode(arrays[f"{part}_jpeg"], arrays[f"{part}_offsets"]) for part in ("train", "test"))
    return train, arrays["train_labels"], test, arrays["test_labels"]


def decode(jpegs: Bytes, offsets: NDArray[np.int64]) -> Bytes:
    """Decode to images (n, 3, 32, 32) n JPEG files end to end; image i is jpegs[offsets[i]:offsets[i + 1]].

    Raises:
        Unavailable: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise missing_extra(error, "decoding JPEG") from None
    content = jpegs.tobytes()
    images = np.empty((len(offsets) - 1, *IMAGE), np.uint8)
    for place, (start, end) in enumerate(pairwise(offsets)):
        with Image.open(io.BytesIO(content[start:end])) as image:
            images[place] = np.asarray(image).transpose(2, 0, 1)
    return images
