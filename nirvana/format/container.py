"""The safetensors container, read strictly and written deterministically (docs/format.md, section 1).

The safetensors package writes metadata in an order that changes from run to run and lets a header announce
100 MB; a ticket needs the same bytes every time and a small cap, so these sixty lines are our own.
Files are interchangeable with the package's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import rfc8785
from numpy.typing import NDArray

from nirvana.errors import InvalidTicket, JsonObject

Array = NDArray[Any]  # of a type that a tensor may have

MAX_HEADER_BYTES = 4 * 2**20
PICKLE = "a pickle (or the zip file that torch.save writes), and loading one runs code: it is never read"
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
_ITEM_BYTES = {"F32": 4, "U8": 1, "BOOL": 1, "I64": 8, "I32": 4}
_DTYPE_NAMES = {"<f4": "F32", "|u1": "U8", "|b1": "BOOL", "<i8": "I64", "<i4": "I32"}


@dataclass(frozen=True)
class Tensor:
    """A tensor as it lies in the file, not yet checked."""

    dtype: str
    shape: tuple[int, ...]
    body: memoryview


def read_container(data: bytes | memoryview) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a safetensors file.

    Raises:
        InvalidTicket: anything but a whole, gapless file with a header of at most 4 MiB.
    """
    data = memoryview(data)
    if is_pickle(data):
        raise InvalidTicket(f"the file is {PICKLE}, expected a ticket")
    if len(data) < 8:
        raise InvalidTicket(f"the file has {len(data)} bytes, expected a safetensors header")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise InvalidTicket(
            f"the header says it has {length} bytes, expected at most {MAX_HEADER_BYTES}: "
            "not a ticket (a safetensors file), or a hostile one"
        )
    if length > len(data) - 8:
        raise InvalidTicket(f"the file is cut off: the header has {length} bytes, found {len(data) - 8}")
    header = parse_json(bytes(data[8 : 8 + length]), "the header")
    if not isinstance(header, dict):
        raise InvalidTicket(f"the header is {type(header).__name__}, expected an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise InvalidTicket("__metadata__ is not an object of strings")
    return metadata, _cut_tensors(header, data[8 + length :])


def is_pickle(data: bytes | memoryview) -> bool:
    """Tell whether these bytes begin as a pickle does, or a zip file, which is what torch.save writes.

    A header of 19,280 bytes begins with "PK" too; as the length of a header a pickle's start is huge.
    """
    return bytes(data[:2]) in _PICKLES and int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES


def parse_json(text: bytes, what: str) -> object:
    """Parse JSON of UTF-8 bytes, without duplicate keys, NaN or infinity.

    Raises:
        InvalidTicket: it is not that.
    """
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_number,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidTicket(f"{what} is not JSON: {str(error)[:200]}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return members


def _number(digits: str) -> int | float:
    """Return the number of JSON's digits.

    Canonical JSON writes 1e20 as digits, so an integer that a float64 may not hold exactly is a float.
    """
    value = float(digits)
    return int(value) if abs(value) < 2**53 else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _cut_tensors(header: JsonObject, body: memoryview) -> dict[str, Tensor]:
    spans = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise InvalidTicket(f"tensor {name[:200]!r}: expected exactly dtype, shape and data_offsets")
        spans[name] = _check_span(name[:200], entry)
    position = 0
    for name, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        if start != position:
            raise InvalidTicket(f"tensor {name[:200]!r} starts at {start}, expected {position}: no gaps")
        position = end
    if position != len(body):
        wrong = "is cut off" if position > len(body) else "has bytes after the last tensor"
        raise InvalidTicket(f"the file {wrong}: tensors end at {position}, the file at {len(body)}")
    return {
        name: Tensor(header[name]["dtype"], tuple(header[name]["shape"]), body[start:end])
        for name, (start, end) in spans.items()
    }


def _check_span(name: str, entry: JsonObject) -> tuple[int, int]:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise InvalidTicket(f"tensor {name!r} has dtype {dtype!r}, expected one of {list(_ITEM_BYTES)}")
    if not _naturals(shape) or len(shape) > 8 or not _naturals(offsets) or len(offsets) != 2:
        raise InvalidTicket(f"tensor {name!r}: shape or data_offsets is not a list of natural numbers")
    expected = math.prod(shape) * _ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != expected:
        span = offsets[1] - offsets[0]
        raise InvalidTicket(f"tensor {name!r} spans {span} bytes, its shape and dtype need {expected}")
    return offsets[0], offsets[1]


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**53 for n in value
    )


def write_container(metadata: Mapping[str, str], tensors: Mapping[str, Array]) -> bytes:
    """Return a safetensors file: the same bytes for the same content, whatever the order of the arguments."""
    header: JsonObject = {"__metadata__": dict(metadata)}
    bodies = []
    position = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        array = np.ascontiguousarray(tensors[name])
        body = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        header[name] = {
            "dtype": _DTYPE_NAMES[array.dtype.newbyteorder("<").str],
            "shape": list(array.shape),
            "data_offsets": [position, position + len(body)],
        }
        position += len(body)
        bodies.append(body)
    text = rfc8785.dumps(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(bodies)
