"""IDX files: what is read, and what is refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from nirvana.errors import DataDamaged
from nirvana.tasks.arrays import parse_idx, read_idx_gz

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
HEADER = struct.pack(">IIII", 0x0803, 2, 3, 4)
CONTENT = HEADER + IMAGES.tobytes()


def test_an_idx_file_gives_its_array(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(CONTENT))
    assert np.array_equal(read_idx_gz(path, (2, 3, 4)), IMAGES)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "found 0 bytes, expected a header of 16"),
        (
            struct.pack(">IIII", 0x0801, 2, 3, 4) + IMAGES.tobytes(),
            "magic number 0x00000801, expected 0x00000803",
        ),
        (
            struct.pack(">IIII", 0x0803, 2, 3, 5) + IMAGES.tobytes(),
            r"dimensions \(2, 3, 5\), expected \(2, 3, 4\)",
        ),
        (CONTENT[:-1], "found 23 values, expected 24"),
        (CONTENT + b"x", "found 25 values, expected 24"),
    ],
)
def test_a_wrong_idx_file_is_refused_with_what_was_found(content: bytes, complaint: str) -> None:
    with pytest.raises(DataDamaged, match=complaint):
        parse_idx(content, (2, 3, 4), "images")


def test_a_truncated_gzip_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(CONTENT)[:-12])
    with pytest.raises(DataDamaged, match=r"images\.gz: found a broken gzip file"):
        read_idx_gz(path, (2, 3, 4))


def test_a_file_that_is_not_gzip_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(CONTENT)
    with pytest.raises(DataDamaged, match=r"images\.gz: found a broken gzip file"):
        read_idx_gz(path, (2, 3, 4))


def test_a_gzip_bomb_is_decompressed_no_further_than_the_array(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(CONTENT + bytes(50_000_000)))
    with pytest.raises(DataDamaged, match="found 25 values, expected 24"):
        read_idx_gz(path, (2, 3, 4))
