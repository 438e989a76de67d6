"""create_app: the only file that knows every feature."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from app import health, openapi, pages, problems
from app.accounts.oidc.pages import router as oidc_pages
from app.accounts.organisations.pages import router as organisation_pages
from app.accounts.organisations.routes import router as organisations
from app.accounts.pages import find_signed_in
from app.accounts.pages import router as account_pages
from app.accounts.routes import router as accounts
from app.architectures.routes import router as architectures
from app.changes.feeds import router as feeds
from app.changes.routes import router as changes
from app.db import make_database
from app.dependencies import check_request
from app.devices.routes import pages as device_pages
from app.devices.routes import router as devices
from app.dumps.routes import router as dumps
from app.evaluations.pages import router as evaluation_pages
from app.evaluations.routes import router as verifications
from app.evaluations.routes import well_known
from app.evaluations.signing import load_key, publish_key
from app.jobs.queue import read_gauges as job_gauges
from app.jobs.routes import pages as job_pages
from app.jobs.routes import router as jobs
from app.jobs.streams import JobWatch
from app.limits.service import Connections, Limiter, Line, Places
from app.middleware import RequestMiddleware, RoomGate
from app.mirror import ReadOnlyGate
from app.moderation.routes import router as moderation
from app.settings import Settings
from app.storage import make_storage
from app.tasks.routes import pages as task_pages
from app.tasks.routes import router as tasks
from app.tasks.service import sync_tasks
from app.telemetry import Metrics
from app.tickets.commits import Commits
from app.tickets.files.checking import Checker
from app.tickets.files.counting import Downloads
from app.tickets.files.downloads import FileGate
from app.tickets.files.exporting import Exporter
from app.tickets.files.serving import exits_of, limits_of
from app.tickets.pages import router as ticket_pages
from app.tickets.routes import router as tickets
from app.tickets.service import read_gauges as ticket_gauges
from app.tickets.sharing import router as sharing
from app.tickets.summaries import Summaries
from app.transfers.routes import pages as transfer_pages
from app.transfers.routes import router as transfers
from app.webhooks.routes import router as webhooks
from nirvana.environment import VERSION

CHECKS, COMMITS, LINTS = 64, 64, 8  # that wait
LINT_NICENESS = 10
COMPARISONS = (1, 8)  # of masks, at once, and waiting; each may take some hundred megabytes
PASSWORDS = (2, 32, 10)  # each takes 19 MiB, and time, of which those who answer come first
MAKING = (1, 4)  # tasks: each has a process
TASK_UPLOADS = (8, 2)  # at once, in all and of a person: each has a file on the disk
API = (  # what is asked for most comes first: each request is held against one after the other
    tickets,
    health.service_router,
    accounts,
    devices,
    organisations,
    verifications,
    moderation,
    sharing,
    tasks,
    architectures,
    jobs,
    transfers,
    changes,
    feeds,
    dumps,
    webhooks,
)
PAGES = (
    openapi.pages,
    ticket_pages,
    task_pages,
    job_pages,
    evaluation_pages,
    transfer_pages,
    account_pages,
    device_pages,
    oidc_pages,
    organisation_pages,
)


def create_app(settings: Settings) -> FastAPI:
    """Make the service from its settings. The database must have been migrated."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    app = FastAPI(
        title="Nirvana",
        version=VERSION,
        summary="The open database of winning lottery tickets",
        docs_url=None,
        redoc_url=None,
        lifespan=_live,
        dependencies=[Depends(check_request)],
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    _fill_state(app, settings)
    problems.install(app, max_body_bytes=settings.max_body_bytes, refusal_seconds=settings.refusal_seconds)
    pages.install(app)
    _include(app)
    openapi.describe(app)
    _add_layers(app, settings)
    return app


def _fill_state(app: FastAPI, settings: Settings) -> None:
    """Make what requests share."""
    app.state.settings, app.state.storage = settings, make_storage(settings)
    app.state.database = database = make_database(settings)
    app.state.metrics = Metrics(database, (ticket_gauges, job_gauges))
    app.state.job_watch = JobWatch(database)
    app.state.signing_key = load_key(settings.signing_key)
    app.state.limiter = Limiter(settings)
    app.state.streams = Places(settings.max_streams, settings.max_streams_per_caller)
    app.state.exporter = Exporter(settings, database, app.state.storage, app.state.limiter)
    app.state.downloads = Downloads(database)
    app.state.summaries = Summaries()
    limits, processes = limits_of(settings), settings.check_processes
    app.state.checker = Checker(processes, limits, most_waiting=CHECKS)
    app.state.linter = Checker(min(1, processes), limits, most_waiting=LINTS, niceness=LINT_NICENESS)
    app.state.commits = Commits(database, COMMITS)
    app.state.passwords, app.state.comparing = Line(*PASSWORDS), Line(*COMPARISONS)
    app.state.making, app.state.task_uploads = Line(*MAKING), Places(*TASK_UPLOADS, "uploads of tasks")


@asynccontextmanager
async def _live(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    """Begin and end with the server."""
    state, settings = app.state, app.state.settings
    with state.database.write() as session:
        sync_tasks(session)
        if not settings.mirror_of:
            publish_key(session, state.signing_key)
    state.database.analyse()
    gc.freeze()  # what is there by now stays: no collection has to walk through it again
    yield {Connections.KEY: Connections(settings)}
    state.checker.close()
    state.linter.close()
    state.job_watch.close()
    if not settings.mirror_of:
        state.downloads.write()
    state.database.dispose()


def _add_layers(app: FastAPI, settings: Settings) -> None:
    """Put the layers around the routes, the innermost first."""
    app.add_middleware(
        FileGate, downloads=app.state.downloads, storage=app.state.storage, exits=exits_of(settings)
    )
    checks = {"/api/v1/tickets:lint": app.state.linter.refuse_crowd}
    checks |= dict.fromkeys(("/api/v1/accounts", "/sign-up", "/sign-in"), app.state.passwords.check)
    app.add_middleware(RoomGate, checks=checks, refusal_seconds=settings.refusal_seconds)
    if settings.mirror_of:
        app.add_middleware(ReadOnlyGate)
    app.add_middleware(RequestMiddleware, metrics=app.state.metrics, settings=settings)


def _include(app: FastAPI) -> None:
    api = APIRouter(prefix="/api/v1")
    for router in API:
        api.include_router(router)
    app.include_router(health.router)
    app.include_router(well_known)
    app.include_router(api)
    for router in PAGES:
        app.include_router(router, include_in_schema=False, dependencies=[Depends(find_signed_in)])
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
