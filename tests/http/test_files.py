"""Handing out files: ETag, Range, exports."""

from __future__ import annotations

import hashlib
import io
import time
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from fastapi import Request
from obstore.store import MemoryStore, S3Store
from safetensors.numpy import load
from sqlalchemy import update

from app.storage import Storage, make_storage
from app.tickets.files.counting import Downloads, list_downloads
from app.tickets.files.downloads import KNOWN_SECONDS, LARGEST_KEPT
from app.tickets.files.serving import Download, Exits, serve
from app.tickets.models import Listing
from nirvana.errors import NotFound, StorageFailed
from nirvana.exports import export_ticket
from nirvana.format.ticket import Ticket
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import TICKET_TYPE, Registry, make_settings, problem

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


@pytest.mark.parametrize(
    "asked", [f"bytes={len(DATA)}-", "bytes=-0", f"bytes={10**30}-", f"bytes={'9' * 5000}-"]
)
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


def test_a_file_comes_back_by_the_sha256_of_its_bytes(published: Registry) -> None:
    path = f"/api/v1/files/{FILE_DIGEST}"
    answer = published.http.get(path)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert "immutable" in answer.headers["cache-control"]
    assert published.http.head(path).headers["content-length"] == str(len(DATA))
    problem(published.http.get(f"/api/v1/files/sha256:{'0' * 64}"), 404, "not-found")
    problem(published.http.get("/api/v1/files/none"), 404, "not-found")


def test_who_names_the_bytes_hears_that_they_are_the_same_without_a_database(published: Registry) -> None:
    published.database.engine.dispose()
    asked = f"sha256:{'0' * 64}"  # nobody has these bytes here, and saying so would need a look
    answer = published.http.get(f"/api/v1/files/{asked}", headers={"If-None-Match": f'"{asked}"'})
    assert (answer.status_code, answer.content) == (304, b"")


def test_a_private_file_is_its_owner_s_alone_by_name_and_by_bytes(registry: Registry) -> None:
    registry.publish(DATA, "secret", visibility="private")
    for path in ("/api/v1/tickets/ada/secret/file", f"/api/v1/files/{FILE_DIGEST}"):
        problem(registry.http.get(path), 404, "not-found")
        problem(registry.http.get(path, headers=registry.bearer("bob")), 404, "not-found")
        answer = registry.http.get(path, headers=registry.bearer("ada"))
        assert answer.content == DATA
        assert answer.headers["cache-control"].startswith("private")


def test_a_file_that_became_private_is_soon_not_handed_out(published: Registry) -> None:
    assert published.http.get(FILE).status_code == 200
    with published.database.write() as session:
        session.execute(update(Listing).values(visibility="private"))
    time.sleep(KNOWN_SECONDS)
    problem(published.http.get(FILE), 404, "not-found")


def test_a_head_has_the_headers_of_the_file_and_no_body(published: Registry) -> None:
    head, full = published.http.head(FILE), published.http.get(FILE)
    same = ("etag", "content-length", "content-disposition", "cache-control", "accept-ranges")
    assert {name: head.headers[name] for name in same} == {name: full.headers[name] for name in same}
    assert head.content == b""


def test_a_large_file_is_streamed_and_its_ranges_too(registry: Registry) -> None:
    data = make_ticket("mlp-1200", density=0.9, stored=True).to_bytes()
    assert len(data) > LARGEST_KEPT
    registry.publish(data, "big")
    path = "/api/v1/tickets/ada/big/file"
    for _ in range(2):  # the second time it is known where it lies
        assert registry.http.get(path).content == data
        part = registry.http.get(path, headers={"Range": "bytes=300000-600000"})
        assert (part.status_code, part.content) == (206, data[300_000:600_001])


