"""Signing in by an OpenID provider: a small real one on loopback, and those who attack the way there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import select

from app.accounts.models import Account
from app.accounts.oidc.service import Identity, SignIn
from app.accounts.sessions import hash_password, set_password
from app.db import utc_now
from app.dependencies import COOKIE
from tests.http.conftest import MakeRegistry
from tests.http.test_sessions import csrf
from tests.registry import EACH, Registry

CLIENT, SECRET = "nirvana at home", "s3cret/with:signs"
PASSWORD = "correct horse battery"
KEY = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
Claims = dict[str, Any]


@dataclass
class Provider:
    """A provider with authorise, token, keys and a document; who is asked for signs in at once.

    Attributes:
        subject: who signs in next.
        change: of the claims of the next token. sign: how the next token is signed.
        document: members of the document instead of the right ones. broken: paths that answer 500.
        codes: those that wait to be redeemed: the request that each is of.
    """

    issuer: str
    subject: str = "248289761001"
    change: Claims = field(default_factory=dict)
    sign: Callable[[Claims], str] = lambda claims: jwt.encode({"alg": "RS256", "kid": "first"}, claims, KEY)
    document: dict[str, Any] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def answer(self, path: str, query: dict[str, str], body: dict[str, str], basic: str) -> tuple[int, Any]:
        self.seen.append(path)
        if path in self.broken:
            return 500, {}
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorise?tenant=1",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            } | self.document
        if path == "/keys":
            return 200, {"keys": [KEY.as_dict(private=False)]}
        return self.redeem(body, basic) if path == "/token" else (404, {})

    def authorise(self, address: str) -> dict[str, str]:
        """Sign in at the address that the service sent a browser to: what it is sent back with."""
        asked = dict(parse_qsl(urlsplit(address).query))
        assert asked["client_id"] == CLIENT
        assert asked["tenant"] == "1", "the endpoint's own query stays"
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.issuer, "session_state": "x"}

    def redeem(self, body: dict[str, str], basic: str) -> tuple[int, Any]:
        asked = self.codes.pop(body.get("code", ""), None)
        if basic != f"{CLIENT}|{SECRET}":
            return 401, {"error": "invalid_client"}
        challenge = hashlib.sha256(body["code_verifier"].encode()).digest()
        encoded = base64.urlsafe_b64encode(challenge).decode().rstrip("=")
        if asked is None or encoded != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        assert body["redirect_uri"] == asked["redirect_uri"]
        now = int(time.time())
        claims: Claims = {"iss": self.issuer, "sub": self.subject, "aud": CLIENT, "nonce": asked["nonce"]}
        claims |= {"iat": now, "exp": now + 300, "email": "ada@example.org"}
        claims = {name: value for name, value in (claims | self.change).items() if value is not None}
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.sign(claims)}


@pytest.fixture
def provider() -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            body = dict(parse_qsl(self.rfile.read(length).decode()))
            kind, _, encoded = self.headers.get("authorization", "").partition(" ")
            basic = base64.b64decode(encoded).decode() if kind == "Basic" else ":"
            pair = "|".join(unquote(part) for part in basic.split(":"))
            status, answer = made.answer(parts.path, dict(parse_qsl(parts.query)), body, pair)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Provider(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def settings_of(provider: Provider) -> dict[str, str]:
    same = {"oidc_client_id": CLIENT, "oidc_client_secret": SECRET, "oidc_name": "Example & Sons"}
    return same | {"oidc_issuer": provider.issuer}


@pytest.fixture(params=EACH)
def each(request: pytest.FixtureRequest, make_registry: MakeRegistry, provider: Provider) -> Registry:
    return make_registry(request.param, limits="off", **settings_of(provider))


@pytest.fixture
def registry(make_registry: MakeRegistry, provider: Provider) -> Registry:
    return make_registry(limits="off", **settings_of(provider))


@pytest.fixture
def browser(registry: Registry) -> Iterator[httpx.Client]:
    with new_browser(registry) as client:
        yield client


def new_browser(registry: Registry) -> httpx.Client:
    return httpx.Client(base_url=registry.url, headers={"Accept": "text/html"}, timeout=30)


def leave(browser: httpx.Client, after: str = "/tasks") -> str:
    """Begin a sign-in: the provider's address that the browser is sent to."""
    answer = browser.get("/sign-in/oidc", params={"after": after})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def come_back(browser: httpx.Client, query: dict[str, str]) -> httpx.Response:
    return browser.get(f"/sign-in/oidc/callback?{urlencode(query)}", headers={"Sec-Fetch-Site": "cross-site"})


