"""Webhooks: signed, tried again, replayed, and never sent to a private address."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import update

from app.db import utc_now
from app.webhooks.delivery import NotDelivered, deliver_due, is_public, resolve
from app.webhooks.service import FIRST_WAIT, MOST_FAILURES, MOST_WEBHOOKS, Webhook
from nirvana.cli import main
from tests.factories import make_ticket
from tests.registry import Registry, problem

DATA = make_ticket().to_bytes()
HOOKS = "/api/v1/webhooks"


class Receiver(BaseHTTPRequestHandler):
    """A receiver that keeps what it got, and answers what it is told to."""

    statuses: list[int]
    got: list[tuple[dict[str, str], bytes]]
    url: str

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((dict(self.headers), body))
        status = self.statuses.pop(0) if self.statuses else 204
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"{self.url}elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[type[Receiver]]:
    class Own(Receiver):
        statuses: list[int] = []  # noqa: RUF012 (one for each test)
        got: list[tuple[dict[str, str], bytes]] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Own.url = f"http://127.0.0.1:{server.server_port}/"
    yield Own
    server.shutdown()
    server.server_close()


def add(registry: Registry, url: str, by: str = "ada", **fields: Any) -> dict[str, Any]:
    answer = registry.http.post(HOOKS, json={"url": url, **fields}, headers=registry.bearer(by))
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def shown(registry: Registry) -> dict[str, Any]:
    """The only webhook, as its owner sees it."""
    (item,) = registry.http.get(HOOKS, headers=registry.bearer()).json()["items"]
    assert "secret" not in item
    body: dict[str, Any] = item
    return body


def hurry(registry: Registry, **values: object) -> None:
    """Let the wait be over."""
    with registry.database.write() as session:
        session.execute(update(Webhook).values({"next_try_at": utc_now()} | values))


def names(receiver: type[Receiver]) -> list[list[str]]:
    return [[item["name"] for item in json.loads(body)["items"]] for _, body in receiver.got]


def test_changes_arrive_signed_and_once(each_registry: Registry, receiver: type[Receiver]) -> None:
    registry = each_registry
    registry.publish(DATA, "before")
    secret = add(registry, receiver.url)["secret"]
    registry.publish(DATA, "first")
    registry.publish(make_ticket(seed=3).to_bytes(), "secret", visibility="private")
    assert deliver_due(registry.database, allow_private=True) == 1
    assert deliver_due(registry.database, allow_private=True) == 0
    ((headers, body),) = receiver.got
    assert names(receiver) == [["first"]]  # neither what was before, nor what is private
    instant, code = (part.split("=")[1] for part in headers["Nirvana-Signature"].split(","))
    signed = hmac.new(secret.encode(), f"{instant}.".encode() + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(signed, code)
    assert shown(registry)["failures"] == 0


def test_a_delivery_that_failed_is_made_again_after_a_wait(
    each_registry: Registry, receiver: type[Receiver]
) -> None:
    registry = each_registry
    add(registry, receiver.url, kinds=["published"])
    registry.publish(DATA, "first")
    receiver.statuses += [500, 503]
    assert deliver_due(registry.database, allow_private=True) == 0
    assert deliver_due(registry.database, allow_private=True) == 0  # not yet
    assert (len(receiver.got), shown(registry)["failures"]) == (1, 1)
    assert "answered 500" in shown(registry)["last_error"]
    registry.publish(make_ticket(seed=3).to_bytes(), "second")
    for expected in (0, 1):
        hurry(registry)
        assert deliver_due(registry.database, allow_private=True) == expected
    assert names(receiver) == [["first"], ["first", "second"], ["first", "second"]]
    assert (shown(registry)["failures"], shown(registry)["last_error"]) == (0, None)


def test_a_receiver_that_always_fails_is_turned_off_and_replayed_when_it_is_back(
    registry: Registry, receiver: type[Receiver]
) -> None:
    hook = add(registry, receiver.url)
    registry.publish(DATA, "first")
    receiver.statuses += [500]
    hurry(registry, failures=MOST_FAILURES - 1)
    deliver_due(registry.database, allow_private=True)
    assert shown(registry)["disabled_at"] is not None
    hurry(registry)
    assert deliver_due(registry.database, allow_private=True) == 0
    path = f"{HOOKS}/{hook['id']}/replay"
    again = registry.http.post(path, json={"since": 0}, headers=registry.bearer())
    assert (again.status_code, again.json()["disabled_at"]) == (200, None)
    assert deliver_due(registry.database, allow_private=True) == 1
    assert names(receiver) == [["first"], ["first"]]


def test_a_redirect_is_not_followed(registry: Registry, receiver: type[Receiver]) -> None:
    add(registry, receiver.url)
    registry.publish(DATA, "first")
    receiver.statuses += [302]
    assert deliver_due(registry.database, allow_private=True) == 0
    assert len(receiver.got) == 1
    assert "answered 302" in shown(registry)["last_error"]


PRIVATE = """127.0.0.1 localhost 2130706433 0x7f.1 0.0.0.0 10.0.0.1 192.168.1.1 169.254.169.254 100.64.0.1
224.0.0.1 [::1] [::] [::ffff:127.0.0.1] [fe80::1] [fd00::1] [64:ff9b::7f00:1] [2002:7f00:1::] [ff02::1]"""


@pytest.mark.parametrize("host", PRIVATE.split())
def test_a_private_address_is_never_asked(host: str) -> None:
    with pytest.raises(NotDelivered):
        resolve(f"http://{host}:80/")


def test_a_public_address_is() -> None:
    assert resolve("https://93.184.215.14/") == "93.184.215.14"
    assert is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")


def test_a_private_receiver_is_refused_unless_it_is_allowed(
    registry: Registry, receiver: type[Receiver]
) -> None:
    add(registry, receiver.url)
    registry.publish(DATA, "first")
    assert deliver_due(registry.database) == 0
    assert receiver.got == []
    assert "no public address" in shown(registry)["last_error"]


def test_a_name_is_asked_once_and_every_address_of_it_counts(
    registry: Registry, receiver: type[Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is checked and private a moment later gains nothing."""
    real, asked = socket.getaddrinfo, list[str]()
    port = int(receiver.url.rsplit(":", 1)[1].strip("/"))

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if host != "hook.example":
            return real(host, *rest, **more)
        asked.append(host)
        addresses = ["93.184.215.14", "127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(NotDelivered, match=r"127\.0\.0\.1"):
        resolve("http://hook.example/")
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *a, **k: (
            asked.append(host) or addresses  # type: ignore[func-returns-value]
            if host == "hook.example"
            else real(host, *a, **k)
        ),
    )
    asked.clear()
    add(registry, f"http://hook.example:{port}/")
    registry.publish(DATA, "first")
    assert deliver_due(registry.database, allow_private=True) == 1
    assert asked == ["hook.example"]
    assert receiver.got[0][0]["Host"] == f"hook.example:{port}"


