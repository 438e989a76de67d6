"""Every bad file of the issue, over HTTP: a typed answer, a pointer, and nothing stored."""

from __future__ import annotations

import io
import pickle  # noqa: TID251 - made here only to be refused
import time
import zipfile
from typing import Any

import numpy as np
import pytest
import zstandard

from nirvana.masks import mask_sha256
from tests.factories import make_ticket, put_together, take_apart
from tests.registry import Registry, pointers, problem

DATA = make_ticket().to_bytes()
STORED = make_ticket(stored=True).to_bytes()
MASK = "mask/fc1.weight"


def frame(body: bytes) -> Any:
    return np.frombuffer(zstandard.ZstdCompressor(level=19).compress(body), np.uint8)


def one_terabyte_header() -> bytes:
    return (10**12).to_bytes(8, "little") + DATA[8:]


def zstd_bomb() -> bytes:
    manifest, tensors = take_apart(DATA)
    return put_together(manifest, tensors | {MASK: frame(bytes(256 * 2**20))})


def with_mask(shape: tuple[int, ...], kept: int, said: int) -> bytes:
    manifest, tensors = take_apart(DATA)
    mask = np.zeros(shape, bool)
    mask.flat[:kept] = True
    manifest["masks"]["fc1.weight"] = {"kept": said, "encoding": "bits", "sha256": mask_sha256(mask)}
    return put_together(manifest, tensors | {MASK: frame(np.packbits(mask.ravel()).tobytes())})


def with_other_name() -> bytes:
    manifest, tensors = take_apart(DATA)
    manifest["masks"]["fc9.weight"] = manifest["masks"].pop("fc1.weight")
    tensors["mask/fc9.weight"] = tensors.pop(MASK)
    return put_together(manifest, tensors)


def with_nan() -> bytes:
    manifest, tensors = take_apart(STORED)
    name = next(name for name in tensors if name.startswith("initial/"))
    values = tensors[name].copy()
    values[0] = np.nan
    return put_together(manifest, tensors | {name: values})


def changed(*path: Any, to: Any) -> bytes:
    manifest, tensors = take_apart(DATA)
    place = manifest
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = to
    return put_together(manifest, tensors)


BAD: dict[str, tuple[Any, str | None]] = {
    "truncated": (lambda: DATA[: len(DATA) // 2], None),
    "empty": (lambda: b"", None),
    "a header that announces 1 TB": (one_terabyte_header, None),
    "a zstd bomb": (zstd_bomb, "/masks/fc1.weight"),
    "a mask of the wrong shape": (lambda: with_mask((16, 63), 9, 9), "/masks/fc1.weight"),
    "a mask of the wrong name": (with_other_name, "/masks/fc9.weight"),
    "a wrong popcount": (lambda: with_mask((16, 64), 9, 8), "/masks/fc1.weight"),
    "layer collapse": (lambda: with_mask((16, 64), 0, 0), "/masks/fc1.weight/kept"),
    "another digest of initial values": (
        lambda: changed("initial", "sha256", "fc1.weight", to="0" * 64),
        "/initial/sha256/fc1.weight",
    ),
    "not a number": (with_nan, "/initial"),
    "an unknown op": (
        lambda: changed("architecture", "nodes", 1, "op", to="exec"),
        "/architecture/nodes/1/op",
    ),
    "a cyclic graph": (
        lambda: changed("architecture", "nodes", 2, "inputs", to=["fc2"]),
        "/architecture/nodes/2/inputs",
    ),
    "10^9 parameters": (
        lambda: changed("architecture", "nodes", 1, "out", to=10**9),
        "/architecture/nodes",
    ),
    "a NUL character": (lambda: changed("license", to="CC\0BY"), "/license"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused_with_a_pointer_and_leaves_nothing(registry: Registry, what: str) -> None:
    make, pointer = BAD[what]
    data = make()
    began = time.monotonic()
    body = problem(registry.publish(data, "bad"), 422, "invalid-ticket")
    assert time.monotonic() - began < 5
    assert body["errors"]
    if pointer is not None:
        assert pointers(body)[0].startswith(pointer)
    assert registry.search() == []
    assert not list((registry.settings.home / "blobs").rglob("*.ticket"))


def test_a_pickle_is_refused_by_name_whatever_it_is_called(registry: Registry) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    for data in (pickle.dumps({"fc1.weight": 1}), zipped.getvalue()):
        assert "pickle" in problem(registry.publish(data, "bad"), 415, "unsupported-media")["detail"]