def sign_in(browser: httpx.Client, provider: Provider, after: str = "/tasks") -> httpx.Response:
    return come_back(browser, provider.authorise(leave(browser, after)))


def sign_up(browser: httpx.Client, provider: Provider, name: str = "grace") -> None:
    asked = sign_in(browser, provider)
    assert (asked.status_code, asked.headers.get("location")) == (303, "/sign-in/oidc/name"), asked.text
    made = browser.post("/sign-in/oidc/name", data={"name": name})
    assert (made.status_code, made.headers["location"]) == (303, "/tasks"), made.text


def accounts(registry: Registry) -> list[str]:
    with registry.database.read() as session:
        return list(session.scalars(select(Account.name).order_by(Account.id)))


def test_a_stranger_names_an_account_and_signs_in_again(each: Registry, provider: Provider) -> None:
    with new_browser(each) as browser:
        page = browser.get("/sign-in?after=/tasks").text
        assert (
            '<a class="button" href="/sign-in/oidc?after=/tasks">Sign in with Example &amp; Sons</a>' in page
        )
        sign_up(browser, provider)
        assert '<a href="/account">grace</a>' in browser.get("/tasks").text
    with new_browser(each) as browser:
        answer = sign_in(browser, provider)
        assert (answer.status_code, answer.headers["location"]) == (303, "/tasks")
        assert "as 248289761001" in browser.get("/account").text
    assert accounts(each) == ["grace"]
    with each.database.read() as session:
        assert session.scalars(select(SignIn)).all() == [], "nothing of a sign-in stays"


def test_somebody_is_known_by_the_issuers_name_for_them_and_not_by_an_address(
    registry: Registry, browser: httpx.Client, provider: Provider
) -> None:
    sign_up(browser, provider)
    provider.subject = "another"  # with the same e-mail address
    with new_browser(registry) as other:
        assert sign_in(other, provider).headers["location"] == "/sign-in/oidc/name"
    assert accounts(registry) == ["grace"]


@pytest.mark.parametrize(
    ("name", "why"), [("grace", "taken"), ("admin", "kept"), ("Grace", "not an account")]
)
def test_a_first_name_follows_the_rules_of_sign_up_and_can_be_tried_again(
    registry: Registry, browser: httpx.Client, provider: Provider, name: str, why: str
) -> None:
    registry.account("grace")
    sign_in(browser, provider)
    page = browser.post("/sign-in/oidc/name", data={"name": name})
    assert page.status_code == 422
    assert why in page.text
    assert browser.post("/sign-in/oidc/name", data={"name": "grace-2"}).status_code == 303
    again = browser.post("/sign-in/oidc/name", data={"name": "grace-3"})
    assert "begun in another browser, was used" in again.text
    assert accounts(registry) == ["grace", "grace-2"]


def test_closed_signup_is_closed_here_too(make_registry: MakeRegistry, provider: Provider) -> None:
    registry = make_registry(limits="off", signup="closed", **settings_of(provider))
    with new_browser(registry) as browser:
        page = sign_in(browser, provider)
        assert (page.status_code, "makes none for strangers" in page.text) == (403, True)
        refused = browser.post("/sign-in/oidc/name", data={"name": "grace"})
        assert refused.status_code == 422
    assert accounts(registry) == []


