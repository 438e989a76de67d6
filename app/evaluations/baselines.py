"""Rules of baselines: runs that were measured here before, which a verification need not train again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.db import insert_if_absent, utc_now
from app.evaluations.models import Baseline

KEYS_AT_ONCE = 500  # well below what one statement of SQLite may ask for


def find_runs(session: Session, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The records of those keys that are there."""
    wanted, found = sorted(set(keys)), list[Baseline]()
    for first in range(0, len(wanted), KEYS_AT_ONCE):
        some = Baseline.key.in_(wanted[first : first + KEYS_AT_ONCE])
        found += session.scalars(select(Baseline).where(some))
    return {row.key: row.body for row in found}


def keep_runs(session: Session, records: Iterable[Mapping[str, Any]], **about: str) -> None:
    """Keep records of the run cache, each under its `key`; the newest of one key stays.

    A run is only trained again where the one that is there was measured in another environment, or by the
    ticket's own arm.

    Args:
        about: `task`, `architecture_digest`, `recipe_digest`, `arm` and `job_id` of all of them.
    """
    for record in records:
        values: dict[str, Any] = {"body": dict(record), "created_at": utc_now(), **about}
        if not insert_if_absent(session, Baseline, key=record["key"], **values):
            session.execute(update(Baseline).where(Baseline.key == record["key"]).values(values))
