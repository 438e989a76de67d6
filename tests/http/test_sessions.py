"""Browsers' sessions: sign up and in, cookies, forged requests, passwords, and the first administrator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select

from app.accounts.models import Account, SetupLink, Token
from app.accounts.sessions import begin_session, hash_password, make_setup_link, set_password
from app.db import utc_now
from app.dependencies import COOKIE
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import Registry, pointers, problem

PASSWORD = "correct horse battery"
HTML = {"Accept": "text/html"}


@pytest.fixture
def browser(registry: Registry) -> Iterator[httpx.Client]:
    """A browser of its own, which keeps cookies and follows nothing."""
    with httpx.Client(base_url=registry.url, headers=HTML) as client:
        yield client


def csrf(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


def sign_up(browser: httpx.Client, name: str = "grace") -> str:
    """Make an account in a browser; the csrf token of its account page."""
    made = browser.post("/sign-up", data={"name": name, "password": PASSWORD})
    assert (made.status_code, made.headers["location"]) == (303, "/account"), made.text
    return csrf(browser.get("/account").text)


def add_password(registry: Registry, name: str = "ada") -> None:
    with registry.database.write() as session:
        account = session.merge(registry.account(name))
        set_password(session, account, hash_password(name, PASSWORD))


def test_a_stranger_signs_up_makes_a_token_and_publishes_with_it(
    registry: Registry, browser: httpx.Client
) -> None:
    token = sign_up(browser)
    fields = {
        "csrf_token": token,
        "name": "ci",
        "scopes": ["read", "publish"],
        "days": "30",
        "names": "lenet-*",
    }
    made = browser.post("/account/tokens", data=fields)
    secret = re.search(r"<pre>(nvn_[\w-]+)</pre>", made.text)
    assert secret is not None
    assert made.headers["cache-control"] == "no-store"
    assert secret[1] not in browser.get("/account").text, "a secret is shown once"
    registry.tokens["grace/mine"] = secret[1]
    data = make_ticket().to_bytes()
    assert registry.publish(data, "other", by="grace/mine").status_code == 403
    bearer = {"Authorization": f"Bearer {secret[1]}"}
    for name, status in (("other", 403), ("lenet-10", 201)):
        files = {"file": ("x.ticket", data, "application/vnd.nirvana.ticket")}
        answer = registry.http.post("/api/v1/tickets", files=files, data={"name": name}, headers=bearer)
        assert answer.status_code == status, answer.text


def test_the_cookie_is_one_that_no_script_and_no_other_site_reads(browser: httpx.Client) -> None:
    answer = browser.post("/sign-up", data={"name": "grace", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie, "the service is reached by http"


def test_behind_https_the_cookie_travels_encrypted_alone(make_registry: MakeRegistry) -> None:
    registry = make_registry(public_url="https://tickets.example")
    answer = registry.http.post("/sign-up", data={"name": "grace", "password": PASSWORD})
    assert "secure" in answer.headers["set-cookie"].lower()


def test_signing_in_and_out_in_a_browser(registry: Registry, browser: httpx.Client) -> None:
    add_password(registry)
    assert 'href="/sign-in?after=/tasks"' in browser.get("/tasks").text
    answer = browser.post("/sign-in", data={"name": "ada", "password": PASSWORD, "after": "/tasks"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks")
    page = browser.get("/tasks").text
    assert '<a href="/account">ada</a>' in page
    answer = browser.post("/sign-out", data={"csrf_token": csrf(browser.get("/account").text)})
    assert answer.status_code == 303
    assert browser.get("/account").headers["location"].startswith("/sign-in")
    with registry.database.read() as session:
        assert all(token.revoked_at for token in session.scalars(select(Token)))


@pytest.mark.parametrize("after", ["https://evil.example", "//evil.example", "/\\evil.example", "evil"])
def test_nobody_is_sent_to_another_site_after_signing_in(
    registry: Registry, browser: httpx.Client, after: str
) -> None:
    add_password(registry)
    answer = browser.post("/sign-in", data={"name": "ada", "password": PASSWORD, "after": after})
    assert answer.headers["location"] == "/account"


@pytest.mark.parametrize(
    ("name", "password"), [("ada", "wrong password"), ("nobody", PASSWORD), ("bob", PASSWORD), ("ada", "")]
)
def test_whatever_is_wrong_the_answer_is_the_same(
    registry: Registry, browser: httpx.Client, name: str, password: str
) -> None:
    add_password(registry)
    registry.account("bob")  # without a password
    page = browser.post("/sign-in", data={"name": name, "password": password})
    assert page.status_code == 422
    assert "The name or the password is wrong." in page.text
    assert COOKIE not in browser.cookies
    answer = registry.http.post("/api/v1/sessions", json={"name": name, "password": password})
    assert problem(answer, 401, "unauthenticated")["detail"] == "The name or the password is wrong."


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "5 characters"),
        ("x" * 201, "201 characters"),
        ("ababababab", "different characters"),
        ("grace-12345", "name in it"),
    ],
)
def test_a_weak_password_is_refused_and_what_was_typed_stays(
    registry: Registry, browser: httpx.Client, password: str, why: str
) -> None:
    page = browser.post("/sign-up", data={"name": "grace", "password": password})
    assert page.status_code == 422
    assert why in page.text
    assert 'value="grace"' in page.text
    answer = registry.http.post("/api/v1/accounts", json={"name": "grace", "password": password})
    assert pointers(problem(answer, 422, "invalid")) == ["/password"]
    with registry.database.read() as session:
        assert session.scalars(select(Account)).all() == []


def test_a_name_that_is_taken_is_refused_in_the_form(registry: Registry, browser: httpx.Client) -> None:
    registry.account("grace")
    page = browser.post("/sign-up", data={"name": "grace", "password": PASSWORD})
    assert page.status_code == 422
    assert "is taken" in page.text
    with registry.database.read() as session:
        assert session.scalars(select(Account.password_hash)).one() is None


def test_sign_up_is_closed_where_the_registry_is(make_registry: MakeRegistry) -> None:
    registry = make_registry(signup="closed")
    assert "<form" not in registry.http.get("/sign-up", headers=HTML).text
    page = registry.http.post("/sign-up", data={"name": "grace", "password": PASSWORD})
    assert page.status_code == 422
    assert "makes no accounts" in page.text


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
def test_a_forged_form_does_nothing(registry: Registry, browser: httpx.Client, token: str) -> None:
    sign_up(browser)
    for path in ("/account/tokens", "/account/password", "/account/tokens/1/revoke", "/sign-out"):
        fields = {"csrf_token": token, "name": "x", "scopes": "read", "password": "another password"}
        assert browser.post(path, data=fields).status_code == 403, path
    with registry.database.read() as session:
        assert [token.kind for token in session.scalars(select(Token))] == ["session"]


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_another_site_signs_nobody_in_or_up(browser: httpx.Client, headers: dict[str, str]) -> None:
    for path in ("/sign-in", "/sign-up"):
        answer = browser.post(path, data={"name": "grace", "password": PASSWORD}, headers=headers)
        assert answer.status_code == 403, path
    answer = browser.post("/api/v1/sessions", json={"name": "a", "password": PASSWORD}, headers=headers)
    assert answer.status_code == 403


def test_a_session_calls_the_api_and_writes_with_its_csrf_token_alone(each_registry: Registry) -> None:
    add_password(each_registry)
    with httpx.Client(base_url=each_registry.url) as browser:
        begun = browser.post("/api/v1/sessions", json={"name": "ada", "password": PASSWORD})
        assert begun.status_code == 201, begun.text
        assert begun.json()["account"] == "ada"
        who = browser.get("/api/v1/whoami")
        assert who.json()["token"]["name"] == "browser"
        body = {"name": "ci", "scopes": ["read"]}
        problem(browser.post("/api/v1/tokens", json=body), 403, "forbidden")
        headers = {"X-CSRF-Token": begun.json()["csrf_token"]}
        assert browser.post("/api/v1/tokens", json=body, headers=headers).status_code == 201
        assert browser.delete("/api/v1/sessions", headers=headers).status_code == 204
        problem(browser.get("/api/v1/whoami"), 401, "unauthenticated")


def test_a_session_is_no_token_and_a_token_no_session(registry: Registry) -> None:
    with registry.database.write() as session:
        _, secret = begin_session(session, session.merge(registry.account()))
    bearer = {"Authorization": f"Bearer {secret}"}
    problem(registry.http.get("/api/v1/whoami", headers=bearer), 401, "unauthenticated")
    problem(registry.http.delete("/api/v1/sessions", headers=registry.bearer()), 403, "forbidden")
    assert registry.http.get("/api/v1/whoami", headers=registry.bearer()).status_code == 200
    cookie = {"Cookie": f"{COOKIE}={registry.token()}"}
    problem(registry.http.get("/api/v1/whoami", headers=cookie), 401, "unauthenticated")


def test_a_session_ends_and_is_forgotten(registry: Registry) -> None:
    with registry.database.write() as session:
        token, secret = begin_session(session, session.merge(registry.account()))
        token.expires_at = utc_now() - timedelta(seconds=1)
    answer = registry.http.get("/account", headers={"Cookie": f"{COOKIE}={secret}"})
    assert answer.status_code == 303
    assert registry.http.get("/api/v1/tickets", headers={"Cookie": f"{COOKIE}={secret}"}).status_code == 200
    with registry.database.write() as session:
        begin_session(session, session.merge(registry.account()))
        assert len(session.scalars(select(Token)).all()) == 1


def test_a_new_password_ends_the_other_sessions(registry: Registry, browser: httpx.Client) -> None:
    token = sign_up(browser)
    with httpx.Client(base_url=registry.url) as other:
        assert other.post("/sign-in", data={"name": "grace", "password": PASSWORD}).status_code == 303
        fields = {"csrf_token": token, "old_password": "not the old one", "password": "a better password"}
        page = browser.post("/account/password", data=fields)
        assert page.status_code == 422
        assert other.get("/account").status_code == 200
        page = browser.post("/account/password", data=fields | {"old_password": PASSWORD})
        assert "The password is changed" in page.text
        assert other.get("/account").status_code == 303, "signed out"
    assert browser.get("/account").status_code == 200
    assert browser.post("/sign-in", data={"name": "grace", "password": PASSWORD}).status_code == 422


def test_a_token_that_may_little_sets_no_first_password(registry: Registry) -> None:
    body = {"password": PASSWORD}
    for headers in (registry.bearer("ada", "read"), {}):
        answer = registry.http.put("/api/v1/password", json=body, headers=headers)
        assert answer.status_code == (403 if headers else 401)
    assert registry.http.put("/api/v1/password", json=body, headers=registry.bearer()).status_code == 204
    answer = registry.http.put("/api/v1/password", json=body, headers=registry.bearer())
    assert "old_password" in problem(answer, 401, "unauthenticated")["detail"]


def test_whoever_finds_a_secret_may_end_it_and_learns_nothing(each_registry: Registry) -> None:
    headers = each_registry.bearer()
    body = {"secrets": [each_registry.tokens["ada"], "nvn_unknown"]}
    answer = each_registry.http.post("/api/v1/credentials/revoke", json=body)
    assert answer.status_code == 204
    problem(each_registry.http.get("/api/v1/whoami", headers=headers), 401, "unauthenticated")


def test_a_token_for_some_names_grants_no_others(registry: Registry) -> None:
    secret = registry.token("ada", "read", "publish", "yank", names=["lenet-*"])
    headers = {"Authorization": f"Bearer {secret}"}
    body = {"scopes": ["publish"], "names": ["conv-*"]}
    problem(registry.http.post("/api/v1/tokens", json=body, headers=headers), 403, "forbidden")
    made = registry.http.post("/api/v1/tokens", json={"scopes": ["publish"]}, headers=headers)
    assert made.json()["names"] == ["lenet-*"]
    assert registry.publish(make_ticket().to_bytes(), "conv-2").status_code == 201
    for change in ("yank", "unyank"):
        answer = registry.http.post(
            f"/api/v1/tickets/ada/conv-2/{change}", json={"reason": "withdrawn"}, headers=headers
        )
        assert "lenet-*" in problem(answer, 403, "forbidden")["detail"]


def test_the_link_of_the_console_makes_one_administrator_once(
    registry: Registry, browser: httpx.Client
) -> None:
    with registry.database.write() as session:
        key = make_setup_link(session)
    assert key is not None
    assert "first administrator" in browser.get("/setup", params={"key": key}).text
    wrong = browser.post("/sign-up", data={"name": "eve", "password": PASSWORD, "key": key + "x"})
    assert wrong.status_code == 422
    made = browser.post("/sign-up", data={"name": "root-of-all", "password": PASSWORD, "key": key})
    assert made.status_code == 303, made.text
    assert 'value="admin"' in browser.get("/account").text
    again = browser.post("/sign-up", data={"name": "eve", "password": PASSWORD, "key": key})
    assert "The link was used" in again.text
    with registry.database.write() as session:
        assert session.scalars(select(Account.name)).all() == ["root-of-all"]
        assert make_setup_link(session) is None


def test_an_old_link_and_one_that_was_replaced_are_refused(registry: Registry, browser: httpx.Client) -> None:
    with registry.database.write() as session:
        first, second = make_setup_link(session), make_setup_link(session)
        session.scalars(select(SetupLink)).one().expires_at = utc_now() - timedelta(seconds=1)
    for key in (first, second):
        assert key is not None
        page = browser.post("/sign-up", data={"name": "eve", "password": PASSWORD, "key": key})
        assert "The link was used, replaced by a newer one, or is older than a day." in page.text
