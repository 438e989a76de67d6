"""The server in front of the app: its processes, and what a connection may cost before there is a request."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.limits.counters import make_counters
from app.limits.service import Connections
from app.main import create_app
from app.settings import Settings
from app.telemetry import configure_logs
from nirvana.environment import end_with_parent

DRAIN_SECONDS = 10
START_SECONDS = 60  # until a process of several answers; on a busy machine imports take many


def serve(settings: Settings) -> None:
    """Answer requests until SIGTERM or Ctrl-C; requests in flight are finished."""
    if settings.workers == 1:
        _run(create_app(settings), settings)
        return
    if "://" in settings.limit_storage:
        make_counters(settings.limit_storage)  # refused here, and not by each process again and again
    with TemporaryDirectory(prefix="nirvana-serve-") as folder:
        os.environ.update(_environment(settings, Path(folder)))
        _run("app.server:make_app", settings)


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Return what the processes of one service share: its settings, its counters and its metrics."""
    counters, metrics = folder / "limits.db", folder / "metrics"
    metrics.mkdir()
    shared = {"NIRVANA_HOST": settings.host, "NIRVANA_PORT": str(settings.port)}
    shared |= {"NIRVANA_WORKERS": str(settings.workers), "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    if settings.limit_storage == ":memory:":
        shared["NIRVANA_LIMIT_STORAGE"] = str(counters)
    return shared


def make_app() -> FastAPI:
    """Make the app of one process of several, which ends with the first one."""
    end_with_parent()
    settings = Settings()
    configure_logs(settings.log_level)
    return create_app(settings)


def _run(app: FastAPI | str, settings: Settings) -> None:
    uvicorn.run(
        app,
        factory=isinstance(app, str),
        workers=settings.workers,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=settings.proxies,
        h11_max_incomplete_event_size=settings.max_header_bytes,
        timeout_keep_alive=settings.keep_alive_seconds,
        limit_concurrency=settings.max_connections + 1,  # it refuses at that many
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=START_SECONDS,
    )


class BoundedProtocol(H11Protocol):
    """A connection that is closed where its headers take too long or its address has too many."""

    _timer: asyncio.TimerHandle | None = None

    @property
    def _connections(self) -> Connections:
        connections: Connections = self.app_state[Connections.KEY]
        return connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if self._connections.enter(self._address):
            self._time_headers()
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        self._time_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        self._connections.leave(self._address)
        super().connection_lost(exc)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _time_headers(self) -> None:
        """Begin to wait where a request has not begun whole; stop where it has."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self._connections.header_seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
