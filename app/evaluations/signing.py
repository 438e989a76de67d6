"""Verdicts that travel: Ed25519 signatures (JWS, RFC 7515, 8037 and 9864) over what an evaluation says.

The private key is a file of whoever runs the service. Every public key that ever signed here stays in the
database, so that an old signature can be checked after the key was replaced.
"""

from __future__ import annotations

import os
from pathlib import Path

import rfc8785
from joserfc import jws
from joserfc.jwk import OKPKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import Json, insert_if_absent, utc_now
from app.evaluations.models import SigningKey
from nirvana.client.signatures import ALGORITHM, TYPE, VERSION
from nirvana.errors import StorageFailed


def load_key(path: Path) -> OKPKey:
    """Return the key of a PEM file; where there is no file, make one that only its owner reads.

    Raises:
        StorageFailed: the file holds no Ed25519 private key.
    """
    if not path.exists():
        _make_key(path)
    try:
        key = OKPKey.import_key(path.read_bytes(), {"use": "sig", "alg": ALGORITHM})
    except ValueError as error:
        raise StorageFailed(f"{path}: no private key in PEM ({error}); expected Ed25519.") from None
    if key.curve_name != "Ed25519" or not key.is_private:
        raise StorageFailed(f"{path}: expected an Ed25519 private key.")
    key.ensure_kid()
    return key


def _make_key(path: Path) -> None:
    """Write a new key. Of two processes that start at once, both use that of the first one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = path.with_name(f"{path.name}.{os.getpid()}")
    made = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(made, "wb") as file:
        file.write(OKPKey.generate_key("Ed25519").as_pem(private=True))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(written, path)
    except FileExistsError:
        pass
    finally:
        written.unlink()


def publish_key(session: Session, key: OKPKey) -> None:
    """Keep the public half, so that `list_keys` has it from now on."""
    public = key.as_dict(private=False)
    insert_if_absent(session, SigningKey, kid=public["kid"], jwk=public, created_at=utc_now())


def list_keys(session: Session) -> Json:
    """Return all public keys that signed here, newest first: a JWK set (RFC 7517)."""
    rows = session.scalars(select(SigningKey).order_by(SigningKey.created_at.desc(), SigningKey.kid))
    return {"keys": [row.jwk for row in rows]}


def signed_key(evaluation_id: int) -> str:
    """Return the key of the blob that holds a mirrored verdict with the registry's own signature."""
    return f"signed/{evaluation_id}.json"


def sign_verdict(key: OKPKey, registry: str, evaluation: Json) -> Json:
    """Return the flattened JWS of an evaluation (RFC 7515, 7.2.2): `payload`, `protected`, `signature`.

    The same evaluation has the same signature by the same key.

    Args:
        registry: address of the service that measured it.
        evaluation: the body of the answer that shows it.
    """
    statement: Json = {"type": TYPE, "version": VERSION, "registry": registry, "evaluation": evaluation}
    members: jws.HeaderDict = {"protected": {"alg": ALGORITHM, "kid": key.kid or "", "typ": f"{TYPE}+json"}}
    return {**jws.serialize_json(members, rfc8785.dumps(statement), key, algorithms=[ALGORITHM])}
