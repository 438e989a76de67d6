"""Masks: boolean arrays, True = kept. Encode, decode and count (docs/format.md, section 3).

zstandard is imported where a frame is written or read: the exported script counts masks and has none.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import InvalidTicket

Mask = NDArray[np.bool_]
ENCODINGS = ("bits", "gaps")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_LEVEL = 19
_REMEMBERED_BYTES = 1 << 20  # of the largest mask whose encoding is remembered
_MAX_WINDOW_BYTES = 128 * 2**20  # what level 19 and above may ask for; a hostile frame may ask for more
_STEP_BYTES = 256  # read at a time; four bytes of a frame can stand for 128 KiB, so a step for 8 MiB


def pack_bits(mask: Mask) -> bytes:
    """Return the canonical bits of a mask of any shape: eight elements a byte, first element highest."""
    return np.packbits(mask.ravel()).tobytes()


def unpack_bits(packed: bytes, shape: tuple[int, ...]) -> Mask:
    """Return the mask of `shape` whose canonical bits are `packed`.

    Raises:
        InvalidTicket: wrong length, or padding that is not zero.
    """
    total = math.prod(shape)
    if len(packed) != -(-total // 8):
        raise InvalidTicket(f"{len(packed)} bytes of mask, expected {-(-total // 8)} for shape {list(shape)}")
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    if bits[total:].any():
        raise InvalidTicket("the padding after the last element of the mask is not zero")
    return bits[:total].astype(bool).reshape(shape)


def mask_sha256(mask: Mask) -> str:
    """Return the hex sha256 of the canonical bits: a mask's identity, whatever its encoding."""
    return hashlib.sha256(pack_bits(mask)).hexdigest()


def encode(mask: Mask) -> tuple[str, bytes]:
    """Return the smaller encoding of a mask: its name and its zstd frame."""
    bits = pack_bits(mask)
    return (_encode if len(bits) <= _REMEMBERED_BYTES else _encode.__wrapped__)(bits, mask.shape)


@lru_cache(maxsize=32)
def _encode(bits: bytes, shape: tuple[int, ...]) -> tuple[str, bytes]:
    """Encode, and remember it: a ticket is written some three times while a search makes it."""
    import zstandard

    bodies = {"bits": bits, "gaps": _gap_bytes(unpack_bits(bits, shape))}
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True)
    frames = {name: compressor.compress(body) for name, body in bodies.items()}
    name = min(ENCODINGS, key=lambda encoding: len(frames[encoding]))
    return name, frames[name]


def decode(encoding: str, frame: bytes, shape: tuple[int, ...], kept: int) -> Mask:
    """Return the mask in a frame; what is allocated follows from `shape` and `kept`, never from the frame.

    Args:
        kept: elements kept as the manifest says; at most the size of `shape`.

    Raises:
        InvalidTicket: not one zstd frame, longer than it can be, or not a mask with `kept` elements.
    """
    total = math.prod(shape)
    if not 0 <= kept <= total:
        raise InvalidTicket(f"kept is {kept}, expected 0 to {total}")
    if encoding == "bits":
        mask = unpack_bits(_decompress(frame, -(-total // 8)), shape)
    elif encoding == "gaps":
        mask = _mask_of_gaps(_decompress(frame, kept + total // 255 + 1), total).reshape(shape)
    else:
        raise InvalidTicket(f"unknown encoding {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    if (ones := int(np.count_nonzero(mask))) != kept:
        raise InvalidTicket(f"the mask keeps {ones} elements, but kept is {kept}")
    return mask


def _gap_bytes(mask: Mask) -> bytes:
    """Write each kept element's distance from the one before, less one: q bytes of 255, a rest below 255."""
    kept = np.flatnonzero(mask)
    gaps = np.diff(kept, prepend=-1) - 1
    quotients, rests = np.divmod(gaps, 255)
    ends = np.cumsum(quotients + 1)
    body = np.full(int(ends[-1]) if len(ends) else 0, 255, np.uint8)
    body[ends - 1] = rests
    return body.tobytes()


def _mask_of_gaps(body: bytes, total: int) -> Mask:
    codes = np.frombuffer(body, np.uint8).astype(np.int64)
    if len(codes) and codes[-1] == 255:
        raise InvalidTicket("the gaps stop in the middle of a number")
    is_rest = codes < 255
    kept = np.cumsum(codes + is_rest)[is_rest] - 1
    if len(kept) and kept[-1] >= total:
        raise InvalidTicket(f"the gaps run to element {kept[-1]}, past the end of {total}")
    mask = np.zeros(total, bool)
    mask[kept] = True
    return mask


def _decompress(frame: bytes, limit: int) -> bytes:
    """Return the content of exactly one zstd frame, at most `limit` bytes of it held at any time."""
    import zstandard

    if frame[:4] != _ZSTD_MAGIC:
        raise InvalidTicket(f"the mask starts with {frame[:4].hex() or 'nothing'}, expected a zstd frame")
    try:
        declared = zstandard.get_frame_parameters(frame)
        if declared.dict_id:
            raise InvalidTicket("the mask's zstd frame needs a dictionary, expected none")
        if limit < declared.content_size != zstandard.CONTENTSIZE_UNKNOWN:
            raise InvalidTicket(
                f"the mask's zstd frame says {declared.content_size} bytes, expected at most {limit}"
            )
        return _read_frame(frame, limit)
    except zstandard.ZstdError as error:
        raise InvalidTicket(f"the mask is not one whole zstd frame: {error}") from None


def _read_frame(frame: bytes, limit: int) -> bytes:
    import zstandard

    reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
    body = bytearray()
    for start in range(0, len(frame), _STEP_BYTES):
        body += reader.decompress(frame[start : start + _STEP_BYTES])
        if len(body) > limit:
            raise InvalidTicket(f"the mask decodes to more than {limit} bytes, the most it can have")
        if reader.eof:
            if reader.unused_data or start + _STEP_BYTES < len(frame):
                raise InvalidTicket("there are bytes after the mask's zstd frame, expected exactly one frame")
            return bytes(body)
    raise InvalidTicket("the mask's zstd frame is cut off")


def kept_count(masks: Mapping[str, Mask], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the elements kept of the parameters of `shapes`; one without a mask is kept whole."""
    return sum(
        int(np.count_nonzero(masks[name])) if name in masks else math.prod(shape)
        for name, shape in shapes.items()
    )


def density(masks: Mapping[str, Mask], shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Return the share of the weights of `shapes` that is kept, in [0, 1]."""
    return kept_count(masks, shapes) / sum(math.prod(shape) for shape in shapes.values())