def test_a_server_in_front_is_told_where_a_large_file_lies(make_registry: MakeRegistry) -> None:
    registry = make_registry(accel_prefix="/_blobs/")
    data = make_ticket("mlp-1200", density=0.9, stored=True).to_bytes()
    registry.publish(data, "big")
    answer = registry.http.get("/api/v1/tickets/ada/big/file")
    key = answer.headers["x-accel-redirect"].removeprefix("/_blobs/")
    assert registry.storage.get(key) == data
    assert answer.headers["content-disposition"] == 'attachment; filename="ada-big.ticket"'
    assert answer.content == b""
    assert registry.http.head("/api/v1/tickets/ada/big/file").headers["content-length"] == str(len(data))


def test_a_store_that_can_sign_hands_out_large_files_itself() -> None:
    store = S3Store("bucket", region="eu-west-1", access_key_id="key", secret_access_key="secret")
    signed = Storage(store).sign("tickets/ab/x.ticket", 60)
    assert signed is not None
    assert signed.startswith("https://")
    assert "X-Amz-Expires=60" in signed
    assert Storage(MemoryStore()).sign("x", 60) is None  # it has no address, and the service sends the bytes


def test_who_asks_for_a_large_file_is_sent_to_the_store_that_signs_and_a_small_one_is_sent() -> None:
    """A bucket that nobody can reach: nothing but the address is made of it."""
    store = S3Store("bucket", region="eu-west-1", access_key_id="key", secret_access_key="secret")
    request = Request({"type": "http", "method": "GET", "headers": [(b"range", b"bytes=0-9")], "path": "/"})
    large, exits = Download("tickets/ab/x.ticket", "tag", TICKET_TYPE, "x.ticket"), Exits(presign_seconds=60)
    answer = serve(request, Storage(store), large, exits)
    assert answer.status_code == 307
    assert answer.headers["location"].startswith("https://")
    assert "tickets/ab/x.ticket" in answer.headers["location"]
    assert "X-Amz-Signature" in answer.headers["location"]
    assert answer.headers["cache-control"] == "no-store", "the address soon means nothing"
    small = Download("tickets/ab/x.ticket", "tag", TICKET_TYPE, "x.ticket", content=b"0123456789abc")
    assert serve(request, Storage(store), small, exits).body == b"0123456789"
    known = Request({"type": "http", "method": "GET", "headers": [(b"if-none-match", b'"tag"')], "path": "/"})
    assert serve(known, Storage(store), large, exits).status_code == 304
    broken = Storage(S3Store("bucket", region="eu-west-1", skip_signature=True))
    with pytest.raises(StorageFailed):
        serve(request, broken, large, exits)


def test_a_file_that_is_removed_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    storage = make_storage(make_settings(tmp_path))
    content = bytes(range(256)) * 4096
    storage.put("exports/x", content)
    pieces = storage.stream("exports/x", 5)
    first = next(pieces)
    storage.delete("exports/x")
    assert first + b"".join(pieces) == content[5:]
    with pytest.raises(NotFound):
        next(storage.stream("exports/x"))


def test_downloads_are_counted_a_day_and_robots_are_not(each_registry: Registry) -> None:
    registry = each_registry
    registry.publish(DATA, "first")
    person, robot = {"User-Agent": "nirvana/1"}, {"User-Agent": "Googlebot/2.1"}
    for headers in (person, person | {"Range": "bytes=0-9"}, registry.bearer() | person):
        assert registry.http.get(FILE, headers=headers).is_success
    for headers in (
        robot,
        {"User-Agent": ""},
        person | {"Range": "bytes=5-9"},
        person | {"If-None-Match": "*"},
    ):
        registry.http.get(FILE, headers=headers)
    registry.http.head(FILE, headers=person)
    downloads = Downloads(registry.database)
    for _ in range(2):  # another process writes, too
        downloads._counts[1, date(2026, 11, 27)] += 2
        downloads.write()
    registry.stop()
    with registry.database.read() as session:
        total, days = list_downloads(session, 1, 90)
    registry.database.dispose()  # opened again by the two lines above
    assert total == 7
    assert [day.count for day in days] == [3, 4]
