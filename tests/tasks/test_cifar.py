"""The official binary batches of CIFAR-10, on small files of their format."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import DataDamaged, DataMissing
from nirvana.tasks.cifar import (
    ARCHIVE,
    BATCHES,
    FOLDER,
    Batch,
    decode,
    parse_batch,
    read_archive,
    read_batches,
)

RECORD = 3_073
TASK = tasks.get("cifar-10")


def content_of(number: int, records: int = 4) -> bytes:
    """Records whose first pixel is (batch number, 10 + record, 20) and whose label is the record's number."""
    table = np.zeros((records, RECORD), np.uint8)
    table[:, 0] = np.arange(records)
    table[:, 1], table[:, 1 + 1024], table[:, 1 + 2048] = number, 10 + np.arange(records), 20
    table[:, 2] = 99  # the pixel to the right of the first, red
    return table.tobytes()


def small(name: str, content: bytes) -> Batch:
    labels, start = (hashlib.sha256(part).hexdigest() for part in (content[::RECORD], content))
    return Batch(name, labels, start, len(content) // RECORD)


CONTENTS = {batch.name: content_of(number) for number, batch in enumerate(BATCHES)}
SMALL = [small(name, content) for name, content in CONTENTS.items()]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NIRVANA_DATA/cifar-10/cifar-10-batches-bin, with six small batches."""
    monkeypatch.setenv("NIRVANA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    made = tmp_path / "data" / "cifar-10" / FOLDER
    made.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (made / name).write_bytes(content)
    return made


def archive_of(contents: dict[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_a_record_is_a_label_and_three_planes_by_rows() -> None:
    images, labels = parse_batch(content_of(5), "batch", 4)
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == [0, 1, 2, 3]
    assert images[2, :, 0, 0].tolist() == [5, 12, 20]
    assert images[2, :, 0, 1].tolist() == [99, 0, 0]


@pytest.mark.parametrize("missing", [1, RECORD])
def test_a_truncated_batch_is_refused_with_both_sizes(missing: int) -> None:
    with pytest.raises(
        DataDamaged, match=rf"batch: found {12_292 - missing:,} bytes, expected 12,292: 4 rec"
    ):
        parse_batch(content_of(0)[:-missing], "batch", 4)


def test_a_batch_with_bytes_left_over_is_refused() -> None:
    with pytest.raises(DataDamaged, match="found 12,293 bytes, expected 12,292"):
        parse_batch(content_of(0) + b"x", "batch", 4)


def test_a_label_past_nine_is_refused_with_its_record() -> None:
    content = bytearray(content_of(0))
    content[2 * RECORD] = 10
    content[3 * RECORD] = 200
    with pytest.raises(DataDamaged, match=r"record 2 has the label 10, expected 0 to 9 \(2 of 4 are wrong\)"):
        parse_batch(bytes(content), "batch", 4)


def test_unpacked_batches_are_joined_in_their_order() -> None:
    images, labels, test_images, test_labels = read_batches(TASK, batches=SMALL)
    assert images[:, 0, 0, 0].tolist() == [number for number in range(5) for _ in range(4)]
    assert labels.tolist() == [0, 1, 2, 3] * 5
    assert test_images[:, 0, 0, 0].tolist() == [5] * 4
    assert test_labels.tolist() == [0, 1, 2, 3]


def test_batches_may_lie_beside_each_other_in_the_tasks_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(folder.parent / path.name)
    assert len(read_batches(TASK, batches=SMALL)[0]) == 20


def test_a_missing_batch_is_named(folder: Path) -> None:
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(
        DataMissing, match=r"found 5 of the 6 batches of cifar-10, expected data_batch_3\.bin"
    ):
        read_batches(TASK, batches=SMALL)


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [(0, 9, "the first 1,017 records"), (RECORD + 7, 1, "the first 1,017 records")],
)
def test_a_batch_that_is_not_the_official_one_is_refused_with_both_digests(
    folder: Path, place: int, value: int, what: str
) -> None:
    content = bytearray(CONTENTS["data_batch_2.bin"])
    content[place] = value
    (folder / "data_batch_2.bin").write_bytes(content)
    found, expected = hashlib.sha256(content).hexdigest(), SMALL[1].start
    match = rf"data_batch_2\.bin: found sha256:{found} of {what}, expected sha256:{expected}"
    with pytest.raises(DataDamaged, match=match):
        read_batches(TASK, batches=SMALL)


def test_other_labels_after_the_known_records_are_seen(folder: Path) -> None:
    content = content_of(0)
    batches = [Batch("data_batch_1.bin", "0" * 64, SMALL[0].start, 4), *SMALL[1:]]
    found = hashlib.sha256(content[::RECORD]).hexdigest()
    with pytest.raises(DataDamaged, match=f"found sha256:{found} of the labels, expected sha256:000"):
        read_batches(TASK, batches=batches)


def test_swapped_batches_are_refused(folder: Path) -> None:
    (folder / "data_batch_1.bin").write_bytes(CONTENTS["data_batch_2.bin"])
    with pytest.raises(DataDamaged, match=r"data_batch_1\.bin: found sha256"):
        read_batches(TASK, batches=SMALL)


def test_small_batches_are_not_taken_for_the_official_ones() -> None:
    with pytest.raises(
        DataDamaged, match=r"found 12,292 bytes, expected 30,730,000: 10,000 records of 3,073"
    ):
        tasks.load("cifar-10")


def test_an_archive_gives_its_batches_by_name(tmp_path: Path) -> None:
    path = archive_of(CONTENTS, tmp_path / "a.tar.gz")
    assert read_archive(path, list(CONTENTS)) == CONTENTS


def test_an_archive_without_a_batch_is_refused_by_name(tmp_path: Path) -> None:
    path = archive_of({"data_batch_1.bin": b"x"}, tmp_path / "a.tar.gz")
    with pytest.raises(DataDamaged, match=r"expected an archive with cifar-10-batches-bin/data_batch_2\.bin"):
        read_archive(path, list(CONTENTS))


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_truncated_archive_is_refused(tmp_path: Path, keep: int) -> None:
    path = archive_of(CONTENTS, tmp_path / "a.tar.gz")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataDamaged, match=r"a\.tar\.gz: found .*, expected an archive"):
        read_archive(path, list(CONTENTS))


def test_an_archive_of_another_checksum_is_refused_with_both(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    content = gzip.compress(b"another archive", mtime=0)
    (folder.parent / ARCHIVE.name).write_bytes(content)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    with pytest.raises(DataDamaged, match=f"found md5:{found}, expected {ARCHIVE.checksum}"):
        tasks.load("cifar-10")


def test_without_any_file_the_official_archive_is_asked_for(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(DataMissing, match=r"get it from https://www\.cs\.toronto\.edu/~kriz/cifar-10-binary"):
        tasks.load("cifar-10")


def test_jpegs_end_to_end_are_decoded_one_by_one() -> None:
    image = pytest.importorskip("PIL.Image")
    files = []
    for colour in ((200, 10, 10), (10, 10, 200)):
        stream = io.BytesIO()
        image.new("RGB", (32, 32), colour).save(stream, "JPEG", quality=95)
        files.append(stream.getvalue())
    offsets = np.cumsum([0, *map(len, files)])
    images = decode(np.frombuffer(b"".join(files), np.uint8), offsets)
    assert images.shape == (2, 3, 32, 32)
    assert np.abs(images[0].mean(axis=(1, 2)) - [200, 10, 10]).max() < 3
    assert np.abs(images[1].mean(axis=(1, 2)) - [10, 10, 200]).max() < 3
