"""A registry to test: migrated databases that cost a copy each, and the real service on loopback."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import create_engine, make_url, select, text
from sqlalchemy.orm import Session

from app.__main__ import migrate_database
from app.accounts.models import Account
from app.accounts.service import FIRST_SCOPES, create_account, create_token, find_account
from app.db import Database, Json
from app.evaluations.models import Evaluation
from app.evaluations.service import record_evaluation
from app.jobs.engine import client_for, engine_url
from app.main import create_app
from app.settings import Settings
from app.storage import Storage
from app.tickets.models import Listing

POSTGRES = "NIRVANA_TEST_POSTGRES_URL"
DATABASES = ("sqlite", "postgresql")
_needs_postgres = pytest.mark.skipif(POSTGRES not in os.environ, reason=f"{POSTGRES} is not set")
EACH = [pytest.param(name, marks=_needs_postgres if name == "postgresql" else ()) for name in DATABASES]
TICKET_TYPE = "application/vnd.nirvana.ticket"
VERDICT = {
    "verdict": "WINNING",
    "protocol": "nirvana-verify/1",
    "reason": "it matches the dense baseline and beats every control",
    "replicates": 5,
    "margin": 0.01,
    "task": "digits",
    "arms": {"dense": [0.95, 0.96, 0.955, 0.95, 0.96], "ticket": [0.96, 0.97, 0.965, 0.96, 0.97]},
}


class Templates:
    """Migrated databases, one a kind, of which every test gets a copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres_name = f"nirvana_{uuid.uuid4().hex[:12]}"
        self._made: set[str] = set()
        self._free: list[str] = []

    @contextmanager
    def copy(self, kind: str, home: Path) -> Iterator[str]:
        """The URL of a fresh copy, gone afterwards."""
        if kind not in self._made:
            self._make(kind)
        if kind == "sqlite":
            shutil.copy(self.folder / "nirvana.db", home / "nirvana.db")
            yield f"sqlite:///{home / 'nirvana.db'}"
            return
        name = self._free.pop() if self._free else self._create()
        yield postgres_url(name)
        empty_postgres(postgres_url(name))
        self._free.append(name)

    def _create(self) -> str:
        name = f"{self.postgres_name}_{uuid.uuid4().hex[:8]}"
        run_postgres(f'CREATE DATABASE "{name}" TEMPLATE "{self.postgres_name}"')
        self._made.add(name)
        return name

    def _make(self, kind: str) -> None:
        url = f"sqlite:///{self.folder / 'nirvana.db'}"
        if kind == "postgresql":
            run_postgres(f'CREATE DATABASE "{self.postgres_name}"')
            url = postgres_url(self.postgres_name)
        migrate_database(make_settings(self.folder, database_url=url))
        self._made.add(kind)

    def drop(self) -> None:
        """Remove what lies outside the folder."""
        for name in self._made - {"sqlite"}:
            database = self.postgres_name if name == "postgresql" else name
            run_postgres(f'DROP DATABASE "{database}" WITH (FORCE)')


def empty_postgres(url: str) -> None:
    """Take every row out of a migrated database: much cheaper than another database, or TRUNCATE."""
    engine = create_engine(url)
    with engine.begin() as connection:
        tables = connection.scalars(
            text(
                "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'dbos') "
                "AND tablename NOT LIKE '%migrations' AND tablename <> 'alembic_version'"
            )
        ).all()
        numbers = connection.scalars(text("SELECT schemaname || '.' || sequencename FROM pg_sequences")).all()
        connection.exec_driver_sql("SET session_replication_role = replica")  # no foreign keys meanwhile
        connection.exec_driver_sql("; ".join(f"DELETE FROM {name}" for name in tables))
        connection.exec_driver_sql("; ".join(f"ALTER SEQUENCE {name} RESTART" for name in numbers))
    engine.dispose()