CHANGES: dict[str, Claims] = {
    "another nonce": {"nonce": "x"},
    "no nonce": {"nonce": None},
    "another audience": {"aud": "somebody-else"},
    "more audiences and no authorised party": {"aud": [CLIENT, "somebody-else"]},
    "another authorised party": {"azp": "somebody-else"},
    "no audience": {"aud": None},
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "expired": {"exp": 1},
    "no end": {"exp": None},
    "not valid yet": {"nbf": 2**33},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is a list": {"sub": ["248289761001"]},
    "a subject with NUL": {"sub": "a\0b"},
    "a subject that is too long": {"sub": "a" * 256},
}


def test_a_token_for_another_sign_in_is_refused(
    registry: Registry, browser: httpx.Client, provider: Provider
) -> None:
    for what, provider.change in CHANGES.items():
        page = sign_in(browser, provider)
        assert page.status_code == 403, (what, page.text)
        assert "Example &amp; Sons has sent a token" in page.text, what
        assert COOKIE not in browser.cookies
        assert browser.post("/sign-in/oidc/name", data={"name": "eve"}).status_code == 422
    assert accounts(registry) == []


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def by_hand(algorithm: str, claims: Claims, secret: bytes | None) -> str:
    """A token that no library makes, with an HMAC by the secret."""
    text = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": algorithm}, claims))
    signature = b"" if secret is None else hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{encoded(signature)}"


def unsigned(claims: Claims) -> str:
    return by_hand("none", claims, None)


def by_the_public_key(claims: Claims) -> str:
    """A token whose secret is what everybody can read: a service that believes its header takes it."""
    return by_hand("HS256", claims, KEY.as_pem(private=False))


def by_the_clients_secret(claims: Claims) -> str:
    return by_hand("HS256", claims, SECRET.encode())


def by_another_key(claims: Claims) -> str:
    other = RSAKey.generate_key(2048, {"kid": "first"})
    return jwt.encode({"alg": "RS256", "kid": "first"}, claims, other)


def by_its_own_key(claims: Claims) -> str:
    other = RSAKey.generate_key(2048)
    header = {"alg": "RS256", "jwk": other.as_dict(private=False)}
    return jwt.encode(header, claims, other)


FORGERIES = (unsigned, by_the_public_key, by_the_clients_secret, by_another_key, by_its_own_key)


def test_a_forged_token_is_refused(registry: Registry, browser: httpx.Client, provider: Provider) -> None:
    for provider.sign in (*FORGERIES, lambda _: "x.y.z", lambda _: ""):
        page = sign_in(browser, provider)
        assert page.status_code == 403, (provider.sign, page.text)
    assert accounts(registry) == []


def test_an_answer_is_taken_from_the_browser_that_began_alone(registry: Registry, provider: Provider) -> None:
    """Login CSRF: eve signs in at the provider and has ada's browser bring the answer back."""
    with new_browser(registry) as eve, new_browser(registry) as ada:
        answer = provider.authorise(leave(eve))
        assert "begun in another browser" in come_back(ada, answer).text
        leave(ada)  # one of her own is under way
        assert "begun in another browser" in come_back(ada, answer).text
        assert "/token" not in provider.seen, "no code is redeemed"
        assert come_back(eve, answer).status_code == 303


def test_an_answer_is_good_once(registry: Registry, browser: httpx.Client, provider: Provider) -> None:
    leave(browser)
    key = browser.cookies["nirvana_sign_in"]
    answer = provider.authorise(leave(browser))
    second = browser.cookies["nirvana_sign_in"]
    assert come_back(browser, answer).status_code == 303
    for cookie in (key, second):
        browser.cookies.clear()
        browser.cookies.set("nirvana_sign_in", cookie)
        assert come_back(browser, answer).status_code == 403


def test_a_code_that_was_redeemed_elsewhere_is_refused(browser: httpx.Client, provider: Provider) -> None:
    answer = provider.authorise(leave(browser))
    provider.codes.clear()
    page = come_back(browser, answer)
    assert (page.status_code, "invalid_grant" in page.text) == (403, True)