def test_a_clock_that_was_set_back_stops_no_webhook(registry: Registry, receiver: type[Receiver]) -> None:
    add(registry, receiver.url)
    registry.publish(DATA, "first")
    hurry(registry, next_try_at=utc_now() + timedelta(days=400))
    assert deliver_due(registry.database, allow_private=True) == 1
    assert timedelta(minutes=1) > FIRST_WAIT


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "http://",
        "file:///etc/passwd",
        "http://a:b@example.org/",
        "http://e:0/",
        "none" * 4,
    ],
)
def test_an_address_that_is_none_is_refused(registry: Registry, url: str) -> None:
    problem(registry.http.post(HOOKS, json={"url": url}, headers=registry.bearer()), 422, "invalid")


def test_a_webhook_is_its_owner_s_alone(registry: Registry, receiver: type[Receiver]) -> None:
    hook = add(registry, receiver.url)
    path = f"{HOOKS}/{hook['id']}"
    assert registry.http.get(HOOKS, headers=registry.bearer("bob")).json()["items"] == []
    problem(registry.http.delete(path, headers=registry.bearer("bob")), 404, "not-found")
    replay = registry.http.post(f"{path}/replay", json={"since": 0}, headers=registry.bearer("bob"))
    problem(replay, 404, "not-found")
    problem(registry.http.get(HOOKS), 401, "unauthenticated")
    kinds = {"url": receiver.url, "kinds": ["nothing"]}
    problem(registry.http.post(HOOKS, json=kinds, headers=registry.bearer()), 422, "invalid")
    assert registry.http.delete(path, headers=registry.bearer()).status_code == 204
    registry.publish(DATA, "first")
    assert deliver_due(registry.database, allow_private=True) == 0


def test_an_account_has_so_many_webhooks_and_no_more(registry: Registry, receiver: type[Receiver]) -> None:
    for _ in range(MOST_WEBHOOKS):
        add(registry, receiver.url)
    one_more = registry.http.post(HOOKS, json={"url": receiver.url}, headers=registry.bearer())
    problem(one_more, 429, "quota-exceeded")


def test_the_command_line_adds_lists_replays_and_removes(
    registry: Registry,
    receiver: type[Receiver],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NIRVANA_ENDPOINT", registry.url)
    monkeypatch.setenv("NIRVANA_TOKEN", registry.token())

    def run(*words: str) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["webhooks", *words, "--json"])
        assert not ended.value.code
        return json.loads(capsys.readouterr().out)

    made = run("add", receiver.url, "--kind", "verdict")
    assert made["secret"].startswith("whsec_")
    registry.publish(DATA, "first")
    assert deliver_due(registry.database, allow_private=True) == 0  # no verdict among the changes
    (listed,) = run("ls")["items"]
    assert (listed["kinds"], listed["position"]) == (["verdict"], 1)
    assert run("replay", str(made["id"]), "--since", "0")["position"] == 0
    run("rm", str(made["id"]))
    assert run("ls")["items"] == []
