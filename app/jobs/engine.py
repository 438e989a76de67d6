"""The engine's half that the service needs: a job's start, written by the transaction that writes its row.

The service never runs the engine (`worker/engine.py` does); it only writes one row into the engine's tables,
which lie in the same database. So either both are committed or neither is, and no job is ever lost between.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app.jobs.models import Job

if TYPE_CHECKING:
    from dbos import DBOSClient

APPLICATION = "nirvana"
VERSION = (
    "4"  # workers take jobs of their own version only; raise it when a workflow's steps change their order
)
WORKFLOW = "run_job"
QUEUE = "cpu"
REVERIFY_QUEUE = "reverify"  # of the registry itself; its jobs run beside others', at the lowest priority


def migrate_engine(engine: Engine) -> None:
    """Create or migrate the engine's own tables in the database of `engine`; safe to repeat."""
    from dbos import DBOS, SQLAlchemyDatasource

    url = engine_url(engine)
    DBOS.migrate(url)
    SQLAlchemyDatasource.migrate(url)


def enqueue(session: Session, job: Job) -> None:
    """Write the job's start into the engine's tables, in the caller's transaction."""
    client = client_for(engine_url(session.get_bind().engine))
    client.enqueue_in_transaction(
        session,
        {
            "workflow_name": WORKFLOW,
            "workflow_id": job.id,
            "queue_name": job.queue,
            "app_version": VERSION,
            "priority": job.priority,
        },
        job.id,
    )


@lru_cache(maxsize=4)
def client_for(url: str) -> DBOSClient:
    """The engine's client for a database. It connects when first used, and enqueueing never uses it."""
    from dbos import DBOSClient, DBOSPortableJSONSerializer

    serializer = DBOSPortableJSONSerializer()
    return DBOSClient(system_database_url=url, serializer=serializer, application_name=APPLICATION, lazy=True)


def engine_url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)