def test_a_code_of_another_sign_in_is_of_no_use(registry: Registry, provider: Provider) -> None:
    """The code that eve has stolen is bound to a verifier that she has not (PKCE)."""
    with new_browser(registry) as ada, new_browser(registry) as eve:
        stolen = provider.authorise(leave(ada))
        own = provider.authorise(leave(eve))
        page = come_back(eve, own | {"code": stolen["code"]})
        assert (page.status_code, "invalid_grant" in page.text) == (403, True)


def test_an_answer_that_is_none_is_refused(browser: httpx.Client, provider: Provider) -> None:
    changes: list[dict[str, str]] = [{"state": "x"}, {"state": ""}, {"code": ""}, {"error": "access_denied"}]
    for change in [*changes, {"iss": "https://evil.example"}]:
        page = come_back(browser, provider.authorise(leave(browser)) | change)
        assert page.status_code == 403, change
        assert "error" not in change or "access_denied" in page.text
    assert "/token" not in provider.seen


def test_a_sign_in_that_takes_too_long_is_over(
    registry: Registry, browser: httpx.Client, provider: Provider
) -> None:
    answer = provider.authorise(leave(browser))
    with registry.database.write() as session:
        session.scalars(select(SignIn)).one().expires_at = utc_now()
    assert come_back(browser, answer).status_code == 403
    leave(browser)
    with registry.database.read() as session:
        assert len(session.scalars(select(SignIn)).all()) == 1, "those that ended are forgotten"


def test_nobody_is_sent_to_another_site_afterwards(browser: httpx.Client, provider: Provider) -> None:
    sign_up(browser, provider)
    evil = "evil.example"
    for after in (f"https://{evil}", f"//{evil}", f"/\\{evil}", f"/\t/{evil}", "javascript:x"):
        assert sign_in(browser, provider, after).headers["location"] == "/account", after


def test_where_to_come_back_to_is_the_services_own_address_whatever_the_host(
    registry: Registry, browser: httpx.Client
) -> None:
    answer = browser.get("/sign-in/oidc", headers={"Host": "evil.example"})
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    assert asked["redirect_uri"] == [f"{registry.settings.public_url}/sign-in/oidc/callback"]
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


TROUBLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/.well-known/openid-configuration", {}),
    ("/token", {}),
    ("/keys", {}),
    ("", {"issuer": "https://evil.example"}),
    ("", {"jwks_uri": 7}),
    ("", {"token_endpoint": "ftp://127.0.0.1/token"}),
    ("", {"jwks_uri": "http://"}),
    ("", {"padding": "x" * 2**20}),
)


def test_a_provider_that_does_not_work_is_named(browser: httpx.Client, provider: Provider) -> None:
    for broken, document in TROUBLES:
        answer = provider.authorise(leave(browser))
        provider.broken, provider.document = {broken}, document
        page = come_back(browser, answer)
        assert page.status_code == 503, (broken, document, page.text)
        assert "signs nobody in now" in page.text
        provider.broken, provider.document = set(), {}


def test_a_provider_that_is_down_is_named(make_registry: MakeRegistry, provider: Provider) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        issuer = f"http://127.0.0.1:{unused.getsockname()[1]}"
        registry = make_registry(**settings_of(provider) | {"oidc_issuer": issuer})
        page = registry.http.get("/sign-in/oidc", headers={"Accept": "text/html"})
    assert page.status_code == 503
    assert "127.0.0.1 signs nobody in now: ConnectError" in page.text


def test_without_a_provider_there_is_no_such_way(make_registry: MakeRegistry) -> None:
    registry = make_registry()
    assert "oidc" not in registry.http.get("/sign-in").text
    for path in ("/sign-in/oidc", "/sign-in/oidc/callback", "/sign-in/oidc/name"):
        assert registry.http.get(path).status_code == 404, path


