"""Accounts and tokens over HTTP."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select

from app.accounts.models import Account, Token
from app.db import utc_now
from tests.http.conftest import MakeRegistry
from tests.registry import Registry, pointers, problem


def test_a_stranger_makes_an_account_and_gets_a_token_that_works(each_registry: Registry) -> None:
    made = each_registry.http.post("/api/v1/accounts", json={"name": "grace"})
    assert made.status_code == 201
    secret = made.json()["token"]["secret"]
    assert secret.startswith("nvn_")
    who = each_registry.http.get("/api/v1/whoami", headers={"Authorization": f"Bearer {secret}"})
    assert who.json()["account"] == "grace"
    assert who.json()["token"]["scopes"] == ["job", "publish", "read", "yank"]


def test_an_account_name_that_is_taken_is_refused(each_registry: Registry) -> None:
    each_registry.account("grace")
    answer = each_registry.http.post("/api/v1/accounts", json={"name": "grace"})
    assert "'grace' is taken" in problem(answer, 409, "name-taken")["detail"]


def test_of_many_who_want_one_name_at_once_one_gets_it(each_registry: Registry) -> None:
    """The same name, and names that look alike."""
    names = ["paul", "pau1", "paul", "pau1", "paul", "pau1"]

    def sign_up(name: str) -> int:
        return httpx.post(f"{each_registry.url}/api/v1/accounts", json={"name": name}, timeout=30).status_code

    with ThreadPoolExecutor(len(names)) as pool:
        assert sorted(pool.map(sign_up, names)) == [201, 409, 409, 409, 409, 409]
    with each_registry.database.read() as session:
        assert len(session.scalars(select(Account)).all()) == 1


@pytest.mark.parametrize("name", ["", "Ada", "a/b", "-ada", "x" * 40, "é", "a\0b"])
def test_a_bad_account_name_is_refused(registry: Registry, name: str) -> None:
    answer = registry.http.post("/api/v1/accounts", json={"name": name})
    assert answer.status_code == 422
    assert pointers(answer.json()) == ["/name"]


def test_a_closed_registry_makes_no_accounts(make_registry: MakeRegistry) -> None:
    registry = make_registry(signup="closed")
    problem(registry.http.post("/api/v1/accounts", json={"name": "grace"}), 403, "forbidden")


def test_only_the_hash_of_a_secret_is_kept(registry: Registry) -> None:
    secret = registry.token()
    with registry.database.read() as session:
        kept = session.scalars(select(Token.secret_sha256)).one()
    assert kept == hashlib.sha256(secret.encode()).hexdigest()
    assert secret.encode() not in (registry.settings.home / "nirvana.db").read_bytes()


def test_a_new_token_shows_its_secret_once(registry: Registry) -> None:
    made = registry.http.post(
        "/api/v1/tokens", json={"name": "ci", "scopes": ["read"]}, headers=registry.bearer()
    )
    assert made.status_code == 201
    listed = registry.http.get("/api/v1/tokens", headers=registry.bearer())
    assert [token["name"] for token in listed.json()["items"]] == ["ci", "test"]
    assert made.json()["secret"] not in listed.text


def test_a_token_cannot_grant_more_than_it_has(registry: Registry) -> None:
    body = {"scopes": ["read", "admin"]}
    answer = registry.http.post("/api/v1/tokens", json=body, headers=registry.bearer())
    assert "admin" in problem(answer, 403, "forbidden")["detail"]


def test_a_token_cannot_grant_one_that_outlives_it(registry: Registry) -> None:
    ends = utc_now() + timedelta(hours=1)
    secret = registry.token("ada", "read", expires_at=ends)
    headers = {"Authorization": f"Bearer {secret}"}
    made = registry.http.post("/api/v1/tokens", json={"scopes": ["read"]}, headers=headers)
    assert made.json()["expires_at"] == ends.isoformat().replace("+00:00", "Z")


def test_a_token_cannot_end_one_that_may_do_more(registry: Registry) -> None:
    registry.bearer("ada")
    answer = registry.http.delete("/api/v1/tokens/1", headers=registry.bearer("ada", "read"))
    problem(answer, 403, "forbidden")


def test_an_unknown_scope_is_named(registry: Registry) -> None:
    body = {"scopes": ["read", "fly"]}
    answer = registry.http.post("/api/v1/tokens", json=body, headers=registry.bearer())
    assert pointers(problem(answer, 422, "invalid")) == ["/scopes/1"]


def test_a_revoked_token_is_refused(registry: Registry) -> None:
    headers = registry.bearer()
    token_id = registry.http.get("/api/v1/whoami", headers=headers).json()["token"]["id"]
    assert registry.http.delete(f"/api/v1/tokens/{token_id}", headers=headers).status_code == 204
    problem(registry.http.get("/api/v1/whoami", headers=headers), 401, "unauthenticated")


def test_an_expired_token_is_refused(registry: Registry) -> None:
    secret = registry.token()
    with registry.database.write() as session:
        session.scalars(select(Token)).one().expires_at = utc_now() - timedelta(seconds=1)
    answer = registry.http.get("/api/v1/whoami", headers={"Authorization": f"Bearer {secret}"})
    assert "ended" in problem(answer, 401, "unauthenticated")["detail"]


@pytest.mark.parametrize("header", ["Bearer nvn_wrong", "Bearer", "Basic YTpi", "nvn_wrong"])
def test_a_wrong_token_is_refused_even_where_none_is_needed(registry: Registry, header: str) -> None:
    answer = registry.http.get("/api/v1/tickets", headers={"Authorization": header})
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_an_under_scoped_token_is_told_which_scope_it_lacks(registry: Registry) -> None:
    answer = registry.http.post("/api/v1/tickets", headers=registry.bearer("ada", "read"), content=b"")
    assert problem(answer, 403, "missing-scope")["scope"] == "publish"
    assert 'scope="publish"' in answer.headers["www-authenticate"]


def test_a_token_of_somebody_else_cannot_be_revoked(registry: Registry) -> None:
    registry.bearer("ada")
    problem(registry.http.delete("/api/v1/tokens/1", headers=registry.bearer("bob")), 404, "not-found")


def test_the_use_of_a_token_is_written_down(registry: Registry) -> None:
    registry.http.get("/api/v1/whoami", headers=registry.bearer())
    listed = registry.http.get("/api/v1/tokens", headers=registry.bearer()).json()["items"]
    assert listed[0]["last_used_at"] is not None
