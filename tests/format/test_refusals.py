"""Every refusal of docs/format.md, section 6, each with its pointer and code; and what hostile files cost."""

from __future__ import annotations

import copy
import json
import math
import pickle  # noqa: TID251 - made here only to be refused
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rfc8785
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from nirvana.errors import InvalidTicket
from nirvana.format.container import write_container
from nirvana.format.lint import lint
from nirvana.format.masks import mask_sha256
from nirvana.format.reader import Limits
from nirvana.format.ticket import Ticket
from tests.factories import make_ticket, put_together, take_apart

TICKET = make_ticket()
DATA = TICKET.to_bytes()
STORED = make_ticket(stored=True).to_bytes()

Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def refusal(data: bytes) -> list[tuple[str, str]]:
    """Pointers and codes with which a file is refused."""
    with pytest.raises(InvalidTicket) as caught:
        Ticket.from_bytes(data)
    report = lint(data)
    assert not report.ok
    assert report.errors == caught.value.errors
    return [(problem.pointer, problem.code) for problem in caught.value.errors]


def changed(change: Change, data: bytes = DATA) -> bytes:
    manifest, tensors = copy.deepcopy(take_apart(data))
    change(manifest, tensors)
    return put_together(manifest, tensors)


def at(path: str, value: Any) -> Change:
    """A change that sets one place of the manifest (`value` is DELETE to take it out)."""

    def change(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
        place: Any = manifest
        *parents, last = (int(part) if part.isdigit() else part for part in path.strip("/").split("/"))
        for part in parents:
            place = place[part]
        if value is DELETE:
            del place[last]
        else:
            place[last] = value

    return change


DELETE = object()
FC1 = "masks/fc1.weight"


def frame_of(body: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(zstandard.ZstdCompressor(level=19).compress(body), np.uint8)


def replace_mask(kept: int, mask: Any) -> Change:
    def change(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
        manifest["masks"]["fc1.weight"] = {"kept": kept, "encoding": "bits", "sha256": mask_sha256(mask)}
        tensors["mask/fc1.weight"] = frame_of(np.packbits(mask.ravel()).tobytes())

    return change


MANIFEST_CHANGES: list[tuple[Change, str, str]] = [
    (at("format", "nirvana.ticket/2"), "/format", "format-version"),
    (at("surprise", 1), "/surprise", "unknown-field"),
    (at("task", DELETE), "/task", "missing"),
    (at("task", "Not A Task"), "/task", "value"),
    (at("recipe", []), "/recipe", "value"),
    (at("description", "x" * 65_537), "/description", "value"),
    (at("claims", [{"task": "mnist"}]), "/claims/0/metric", "missing"),
    (
        at("claims", [{"task": "a", "metric": "b", "value": True, "replicates": 1}]),
        "/claims/0/value",
        "value",
    ),
    (at("architecture/nodes/1/op", "exec"), "/architecture/nodes/1/op", "unknown-op"),
    (at("architecture/nodes/1/in", 63), "/architecture/nodes/1", "shape"),
    (at("architecture/nodes/2/inputs", ["fc2"]), "/architecture/nodes/2/inputs", "read-before-defined"),
    (at("architecture/nodes/1/bias", True), "/architecture/nodes/1/bias", "spelled-out-default"),
    (at("architecture/nodes/1/out", 17), "/architecture/nodes/3", "shape"),
    (at("architecture/nodes/1/out", 10**9), "/architecture/nodes", "too-many-parameters"),
    (at("prunable", ["fc2.weight", "fc1.weight"]), "/prunable", "order"),
    (at("prunable", ["fc1.weight", "fc1.weight"]), "/prunable", "order"),
    (at("prunable", []), "/prunable", "order"),
    (at("prunable", ["fc1.bias"]), "/prunable/0", "not-prunable"),
    (at("prunable", ["fc9.weight"]), "/prunable/0", "unknown-parameter"),
    (at("prunable", ["fc2.weight"]), "/masks/fc1.weight", "not-prunable"),
    (
        at("masks/fc1.bias", {"kept": 1, "encoding": "bits", "sha256": "0" * 64}),
        "/masks/fc1.bias",
        "not-prunable",
    ),
    (at(f"{FC1}/kept", 10**6), "/masks/fc1.weight/kept", "mask-popcount"),
    (at(f"{FC1}/kept", -1), "/masks/fc1.weight/kept", "mask-popcount"),
    (at(f"{FC1}/kept", 204), "/masks/fc1.weight", "mask-popcount"),
    (at(f"{FC1}/kept", 0), "/masks/fc1.weight/kept", "layer-collapse"),
    (at(f"{FC1}/encoding", "rle"), "/masks/fc1.weight/encoding", "unknown-encoding"),
    (at(f"{FC1}/encoding", "bits"), "/masks/fc1.weight", "mask-encoding"),
    (at(f"{FC1}/encoding", DELETE), "/masks/fc1.weight/encoding", "missing"),
    (at(f"{FC1}/sha256", "0" * 64), "/masks/fc1.weight/sha256", "mask-digest"),
    (at(f"{FC1}/sha256", "F" * 64), "/masks/fc1.weight/sha256", "value"),
    (at(f"{FC1}/code", "x"), "/masks/fc1.weight/code", "unknown-field"),
    (at("masks/fc1.weight", DELETE), "/mask/fc1.weight", "tensor-unexpected"),
    (at("initial/kind", "magic"), "/initial/kind", "value"),
    (at("initial/kind", "stored"), "/initial/fc1.weight", "tensor-missing"),
    (at("initial/scheme", "mt19937"), "/initial/scheme", "unknown-scheme"),
    (at("initial/scheme", DELETE), "/initial/scheme", "missing"),
    (at("initial/seed", 17), "/initial/seed", "seed"),
    (at("initial/seed", "017"), "/initial/seed", "seed"),
    (at("initial/seed", "-1"), "/initial/seed", "seed"),
    (at("initial/seed", str(2**64)), "/initial/seed", "seed"),
    (at("initial/seed", "18"), "/initial/sha256/fc1.weight", "initial-digest"),
    (at("initial/rewind_step", -1), "/initial/rewind_step", "value"),
    (at("initial/rewind_step", 0.5), "/initial/rewind_step", "value"),
    (at("initial/rewind_step", 5), "/initial/rewind_step", "value"),
    (at("initial/laws/fc1.weight", "chaos"), "/initial/laws/fc1.weight", "unknown-law"),
    (at("initial/laws/fc1.weight", DELETE), "/initial/laws/fc1.weight", "missing"),
    (at("initial/laws/fc1.bias", "glorot_normal"), "/initial/laws/fc1.bias", "unknown-law"),
    (at("initial/laws/fc9.bias", "zeros"), "/initial/laws/fc9.bias", "unknown-parameter"),
    (at("initial/sha256/fc2.bias", DELETE), "/initial/sha256/fc2.bias", "missing"),
    (at("initial/sha256/fc2.weight", "0" * 64), "/initial/sha256/fc2.weight", "initial-digest"),
    (replace_mask(0, np.zeros((16, 64), bool)), "/masks/fc1.weight/kept", "layer-collapse"),
    (replace_mask(3, np.eye(16, 64, dtype=bool)), "/masks/fc1.weight", "mask-popcount"),
    (replace_mask(16, np.eye(32, 64, dtype=bool)), "/masks/fc1.weight", "mask-encoding"),
    (replace_mask(8, np.eye(8, 64, dtype=bool)), "/masks/fc1.weight", "mask-encoding"),
]


@pytest.mark.parametrize(("change", "pointer", "code"), MANIFEST_CHANGES)
def test_a_broken_manifest_is_refused_where_it_is_broken(change: Change, pointer: str, code: str) -> None:
    assert (pointer, code) in refusal(changed(change))


def drop_tensor(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
    del tensors["mask/fc1.weight"]


def add_tensor(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["extra"] = np.zeros(3, np.float32)


def two_dimensions(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["mask/fc1.weight"] = tensors["mask/fc1.weight"][None]


def two_frames(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["mask/fc1.weight"] = np.concatenate([tensors["mask/fc1.weight"], frame_of(b"")])


def zstd_bomb(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["mask/fc1.weight"] = frame_of(bytes(2**26))


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        (drop_tensor, "/mask/fc1.weight", "tensor-missing"),
        (add_tensor, "/extra", "tensor-unexpected"),
        (two_dimensions, "/mask/fc1.weight", "tensor-type"),
        (two_frames, "/masks/fc1.weight", "mask-encoding"),
        (zstd_bomb, "/masks/fc1.weight", "mask-encoding"),
    ],
)
def test_broken_tensors_are_refused_by_name(change: Change, pointer: str, code: str) -> None:
    assert (pointer, code) in refusal(changed(change))


def set_value(value: float) -> Change:
    def change(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors["initial/fc2.weight"] = tensors["initial/fc2.weight"].copy()
        place = int(np.flatnonzero(make_ticket().mask("fc2.weight"))[0])
        tensors["initial/fc2.weight"][place] = value

    return change


def cut_values(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["initial/fc2.weight"] = tensors["initial/fc2.weight"][:-1]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        (set_value(math.nan), "/initial/fc2.weight", "not-finite"),
        (set_value(math.inf), "/initial/fc2.weight", "not-finite"),
        (set_value(0.5), "/initial/sha256/fc2.weight", "initial-digest"),
        (cut_values, "/initial/fc2.weight", "initial-length"),
    ],
)
def test_broken_stored_values_are_refused_by_name(change: Change, pointer: str, code: str) -> None:
    assert (pointer, code) in refusal(changed(change, STORED))


def test_manifest_bytes_must_be_the_canonical_form() -> None:
    manifest, tensors = take_apart(DATA)
    canonical = rfc8785.dumps(manifest).decode()
    spaced = json.dumps(manifest, sort_keys=True)
    unsorted = json.dumps(dict(reversed(manifest.items())), separators=(",", ":"))
    number = canonical.replace('"batch_size":60', '"batch_size":60.0')
    escaped = canonical.replace("Ada", "\\u0041da")
    for text in (spaced, unsorted, number, escaped):
        assert refusal(put_together(manifest, tensors, text=text)) == [("", "not-canonical")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"batch_size":60', '"batch_size":60,"batch_size":60'),
        ('"batch_size":60', '"batch_size":NaN'),
        ('"batch_size":60', '"batch_size":1e999'),
        ('"batch_size":60', '"batch_size":' + "9" * 5000),
        ('"batch_size":60', '"batch_size":' + "[" * 100_000),
        ('"batch_size":60', '"batch_size":"\\ud800"'),
        ('"batch_size":60', '"batch_size":12345678901234567890'),
        ('"format"', "format"),
    ],
)
def test_manifest_text_that_is_no_strict_json_is_refused(old: str, new: str) -> None:
    manifest, tensors = take_apart(DATA)
    text = rfc8785.dumps(manifest).decode().replace(old, new)
    assert refusal(put_together(manifest, tensors, text=text))


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"format": "nirvana.ticket/1"},
        {"format": "nirvana.ticket/9", "manifest": "{}"},
        {"format": "nirvana.ticket/1", "manifest": "{}", "code": "x"},
        {"format": "nirvana.ticket/1", "manifest": "[]"},
        {"format": "nirvana.ticket/1", "manifest": ""},
    ],
)
def test_other_metadata_is_refused(metadata: dict[str, str]) -> None:
    assert refusal(write_container(metadata, {}))


def header(fields: Any, body: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"1234567", "7 bytes"),
        (DATA[:100], "cut off"),
        (DATA[:-1], "cut off"),
        (DATA + b"x", "bytes after the last tensor"),
        ((10**12).to_bytes(8, "little") + b"{}", "header says it has 1000000000000 bytes"),
        ((2**64 - 1).to_bytes(8, "little"), "header says"),
        (pickle.dumps({"state": [1, 2, 3]}), "a pickle"),
        (pickle.dumps(dict.fromkeys(range(9)), protocol=2), "a pickle"),
        (b"PK\x03\x04\x14\x00\x00\x08\x08\x00" + bytes(100), "a pickle"),
        (header([]), "header is list"),
        (header({"__metadata__": {"format": 1}}), "not an object of strings"),
        (header({"a": {"dtype": "F32"}}), "exactly dtype, shape and data_offsets"),
        (header({"a": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}), "dtype 'F16'"),
        (header({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 3]}}, b"abc"), "spans 3 bytes"),
        (header({"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, -1]}}), "natural numbers"),
        (header({"a": {"dtype": "U8", "shape": [3], "data_offsets": [1, 4]}}, b"abcd"), "no gaps"),
        (header({"a": {"dtype": "U8", "shape": [2**52], "data_offsets": [0, 2**52]}}), "cut off"),
        ((3).to_bytes(8, "little") + b'{"a', "not JSON"),
        ((4).to_bytes(8, "little") + b"\xff\xfe{}", "not JSON"),
    ],
)
def test_what_is_no_whole_safetensors_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidTicket, match=message):
        Ticket.from_bytes(data)


