"""The IDX files of MNIST and its relatives: a magic number, big-endian dimensions, bytes."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import DataDamaged

_UNSIGNED_BYTES = 0x08


def parse_idx(content: bytes, shape: tuple[int, ...], name: str) -> NDArray[np.uint8]:
    """The array of an IDX file.

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
    found = struct.unpack(f">{dimensions}I", content[4:header_bytes])
    if found != shape:
        raise DataDamaged(f"{name}: found the dimensions {found}, expected {shape}")
    size = int(np.prod(shape))
    if len(content) - header_bytes != size:
        raise DataDamaged(f"{name}: found {len(content) - header_bytes} values, expected {size}")
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape)


def read_idx_gz(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array of a gzipped IDX file; no more is decompressed than `shape` needs.

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
