"""Idempotency-Key of a publication: one key, one request."""

from __future__ import annotations

import hashlib

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.db import insert_if_absent, utc_now
from app.tickets.models import IdempotencyKey
from nirvana.errors import IdempotencyMismatch


def check_key(session: Session, account: Account, key: str | None, request: dict[str, str]) -> None:
    """Keep what a key is used for, or compare it with what it was used for.

    Args:
        key: None: nothing to do.
        request: what the key stands for: the fields, and the file's digest.

    Raises:
        IdempotencyMismatch: the account used the key for another request.
    """
    if key is None:
        return
    digest = hashlib.sha256(repr(sorted(request.items())).encode()).hexdigest()
    row = {"account_id": account.id, "key": key, "request_sha256": digest, "created_at": utc_now()}
    if insert_if_absent(session, IdempotencyKey, **row):
        return
    query = select(IdempotencyKey.request_sha256)
    where = (IdempotencyKey.account_id == account.id, IdempotencyKey.key == key)
    if session.scalars(query.where(*where)).one() != digest:
        raise IdempotencyMismatch(f"The Idempotency-Key {key!r} was used for another ticket or name.")
