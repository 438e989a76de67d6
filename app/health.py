"""Routes for those who run the service, and the service document."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.dependencies import DatabaseDep, SettingsDep, StorageDep
from app.pagination import MAX_LIMIT
from app.schemas import ResponseModel, example, problems
from app.storage import free_bytes
from app.tickets.files.serving import FORM
from nirvana.environment import VERSION
from nirvana.errors import NirvanaError, Unavailable
from nirvana.format.ticket import MEDIA_TYPE

router = APIRouter(tags=["service"])
service_router = APIRouter(tags=["service"])


class Health(ResponseModel):
    """The state of the service."""

    model_config = ResponseModel.model_config | example(status="ok")
    status: str


class Readiness(Health):
    """The state of the service and of the parts that it needs."""

    model_config = ResponseModel.model_config | example(
        status="ok", checks={"database": "ok", "blobs": "ok", "disk": "ok"}
    )
    checks: dict[str, str]


class ServiceDocument(ResponseModel):
    """The service: its version, its limits and its links."""

    model_config = ResponseModel.model_config | example(
        name="nirvana",
        version="0.1.0",
        api="v1",
        signup="open",
        limits={"max_upload_bytes": 67108864, "max_page_limit": 100},
        media_types={"ticket": MEDIA_TYPE},
        links={"tickets": "/api/v1/tickets"},
    )
    name: str
    version: str
    api: str
    signup: str
    limits: dict[str, int]
    media_types: dict[str, str]
    links: dict[str, str]


@router.get("/healthz", operation_id="get_health")
def healthz() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", operation_id="get_readiness", responses=problems(503))
def readyz(database: DatabaseDep, storage: StorageDep, settings: SettingsDep) -> Readiness:
    """Database and blob store answer, and the disk has room for an upload; 503 says what does not hold."""
    checks = {"database": "ok", "blobs": "ok", "disk": "ok"}
    try:
        with database.read() as session:
            session.execute(text("SELECT 1 FROM ticket LIMIT 1"))
    except SQLAlchemyError as error:
        checks["database"] = type(error).__name__
    try:
        storage.check()
    except NirvanaError as error:
        checks["blobs"] = error.code
    if any(room < settings.max_upload_bytes for room in free_bytes(settings)):
        checks["disk"] = "full"
    broken = [name for name, state in checks.items() if state != "ok"]
    if broken:
        raise Unavailable(f"Not ready: {', '.join(broken)}.", checks=checks)
    return Readiness(status="ok", checks=checks)


@router.get("/metrics", operation_id="get_metrics", response_class=Response, responses={
    200: {"description": "Prometheus' text form", "content": {"text/plain": {"example": "nirvana_jobs 1"}}},
    **problems(503),
})  # fmt: skip
def metrics(request: Request) -> Response:
    """Requests, tickets, jobs by state, queue age, worker heartbeats."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@service_router.get("/", operation_id="get_service")
def service(settings: SettingsDep) -> ServiceDocument:
    """The service: its version, its limits and its links."""
    limits = {
        "max_upload_bytes": settings.max_upload_bytes,
        "max_body_bytes": settings.max_body_bytes,
        "max_parameters": settings.max_parameters,
        "max_page_limit": MAX_LIMIT,
        "max_open_jobs_per_account": settings.max_open_jobs_per_account,
        "max_flops_per_job": int(settings.max_flops_per_job),
        "max_flops_per_account_per_day": int(settings.max_flops_per_account_per_day),
    }
    base = f"{settings.public_url}/api/v1"
    names = ("tickets", "tasks", "architectures", "jobs", "whoami", "tokens", "accounts")
    links = {name: f"{base}/{name}" for name in names}
    links |= {"openapi": f"{settings.public_url}/openapi.json", "html": f"{settings.public_url}/"}
    return ServiceDocument(
        name="nirvana",
        version=VERSION,
        api="v1",
        signup=settings.signup,
        limits=limits,
        media_types={"ticket": MEDIA_TYPE, "form": FORM, "problem": "application/problem+json"},
        links=links,
    )
