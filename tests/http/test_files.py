"""Handing out files: ETag, Range, exports."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from safetensors.numpy import load

from nirvana.exports import export_ticket
from nirvana.format.ticket import Ticket
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import Registry, problem

TICKET = make_ticket()
DATA = TICKET.to_bytes()
FILE_DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
FILE = "/api/v1/tickets/ada/first/file"


@pytest.fixture
def published(make_registry: MakeRegistry) -> Registry:
    registry = make_registry()
    assert registry.publish(DATA, "first").status_code == 201
    return registry


def test_the_file_comes_back_byte_for_byte(published: Registry) -> None:
    for path in (FILE, f"/api/v1/tickets/{TICKET.digest}/file"):
        answer = published.http.get(path)
        assert answer.status_code == 200
        assert answer.content == DATA
        assert answer.headers["etag"] == f'"{FILE_DIGEST}"'
        is_by_name = path == FILE  # a digest's first listing may be another one, with other bytes
        assert ("immutable" in answer.headers["cache-control"]) is is_by_name
        assert answer.headers["content-type"] == "application/vnd.nirvana.ticket"
        assert answer.headers["content-length"] == str(len(DATA))


def test_an_export_s_tag_names_its_file_and_a_digest_s_is_not_kept_for_a_year(published: Registry) -> None:
    by_name = published.http.get("/api/v1/tickets/ada/first/export?format=csr")
    by_digest = published.http.get(f"/api/v1/tickets/{TICKET.digest}/export?format=csr")
    assert by_name.headers["etag"] == by_digest.headers["etag"]
    assert by_name.headers["etag"].startswith(f'"{FILE_DIGEST.removeprefix("sha256:")}-csr')
    assert "immutable" in by_name.headers["cache-control"]
    assert by_digest.headers["cache-control"] == "no-cache"


def test_a_file_that_is_known_is_not_sent_again(published: Registry) -> None:
    for tag in (f'"{FILE_DIGEST}"', f'"x", W/"{FILE_DIGEST}"', "*"):
        answer = published.http.get(FILE, headers={"If-None-Match": tag})
        assert (answer.status_code, answer.content) == (304, b"")
    assert published.http.get(FILE, headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-9", 0, 10), ("bytes=10-", 10, None), ("bytes=-5", -5, None), ("bytes=5-999999", 5, None)],
)
def test_a_range_is_sent_alone(published: Registry, asked: str, start: int, end: int | None) -> None:
    answer = published.http.get(FILE, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == DATA[start:end]
    first = start % len(DATA)
    said = f"bytes {first}-{first + len(answer.content) - 1}/{len(DATA)}"
    assert answer.headers["content-range"] == said


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=-", "lines=1-2", "bytes=9-3", "bytes=a-b"])
def test_a_range_that_is_none_gets_the_whole_file(published: Registry, asked: str) -> None:
    answer = published.http.get(FILE, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, DATA)


@pytest.mark.parametrize("asked", [f"bytes={len(DATA)}-", "bytes=-0", f"bytes={10**30}-"])
def test_a_range_outside_the_file_is_refused_with_its_size(published: Registry, asked: str) -> None:
    answer = published.http.get(FILE, headers={"Range": asked})
    problem(answer, 416, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_a_range_of_another_version_gets_the_whole_file(published: Registry) -> None:
    headers = {"Range": "bytes=0-9", "If-Range": '"other"'}
    assert published.http.get(FILE, headers=headers).status_code == 200
    headers["If-Range"] = f'"{FILE_DIGEST}"'
    assert published.http.get(FILE, headers=headers).status_code == 206


def test_head_says_what_get_would(published: Registry) -> None:
    answer = published.http.head(FILE)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(DATA))


def test_an_export_holds_the_masked_values_and_is_made_once(published: Registry) -> None:
    values = TICKET.initial_values()
    path = "/api/v1/tickets/ada/first/export"
    tensors = load(published.http.get(path, params={"format": "safetensors"}).content)
    archive = np.load(
        io.BytesIO(published.http.get(path, params={"format": "numpy"}).content), allow_pickle=False
    )
    for name, value in values.items():
        assert np.array_equal(tensors[name], value)
        assert np.array_equal(archive[name], value)
    model = published.http.get(path, params={"format": "onnx"}).content
    assert model == export_ticket(TICKET, "onnx").content
    rows = published.http.get(path, params={"format": "csr"})
    assert rows.content == export_ticket(TICKET, "csr").content
    assert rows.headers["content-disposition"] == 'attachment; filename="ada-first.csr.npz"'
    script = published.http.get(path, params={"format": "script"})
    compile(script.text, "train.py", "exec")
    assert len(list((published.settings.home / "blobs" / "exports").rglob("*-*"))) == 5
    again = published.http.get(
        path, params={"format": "script"}, headers={"If-None-Match": script.headers["etag"]}
    )
    assert again.status_code == 304


def test_an_unknown_export_is_refused(published: Registry) -> None:
    answer = published.http.get("/api/v1/tickets/ada/first/export?format=pickle")
    problem(answer, 422, "invalid")
    problem(published.http.get("/api/v1/tickets/ada/first/export"), 422, "invalid")


def test_a_file_that_is_missing_from_the_blob_store_is_said_before_it_is_sent(published: Registry) -> None:
    for path in (published.settings.home / "blobs").rglob("*.ticket"):
        path.unlink()
    problem(published.http.get(FILE), 503, "storage-failed")


def test_two_files_of_one_ticket_each_come_back_as_they_were(published: Registry) -> None:
    other = make_ticket(description="said by bob").to_bytes()
    assert Ticket.from_bytes(other).digest == TICKET.digest
    published.publish(other, "mine", by="bob")
    assert published.http.get("/api/v1/tickets/bob/mine/file").content == other
    assert published.http.get(FILE).content == DATA
