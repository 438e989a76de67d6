"""The page of a job. It reloads itself while the job is open, and needs no script."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.dependencies import SessionDep
from app.jobs.events import read_events
from app.jobs.models import OPEN_STATES
from app.jobs.service import get_job, queue_position
from app.pages import render

router = APIRouter()
SHOWN_EVENTS = 50
REFRESH_SECONDS = 3


@router.get("/jobs/{job_id}", response_class=HTMLResponse)
def job_page(request: Request, job_id: str, session: SessionDep) -> HTMLResponse:
    """One job: state, progress, what it has found, its last events."""
    job = get_job(session, job_id)
    events = read_events(session, job.id, max(0, job.last_event - SHOWN_EVENTS), SHOWN_EVENTS)
    refresh = REFRESH_SECONDS if job.state in OPEN_STATES else None
    context = {"job": job, "events": events, "position": queue_position(session, job), "refresh": refresh}
    return render(request, "job.html", context)