def sign_in_by_password(registry: Registry, browser: httpx.Client, name: str = "ada") -> str:
    with registry.database.write() as session:
        set_password(session, session.merge(registry.account(name)), hash_password(name, PASSWORD))
    assert browser.post("/sign-in", data={"name": name, "password": PASSWORD}).status_code == 303
    return csrf(browser.get("/account").text)


def test_an_account_links_an_identity_and_unlinks_it(
    registry: Registry, browser: httpx.Client, provider: Provider
) -> None:
    token = sign_in_by_password(registry, browser)
    away = browser.post("/account/identities", data={"csrf_token": token})
    assert come_back(browser, provider.authorise(away.headers["location"])).headers["location"] == "/account"
    with new_browser(registry) as other:
        assert sign_in(other, provider).headers["location"] == "/tasks"
        assert '<a href="/account">ada</a>' in other.get("/tasks").text
    number = re.search(r"/account/identities/(\d+)/unlink", browser.get("/account").text)
    assert number is not None
    assert browser.post(number[0], data={"csrf_token": token}).status_code == 303
    with new_browser(registry) as other:
        assert sign_in(other, provider).headers["location"] == "/sign-in/oidc/name"


def test_an_identity_is_of_one_account(registry: Registry, browser: httpx.Client, provider: Provider) -> None:
    with new_browser(registry) as grace:
        sign_up(grace, provider)
    token = sign_in_by_password(registry, browser)
    away = browser.post("/account/identities", data={"csrf_token": token})
    page = come_back(browser, provider.authorise(away.headers["location"]))
    assert (page.status_code, "signs in to an account already" in page.text) == (403, True)


def test_nobody_links_an_identity_to_another_account(
    registry: Registry, browser: httpx.Client, provider: Provider
) -> None:
    token = sign_in_by_password(registry, browser)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {}):
        forged = browser.post("/account/identities", data={"csrf_token": "0" * 64}, headers=headers)
        assert forged.status_code == 403
    away = browser.post("/account/identities", data={"csrf_token": token}).headers["location"]
    key = browser.cookies["nirvana_sign_in"]
    answer = provider.authorise(away)
    with new_browser(registry) as eve:  # with the cookie, but signed in as herself
        sign_in_by_password(registry, eve, "eve")
        eve.cookies.set("nirvana_sign_in", key)
        assert "not signed in any more" in come_back(eve, answer).text
    with registry.database.read() as session:
        assert session.scalars(select(Identity)).all() == []


def test_the_last_way_to_sign_in_stays(registry: Registry, browser: httpx.Client, provider: Provider) -> None:
    sign_up(browser, provider)
    page = browser.get("/account").text
    token, number = csrf(page), re.search(r"/account/identities/(\d+)/unlink", page)
    assert number is not None
    assert "Old password" not in page
    refused = browser.post(number[0], data={"csrf_token": token})
    assert (refused.status_code, "set a password first" in refused.text) == (422, True)
    assert browser.post("/account/identities/999/unlink", data={"csrf_token": token}).status_code == 422
    changed = browser.post("/account/password", data={"csrf_token": token, "password": PASSWORD})
    assert changed.status_code == 200, changed.text
    assert browser.post(number[0], data={"csrf_token": token}).status_code == 303


def test_a_new_account_counts_as_a_sign_up_and_trying_as_a_sign_in(
    make_registry: MakeRegistry, provider: Provider
) -> None:
    rates = {"sign-in": "5/day", "sign-up": "1/day"}
    registry = make_registry(rates=rates, **settings_of(provider))
    with new_browser(registry) as browser:
        sign_up(browser, provider)
    provider.subject = "somebody-else"
    with new_browser(registry) as browser:
        sign_in(browser, provider)
        assert browser.post("/sign-in/oidc/name", data={"name": "grace-2"}).status_code == 429
        assert browser.get("/sign-in/oidc").status_code == 303
        assert browser.get("/sign-in/oidc").status_code == 429