@pytest.mark.parametrize("length", [0x4B50, 0x8000 + 0x580])
def test_a_header_whose_length_reads_like_a_pickle_or_a_zip_is_none(length: int) -> None:
    bare = int.from_bytes(make_ticket(description="").to_bytes()[:8], "little")
    data = make_ticket(description="x" * (length - bare)).to_bytes()
    assert int.from_bytes(data[:8], "little") == length
    assert lint(data).ok


def test_a_billion_parameters_cost_nothing() -> None:
    manifest, tensors = take_apart(DATA)
    manifest["architecture"]["nodes"][1]["out"] = 10**8
    manifest["architecture"]["nodes"][3]["in"] = 10**8
    data = put_together(manifest, tensors)
    tracemalloc.start()
    started = time.monotonic()
    assert refusal(data) == [("/architecture/nodes", "too-many-parameters")]
    assert tracemalloc.get_traced_memory()[1] < 2**20
    assert time.monotonic() - started < 5
    tracemalloc.stop()


def test_the_parameter_cap_is_the_readers() -> None:
    with pytest.raises(InvalidTicket, match="1040 parameters up to fc1, expected at most 1000"):
        Ticket.from_bytes(DATA, Limits(max_parameters=1000))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_are_refused_or_change_neither_masks_nor_values(data: st.DataObject) -> None:
    broken = bytearray(DATA)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(DATA) - 1))
        broken[place] ^= data.draw(st.integers(1, 255))
    if lint(bytes(broken)).ok:  # a letter of a description, a name or the recipe
        found = Ticket.from_bytes(bytes(broken))
        arrays = zip(
            [*TICKET.masks.values(), *TICKET.initial.values()],
            [*found.masks.values(), *found.initial.values()],
            strict=True,
        )
        assert all(np.array_equal(ours, theirs) for ours, theirs in arrays)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(DATA) - 1))
def test_every_truncation_is_refused(length: int) -> None:
    assert not lint(DATA[:length]).ok


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    assert not lint(noise).ok
