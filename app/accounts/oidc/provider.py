"""The provider's side of a sign-in: its document, its tokens and its keys, each fetched when it is needed.

Nothing is kept between two sign-ins, so a key that the provider has changed is never an old one here.

Reference: OpenID Connect Core 1.0, section 3.1 (code flow); RFC 7636 (PKCE).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, Field, ValidationError

from app.settings import Settings
from nirvana.errors import Forbidden, Unavailable

SECONDS = 5.0  # that the provider has for each answer
LEEWAY_SECONDS = 60  # that its clock may be wrong by
MOST_BYTES = 512 * 1024
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Of signatures by a key of the provider's: never `none`, and none by a secret that both know."""
LONGEST_SUBJECT = 255


class Document(BaseModel):
    """What is needed of a provider's discovery document."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    id_token_signing_alg_values_supported: list[str] = Field(default_factory=lambda: ["RS256"])


class Provider:
    """The provider of the settings.

    Attributes:
        name: what people call it.
        redirect_uri: of this service, where it sends people back to.
    """

    def __init__(self, settings: Settings) -> None:
        self.issuer = settings.oidc_issuer
        self.client_id = settings.oidc_client_id
        self.secret = settings.oidc_client_secret.get_secret_value()
        self.name = settings.oidc_label
        self.redirect_uri = f"{settings.public_url}/sign-in/oidc/callback"

    async def address(self, *, state: str, nonce: str, verifier: str) -> str:
        """Return where to send somebody who wants to sign in. Raises: Unavailable."""
        async with _client() as client:
            document = await self._discover(client)
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid",
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        address: str = add_params_to_uri(document.authorization_endpoint, list(asked.items()))
        return address

    async def redeem(self, code: str, *, nonce: str, verifier: str) -> str:
        """Return who has signed in there: the subject that the provider's signed token names.

        Raises:
            Unavailable: the provider does not answer as one.
            Forbidden: it does not take the code, or the token is not for this sign-in.
        """
        async with _client() as client:
            document = await self._discover(client)
            tokens = await self._exchange(client, document, code, verifier)
            keys = await _fetch(client, document.jwks_uri)
        return self._read(document, tokens, keys, nonce)

    async def _discover(self, client: httpx.AsyncClient) -> Document:
        address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            document = Document.model_validate(await _fetch(client, address))
        except ValidationError:
            raise _unavailable(address, "its document is not one of a provider") from None
        if document.issuer != self.issuer:
            raise _unavailable(address, f"it says that it is {document.issuer[:200]!r}")
        for endpoint in (document.authorization_endpoint, document.token_endpoint, document.jwks_uri):
            if urlsplit(endpoint).scheme not in {"https", urlsplit(self.issuer).scheme}:
                raise _unavailable(address, f"its endpoint {endpoint[:200]!r} is not encrypted")
        return document

    async def _exchange(
        self, client: httpx.AsyncClient, document: Document, code: str, verifier: str
    ) -> Mapping[str, Any]:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
        }
        if not self.secret:
            fields["client_id"] = self.client_id
        basic = (quote(self.client_id, safe=""), quote(self.secret, safe="")) if self.secret else None
        return await _fetch(client, document.token_endpoint, fields, basic)

    def _read(
        self, document: Document, tokens: Mapping[str, Any], keys: Mapping[str, Any], nonce: str
    ) -> str:
        """Return the subject of an ID token. Raises: Forbidden: it is none, or of another sign-in."""
        algorithms = sorted({*ALGORITHMS} & {*document.id_token_signing_alg_values_supported}) or ["RS256"]
        options = {"iss": {"essential": True, "value": self.issuer}}
        options |= {"aud": {"essential": True, "value": self.client_id}, "sub": {"essential": True}}
        asked = {"nonce": nonce, "client_id": self.client_id, "access_token": tokens.get("access_token")}
        try:
            key_set = KeySet.import_key_set(dict(keys))  # type: ignore[arg-type]
            token = jwt.decode(str(tokens.get("id_token")), key_set, algorithms=algorithms)
            claims = CodeIDToken(token.claims, token.header, options, asked)
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise Forbidden(f"{self.name} has sent a token that is not right: {_why(error)}.") from None
        subject: str = claims["sub"]
        if not 0 < len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
            raise Forbidden(f"{self.name} has sent a token without a name that can be kept.")
        return subject


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=SECONDS, follow_redirects=False, headers={"Accept": "application/json"})


async def _fetch(
    client: httpx.AsyncClient,
    address: str,
    fields: Mapping[str, str] | None = None,
    basic: tuple[str, str] | None = None,
) -> Mapping[str, Any]:
    """Return the JSON object at an address, or the answer to a form.

    Raises:
        Unavailable: there is none. Forbidden: the form is refused.
    """
    method, auth = ("GET", None) if fields is None else ("POST", basic and httpx.BasicAuth(*basic))
    try:
        async with client.stream(method, address, data=fields, auth=auth) as answer:
            content = b""
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise _unavailable(address, f"its answer is longer than {MOST_BYTES} bytes")
        body = json.loads(content)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unavailable(address, type(error).__name__) from None
    except ValueError:
        body = None
    if fields is not None and answer.status_code in (400, 401, 403):
        said = str(body.get("error"))[:100] if isinstance(body, dict) else answer.status_code
        raise Forbidden(f"The provider does not take the code: {said}. Sign in again.")
    if answer.status_code != 200 or not isinstance(body, dict):
        raise _unavailable(address, f"it answers {answer.status_code}")
    return body


def _unavailable(address: str, why: str) -> Unavailable:
    host = urlsplit(address).hostname
    return Unavailable(f"{host} signs nobody in now: {why}. Try again later.", retry_after_seconds=30)


def _why(error: Exception) -> str:
    return str(getattr(error, "description", "") or getattr(error, "error", "") or type(error).__name__)