def postgres_url(name: str) -> str:
    """The URL of a database on the test server."""
    url = make_url(os.environ[POSTGRES]).set(database=name, drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def run_postgres(statement: str) -> None:
    """Run a statement outside any transaction."""
    engine = create_engine(os.environ[POSTGRES], isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def make_settings(home: Path, **fields: Any) -> Settings:
    """Settings of a test's own home, whatever the environment says."""
    defaults: dict[str, Any] = {"database_url": f"sqlite:///{home / 'nirvana.db'}"}
    defaults |= {"blob_url": (home / "blobs").as_uri(), "log_level": "warning", "check_processes": 0}
    defaults["refusal_seconds"] = 0
    return Settings.model_validate({"home": home} | defaults | fields)


@dataclass
class Registry:
    """A running service, and what is behind it."""

    settings: Settings
    database: Database
    storage: Storage
    url: str
    http: httpx.Client
    tokens: dict[str, str] = field(default_factory=dict)
    stop: Callable[[], None] = lambda: None

    def token(self, name: str = "ada", *scopes: str, **fields: Any) -> str:
        """The secret of a new token of an account, which is made if need be."""
        with self.database.write() as session:
            account = find_account(session, name) or create_account(session, name, by_operator=True)
            made = create_token(session, account, name="test", scopes=scopes or FIRST_SCOPES, **fields)
        return made[1]

    def account(self, name: str = "ada") -> Account:
        """An account, which is made if need be."""
        with self.database.write() as session:
            return find_account(session, name) or create_account(session, name, by_operator=True)

    def bearer(self, name: str = "ada", *scopes: str) -> dict[str, str]:
        """The header of a token, the same one for the same scopes."""
        key = "/".join((name, *scopes))
        if key not in self.tokens:
            self.tokens[key] = self.token(name, *scopes)
        return {"Authorization": f"Bearer {self.tokens[key]}"}

    def publish(self, data: bytes, name: str, *, by: str = "ada", **fields: str) -> httpx.Response:
        """Publish a ticket as a form."""
        files = {"file": ("x.ticket", data, TICKET_TYPE)}
        return self.http.post(
            "/api/v1/tickets", files=files, data={"name": name, **fields}, headers=self.bearer(by)
        )

    def search(self, **query: Any) -> list[str]:
        """Names of the listings that a search finds."""
        answer = self.http.get("/api/v1/tickets", params=query)
        assert answer.status_code == 200, answer.text
        return [item["name"] for item in answer.json()["items"]]


def count_now(session: Session) -> None:
    """Let PostgreSQL keep its counts with each statement, and not at the end of the transaction."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


def measure(session: Session, digest: str, evaluation: Json, job_id: str | None = None) -> Evaluation:
    """Record an evaluation of the first listing of a ticket, on its task."""
    query = select(Listing.exam_key).where(Listing.digest == digest, Listing.task == evaluation["task"])
    exam = session.scalars(query.order_by(Listing.id).limit(1)).one_or_none()
    return record_evaluation(session, exam or "0" * 64, digest, evaluation, job_id)


def started_jobs(database: Database) -> set[str]:
    """The jobs that the engine knows. Its client is closed: one that is collected later would warn."""
    client = client_for(engine_url(database.engine))
    try:
        return {found.workflow_id for found in client.list_workflows()}
    finally:
        client.destroy()
        client_for.cache_clear()


@contextmanager
def run_registry(settings: Settings) -> Iterator[Registry]:
    """Run the service on a free port of loopback, in a thread."""
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    patience = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < patience:
        time.sleep(0.01)
    assert server.started

    def stop() -> None:
        server.should_exit = True
        thread.join(20)

    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=30) as http:
            state = app.state
            yield Registry(settings, state.database, state.storage, url, http, stop=stop)
    finally:
        stop()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of a refused request, checked for what every one has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["code"] == code, body
    assert body["request_id"] == answer.headers["x-request-id"]
    assert set(body) >= {"type", "title", "detail", "instance", "errors"}
    return body


def pointers(body: dict[str, Any]) -> list[str]:
    """Where the problems of a document are."""
    return [error["pointer"] for error in body["errors"]]
