"""Signing a command line in by a browser: a code to type, a token fetched once, and no secret shown."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from app.accounts.models import Token
from app.accounts.service import MAX_TOKENS
from app.db import utc_now
from app.devices.service import LETTERS, DeviceCode
from tests.cli.running import Run
from tests.http.conftest import MakeRegistry
from tests.http.test_pages import check_page
from tests.http.test_sessions import csrf, sign_up
from tests.registry import Registry, pointers, problem

CODES = "/api/v1/device-codes"


@pytest.fixture
def browser(each_registry: Registry) -> Iterator[httpx.Client]:
    """A browser in which grace is signed in."""
    with httpx.Client(base_url=each_registry.url, headers={"Accept": "text/html"}) as client:
        sign_up(client)
        yield client


def ask(registry: Registry, **fields: Any) -> dict[str, Any]:
    answer = registry.http.post(CODES, json=fields)
    assert answer.status_code == 201, answer.text
    asked: dict[str, Any] = answer.json()
    return asked


def fetch(registry: Registry, asked: dict[str, Any]) -> httpx.Response:
    return registry.http.post(f"{CODES}/token", json={"device_code": asked["device_code"]})


def answer(browser: httpx.Client, code: str, answer: str = "grant") -> httpx.Response:
    """Type a code and answer what the page asks."""
    shown = browser.post("/device", data={"code": code, "csrf_token": csrf(browser.get("/device").text)})
    if shown.status_code != 200:
        return shown
    typed = re.search(r'name="code" value="([A-Z-]+)"', shown.text)
    assert typed is not None
    fields = {"code": typed[1], "csrf_token": csrf(shown.text), "answer": answer}
    return browser.post("/device/answer", data=fields)


def test_a_code_that_is_typed_and_granted_gives_one_token_once(
    each_registry: Registry, browser: httpx.Client
) -> None:
    registry = each_registry
    asked = ask(registry, name="laptop", scopes=["read", "publish"])
    assert asked["verification_uri"] == f"{registry.settings.public_url}/device"
    assert re.fullmatch(f"[{LETTERS}]{{4}}-[{LETTERS}]{{4}}", asked["user_code"])
    assert (fetch(registry, asked).status_code, fetch(registry, asked).json()) == (202, {"state": "asked"})
    shown = browser.post(
        "/device", data={"code": asked["user_code"], "csrf_token": csrf(browser.get("/device").text)}
    )
    check_page(shown.text)
    assert all(part in shown.text for part in ("laptop", "publish, read", "grace", "127.0.0.0"))
    assert asked["device_code"] not in shown.text
    done = answer(browser, f" {asked['user_code'].replace('-', '').lower()} ")
    assert (done.status_code, "Granted" in done.text) == (200, True)
    assert done.headers["cache-control"] == "no-store"
    granted = fetch(registry, asked)
    assert (granted.status_code, granted.headers["cache-control"]) == (200, "no-store")
    token = granted.json()
    assert (token["name"], token["scopes"]) == ("laptop", ["publish", "read"])
    who = registry.http.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token['secret']}"}).json()
    assert who["account"] == "grace"
    problem(fetch(registry, asked), 404, "not-found")
    assert answer(browser, asked["user_code"]).status_code == 422
    with registry.database.read() as session:
        assert session.scalars(select(DeviceCode)).all() == []
    assert token["secret"] not in browser.get("/account").text


def test_what_was_denied_gives_no_token_whatever_follows(
    each_registry: Registry, browser: httpx.Client
) -> None:
    asked = ask(each_registry)
    assert "Nobody has got a token" in answer(browser, asked["user_code"], "deny").text
    problem(fetch(each_registry, asked), 403, "forbidden")
    assert answer(browser, asked["user_code"]).status_code == 422
    problem(fetch(each_registry, asked), 403, "forbidden")


def test_only_who_is_signed_in_and_comes_from_our_page_answers(
    each_registry: Registry, browser: httpx.Client
) -> None:
    asked = ask(each_registry)
    with httpx.Client(base_url=each_registry.url, headers={"Accept": "text/html"}) as stranger:
        sent = stranger.get("/device")
        assert (sent.status_code, sent.headers["location"]) == (303, "/sign-in?after=%2Fdevice")
        for path in ("/device", "/device/answer"):
            assert (
                stranger.post(path, data={"code": asked["user_code"], "answer": "grant"}).status_code == 403
            )
    fields = {"code": asked["user_code"], "answer": "grant"}
    for token in ("", "0" * 64):
        assert browser.post("/device/answer", data=fields | {"csrf_token": token}).status_code == 403
    right = fields | {"csrf_token": csrf(browser.get("/device").text)}
    other = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert browser.post("/device/answer", data=right, headers=other).status_code == 403
    bearer = each_registry.bearer("ada")
    assert each_registry.http.post("/device/answer", data=right, headers=bearer).status_code == 403
    assert fetch(each_registry, asked).status_code == 202


def test_a_code_that_is_over_or_from_a_clock_that_was_wrong_is_none(
    each_registry: Registry, browser: httpx.Client
) -> None:
    for shift in (-timedelta(minutes=11), timedelta(days=365)):
        asked = ask(each_registry)
        with each_registry.database.write() as session:
            session.execute(
                update(DeviceCode).values(expires_at=utc_now() + shift, state="granted", account_id=1)
            )
        problem(fetch(each_registry, asked), 404, "not-found")
        assert answer(browser, asked["user_code"]).status_code == 422
    last = ask(each_registry)
    with each_registry.database.read() as session:
        assert session.scalars(select(DeviceCode.user_code)).all() == [last["user_code"]], (
            "the others are forgotten"
        )


def test_of_many_who_fetch_at_once_one_gets_the_token(each_registry: Registry, browser: httpx.Client) -> None:
    asked = ask(each_registry)
    answer(browser, asked["user_code"])
    with ThreadPoolExecutor(6) as pool:
        codes = sorted(one.status_code for one in pool.map(lambda _: fetch(each_registry, asked), range(6)))
    assert codes == [200, 404, 404, 404, 404, 404]
    with each_registry.database.read() as session:
        assert len(session.scalars(select(Token).where(Token.kind == "token")).all()) == 1


def test_a_full_account_gets_its_token_after_it_has_revoked_one(
    each_registry: Registry, browser: httpx.Client
) -> None:
    asked = ask(each_registry)
    for _ in range(MAX_TOKENS):
        each_registry.token("grace")
    answer(browser, asked["user_code"])
    problem(fetch(each_registry, asked), 429, "quota-exceeded")
    with each_registry.database.write() as session:
        session.execute(update(Token).where(Token.kind == "token").values(revoked_at=utc_now()))
    assert fetch(each_registry, asked).status_code == 200


def test_nobody_asks_for_an_administrators_token_by_a_code(registry: Registry) -> None:
    for body, pointer in [
        ({"scopes": ["admin"]}, "/scopes/0"),
        ({"scopes": []}, "/scopes"),
        ({"name": ""}, "/name"),
        ({"name": "a\0"}, "/name"),
        ({"network": "x"}, "/network"),
    ]:
        assert pointers(problem(registry.http.post(CODES, json=body), 422, "invalid")) == [pointer]
    for code in ("", "x", "nvd_" + "x" * 43):
        problem(registry.http.post(f"{CODES}/token", json={"device_code": code}), 404, "not-found")


def test_guesses_of_codes_are_bounded(make_registry: MakeRegistry) -> None:
    registry = make_registry(rates={"sign-in": "5/minute"})
    with httpx.Client(base_url=registry.url) as browser:
        token = sign_up(browser)
        fields = {"code": "BCDF-GHJK", "csrf_token": token}
        codes = [browser.post("/device", data=fields).status_code for _ in range(7)]
    assert codes == [422] * 5 + [429] * 2
    answers = [registry.http.post(CODES, json={}).status_code for _ in range(7)]
    assert answers == [201] * 5 + [429] * 2


@pytest.fixture
def run(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """A command line without a token."""
    for name in ("NIRVANA_TOKEN", "NIRVANA_OFFLINE", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIRVANA_ENDPOINT", registry.url)
    return Run(capsys)


def in_a_while(registry: Registry, decision: str) -> threading.Thread:
    """Somebody who answers the first question that is asked."""

    def work() -> None:
        with httpx.Client(base_url=registry.url) as browser:
            sign_up(browser)
            code = None
            until = time.monotonic() + 20
            while code is None and time.monotonic() < until:
                time.sleep(0.1)
                with registry.database.read() as session:
                    code = session.scalars(select(DeviceCode.user_code)).first()
            answer(browser, str(code), decision)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_login_waits_for_the_browser_and_keeps_the_token(
    run: Run, registry: Registry, tmp_path: Path
) -> None:
    thread = in_a_while(registry, "grant")
    code, out, err = run("login", "--no-browser")
    thread.join()
    assert (code, out) == (0, "")
    assert re.search(rf"Type the code [A-Z]{{4}}-[A-Z]{{4}} at {registry.settings.public_url}/device", err)
    assert "signed in as grace" in err
    kept = tmp_path / "home" / "token"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.read_text() not in err
    assert run("whoami")[1] == "grace\n"
    assert run("logout")[0] == 0


def test_login_that_is_denied_leaves_with_4_and_keeps_nothing(
    run: Run, registry: Registry, tmp_path: Path
) -> None:
    thread = in_a_while(registry, "deny")
    code, _, err = run("login", "--no-browser")
    thread.join()
    assert (code, "denied" in err) == (4, True)
    assert not (tmp_path / "home" / "token").exists()


def test_login_opens_the_page_where_there_is_a_screen(
    run: Run, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" >>{opened}\n')
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(script))
    monkeypatch.setattr("webbrowser._tryorder", None)  # it is read once a process
    monkeypatch.setenv("DISPLAY", ":0")
    thread = in_a_while(registry, "grant")
    assert run("login", "--json")[0] == 0
    thread.join()
    assert opened.read_text() == f"{registry.settings.public_url}/device\n", "an address without any code"
