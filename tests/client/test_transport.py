"""What the client makes of answers: errors, retries, broken connections. The server is a scripted one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from nirvana import errors
from nirvana.client import rest
from nirvana.client.filters import query_of
from nirvana.client.rest import Client
from nirvana.client.transport import error_of, wait_seconds
from nirvana.errors import NetworkError, NirvanaError, Problem, error_classes

Answer = Callable[[BaseHTTPRequestHandler], None]


class Script(BaseHTTPRequestHandler):
    """Answers each request with the next of `answers`, and keeps what was asked."""

    protocol_version = "HTTP/1.1"
    answers: list[Answer]
    asked: list[tuple[str, str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, dict(self.headers)))
        self.answers.pop(0)(self)

    do_POST = do_PATCH = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def script() -> type[Script]:
    return type("OneScript", (Script,), {"answers": [], "asked": []})


@pytest.fixture
def client(script: type[Script], monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.delenv("NIRVANA_OFFLINE", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    with Client(f"http://127.0.0.1:{server.server_address[1]}", token="nvn_secret") as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


def say(status: int, body: bytes, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


def say_json(status: int, value: Any, **headers: str) -> Answer:
    return say(status, json.dumps(value).encode(), **headers)


@pytest.mark.parametrize("code", sorted(error_classes()))
def test_every_problem_becomes_the_class_it_came_from(code: str) -> None:
    errors = [{"pointer": "/masks/fc1.weight/kept", "code": "popcount", "detail": "found 3, expected 4"}]
    body = {"code": code, "detail": "it failed", "status": 400, "errors": errors, "limit": 7}
    error = error_of(httpx.Response(400, json=body, request=httpx.Request("GET", "http://x")))
    assert type(error) is error_classes()[code]
    assert error.detail == "it failed"
    assert error.errors == (Problem("/masks/fc1.weight/kept", "popcount", "found 3, expected 4"),)
    assert error.extra["limit"] == 7


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthenticated),
        (404, errors.NotFound),
        (413, errors.TooLarge),
        (429, errors.QuotaExceeded),
        (502, errors.Unavailable),
        (418, NirvanaError),
    ],
)
def test_a_proxys_page_becomes_the_class_of_its_status(status: int, kind: type[NirvanaError]) -> None:
    request = httpx.Request("GET", "http://x/y")
    error = error_of(httpx.Response(status, text="<h1>sorry</h1>", request=request))
    assert type(error) is kind
    assert f"answered {status}" in error.detail


def test_the_token_and_the_filters_are_sent(client: Client, script: type[Script]) -> None:
    script.answers.append(say_json(200, {"items": [], "next_cursor": None}))
    assert list(client.search(task="mnist", max_density=0.05, min_accuracy=0.98, verdict=None)) == []
    _, path, headers = script.asked[0]
    assert path == "/api/v1/tickets?task=mnist&density=max%3A0.05&accuracy=min%3A0.98"
    assert headers["Authorization"] == "Bearer nvn_secret"


def test_ranges_with_both_ends_are_one_parameter() -> None:
    query = query_of({"min_density": 0.01, "max_density": 0.05, "include_yanked": True, "owner": None})
    assert query == {"density": "min:0.01,max:0.05", "include_yanked": "true"}


def test_search_follows_cursors_up_to_its_limit(client: Client, script: type[Script]) -> None:
    script.answers.append(say_json(200, {"items": [{"n": 1}, {"n": 2}], "next_cursor": "abc"}))
    script.answers.append(say_json(200, {"items": [{"n": 3}], "next_cursor": "def"}))
    assert [hit["n"] for hit in client.search(limit=3)] == [1, 2, 3]
    assert [path for _, path, _ in script.asked] == [
        "/api/v1/tickets?limit=3",
        "/api/v1/tickets?cursor=abc&limit=1",
    ]


def test_a_get_is_tried_again_when_the_service_asks_to_wait(client: Client, script: type[Script]) -> None:
    script.answers += [
        say(503, b"", Retry_After="0"),
        say(429, b"", Retry_After="0"),
        say_json(200, {"a": 1}),
    ]
    assert client.whoami() == {"a": 1}


def test_a_post_is_never_tried_again(client: Client, script: type[Script]) -> None:
    script.answers.append(say_json(503, {"code": "storage-failed", "detail": "later"}, Retry_After="0"))
    with pytest.raises(errors.StorageFailed, match="later"):
        client.submit_job("prune", {})
    assert len(script.asked) == 1


def test_a_service_that_stays_busy_gives_its_error(client: Client, script: type[Script]) -> None:
    script.answers += [say(503, b"", Retry_After="0")] * 4
    with pytest.raises(errors.Unavailable):
        client.whoami()


def test_an_answer_that_is_not_json_is_said_to_be_so(client: Client, script: type[Script]) -> None:
    script.answers.append(say(200, b"<html>", Content_Type="text/html"))
    with pytest.raises(NetworkError, match="found text/html, expected JSON from a Nirvana service"):
        client.whoami()


def test_a_service_that_is_not_there_is_a_network_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIRVANA_OFFLINE", raising=False)
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(NetworkError, match=r"127\.0\.0\.1:9 was not reached"),
    ):
        client.whoami()


def test_offline_no_request_leaves(
    client: Client, script: type[Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    with pytest.raises(NetworkError, match="NIRVANA_OFFLINE is set"):
        client.whoami()
    with pytest.raises(NetworkError, match="NIRVANA_OFFLINE is set"):
        client.download("ada/t")
    assert script.asked == []


def test_a_download_that_breaks_is_taken_up_where_it_broke(client: Client, script: type[Script]) -> None:
    whole = bytes(range(256)) * 40
    script.answers.append(say(200, whole[:3000], Content_Length=str(len(whole)), ETag='"d"'))
    script.answers.append(say(206, whole[3000:], ETag='"d"'))
    seen: list[int] = []
    assert client.download("ada/t", on_bytes=seen.append) == whole
    assert script.asked[1][2]["Range"] == "bytes=3000-"
    assert script.asked[1][2]["If-Range"] == '"d"'
    assert seen[-1] == len(whole)


def test_a_download_starts_anew_when_the_file_has_changed(client: Client, script: type[Script]) -> None:
    script.answers.append(say(200, b"old", Content_Length="10", ETag='"old"'))
    script.answers.append(say(200, b"new bytes!", ETag='"new"'))
    assert client.download("ada/t") == b"new bytes!"


def test_a_file_that_is_here_already_is_not_sent_again(client: Client, script: type[Script]) -> None:
    script.answers.append(say(304, b""))
    assert client.download("ada/t", etag="sha256:abc") is None
    assert script.asked[0][2]["If-None-Match"] == '"sha256:abc"'


STREAM = "text/event-stream; charset=utf-8"


def test_events_are_read_with_their_numbers_and_without_heartbeats(
    client: Client, script: type[Script]
) -> None:
    """A line of an event ends with a newline, and not with what Unicode takes for one."""
    text = ': beat\n\nid: 1\nevent: state\ndata: {"state": "running"}\n\n'
    text += 'event: log\ndata: {"a":\ndata: "\u2028"}\n\n'
    text += 'id: 9\nevent: state\ndata: {"state": "failed"}\n\n'
    script.answers.append(say(200, text.encode(), Content_Type=STREAM))
    assert list(client.job_events("j")) == [
        {"id": "1", "event": "state", "data": {"state": "running"}},
        {"id": "1", "event": "log", "data": {"a": "\u2028"}},
        {"id": "9", "event": "state", "data": {"state": "failed"}},
    ]


def test_a_proxys_page_in_the_place_of_events_is_a_network_error(
    client: Client, script: type[Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "_RESUMES", 1)
    script.answers += [
        say(200, b"<h1>sign in</h1>", Content_Type="text/html"),
        say(200, b"id: 1\ndata: no JSON\n\n", Content_Type=STREAM),
    ]
    with pytest.raises(NetworkError, match="expected JSON"):
        list(client.job_events("j"))


@pytest.mark.parametrize("status", [429, 503])
def test_a_download_waits_when_the_service_asks_to_and_then_goes_on(
    client: Client, script: type[Script], status: int
) -> None:
    script.answers.append(say(200, b"abc", Content_Length="6", ETag='"d"'))
    script.answers += [say(status, b"", Retry_After="0"), say(206, b"def", ETag='"d"')]
    assert client.download("ada/t") == b"abcdef"
    assert script.asked[2][2]["Range"] == "bytes=3-"


def test_a_download_from_a_service_that_stays_busy_gives_its_error(
    client: Client, script: type[Script]
) -> None:
    script.answers += [say(503, b"", Retry_After="0")] * 4
    with pytest.raises(errors.Unavailable):
        client.download("ada/t")
    assert len(script.asked) == 4


def test_an_export_that_breaks_is_taken_up_where_it_broke(client: Client, script: type[Script]) -> None:
    script.answers.append(say(200, b"abc", Content_Length="6", ETag='"d"'))
    script.answers.append(say(206, b"def", ETag='"d"'))
    assert client.export("ada/t", "onnx") == b"abcdef"
    assert script.asked[1][1] == "/api/v1/tickets/ada/t/export?format=onnx"
    assert script.asked[1][2]["Range"] == "bytes=3-"


def test_waits_differ_so_that_those_who_failed_together_do_not_come_together() -> None:
    asked = {wait_seconds("10", 0) for _ in range(50)}
    assert len(asked) > 40
    assert all(10 <= wait <= 11 for wait in asked)
    for attempt in range(5):
        own = {wait_seconds("", attempt) for _ in range(50)}
        assert len(own) > 40
        assert all(0.25 * 2**attempt <= wait <= 0.5 * 2**attempt for wait in own)
    assert wait_seconds("100000", 0) == 30
    assert wait_seconds("\u0663", 0) <= 30, "digits of other scripts are no number of seconds"
    assert wait_seconds("Fri, 27 Nov 2026 09:00:00 GMT", 0) <= 0.5


@pytest.mark.parametrize(
    ("status", "kind"), [(412, errors.PreconditionFailed), (428, errors.PreconditionRequired)]
)
def test_a_change_that_needs_another_version_is_an_error_of_its_own(
    client: Client, script: type[Script], status: int, kind: type[NirvanaError]
) -> None:
    script.answers.append(say(status, b""))
    with pytest.raises(kind):
        client.update("ada/t", '"v1"', card="x")
    method, path, headers = script.asked[0]
    assert (method, path, headers["If-Match"]) == ("PATCH", "/api/v1/tickets/ada/t", '"v1"')


def test_a_broken_event_stream_goes_on_after_the_last_event(client: Client, script: type[Script]) -> None:
    first = b'id: 1\nevent: state\ndata: {"state": "running"}\n\n'
    last = b'id: 2\nevent: state\ndata: {"state": "succeeded"}\n\n'
    script.answers.append(say(200, first, Content_Length="9999", Content_Type=STREAM))
    script.answers.append(say(200, last, Content_Type=STREAM))
    assert [event["id"] for event in client.job_events("j")] == ["1", "2"]
    assert "Last-Event-ID" not in script.asked[0][2]
    assert script.asked[1][2]["Last-Event-ID"] == "1"


def test_a_stream_that_ends_before_the_job_is_asked_again(client: Client, script: type[Script]) -> None:
    script.answers.append(
        say(200, b'id: 1\nevent: state\ndata: {"state": "running"}\n\n', Content_Type=STREAM)
    )
    script.answers.append(say_json(200, {"id": "j", "state": "running"}))
    script.answers.append(say(200, b": beat\n\n", Content_Type=STREAM))
    script.answers.append(say_json(200, {"id": "j", "state": "cancelled"}))
    assert [event["id"] for event in client.job_events("j")] == ["1"]
