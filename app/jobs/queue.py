"""Whose turn it is: the order of the queue, a job's place in it, and how many jobs there are.

The order is start-time fair queueing between people: a person's next job has the turn after that of their
last open one, and nobody's turn lies before the one that is being served, so that whoever comes to a long
queue waits for one job of each of the others, and whoever waits is never overtaken without end. Decision 12
says who a person is.

Reference: Goyal, Vin and Cheng 1996, "Start-time Fair Queuing".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.accounts.service import Person
from app.db import add_to_count, utc_now
from app.jobs.engine import QUEUE
from app.jobs.models import OPEN_STATES, STATES, Job, JobCount, Worker
from app.settings import Settings
from app.telemetry import Gauge

FIRST_TURN = 1
BEGUN = ("running", "succeeded", "failed")  # a job that was cancelled gives its turn back
LAST_TURN = 2**31 - 1  # the largest priority that the engine keeps
PLACES = 1000  # that are told; every later one is this and one more


def next_turn(session: Session, settings: Settings, queue: str, person: Person) -> int:
    """Return the turn of a person's next job: lower goes first, and of the same turn the older one."""
    served = _last_turn(session, BEGUN, Job.queue == queue)
    theirs = _last_turn(session, ("queued", *BEGUN), Job.queue == queue, Job.person == person.key)
    first = max(FIRST_TURN, served) + (settings.newcomer_turns if person.is_new else 0)
    return min(LAST_TURN, max(first, theirs + 1))


def _last_turn(session: Session, states: Sequence[str], *conditions: ColumnElement[bool]) -> int:
    """Return the last turn of the jobs in these states, each found by an index; 0 where there are none."""
    turns = [
        session.scalar(select(func.max(Job.priority)).where(Job.state == state, *conditions)) or 0
        for state in states
    ]
    return max(turns)


def count_open(session: Session, person: Person) -> int:
    """Return how many jobs of a person are queued or running."""
    query = select(func.count()).where(Job.person == person.key, Job.state.in_(OPEN_STATES))
    return session.execute(query).scalar_one()


def queue_places(session: Session, jobs: Sequence[Job]) -> dict[str, int]:
    """Return the place of each queued job among `jobs`, by its id: 1 goes next, and PLACES + 1 stands for
    every place after PLACES. It costs the same however long the queue is."""
    queued = [job for job in jobs if job.state == "queued"]
    places: dict[str, int] = {}
    for queue in {job.queue for job in queued}:
        front = select(Job.id).where(Job.queue == queue, Job.state == "queued")
        front = front.order_by(Job.priority, Job.created_at, Job.id).limit(PLACES)
        places |= {job_id: place for place, job_id in enumerate(session.scalars(front), 1)}
    return {job.id: places.get(job.id, PLACES + 1) for job in queued}


def queue_position(session: Session, job: Job) -> int | None:
    """Return the place of a job (see `queue_places`); None once it has left the queue."""
    return queue_places(session, [job]).get(job.id)


def count_change(session: Session, before: str | None, after: str) -> None:
    """Keep the number of jobs of each state: one has left `before` (None: it is new) for `after`."""
    changes = {state: change for state, change in ((before, -1), (after, 1)) if state is not None}
    for state in sorted(changes):  # in one order, so that no two transactions wait for each other
        add_to_count(session, JobCount, changes[state], state=state)


def find_open(session: Session, state: str, after: str, limit: int) -> list[str]:
    """Return ids of jobs in a state of `OPEN_STATES` that come after an id, in the order of ids."""
    query = select(Job.id).where(Job.state == state, Job.id > after)
    return list(session.scalars(query.order_by(Job.id).limit(limit)))


def read_gauges(session: Session) -> Iterator[Gauge]:
    """Jobs by state, the age of the oldest queued one, and how long ago each worker was alive.

    Jobs of the registry's own do not age: they wait as long as it takes.
    """
    counts = dict(session.execute(select(JobCount.state, JobCount.number)).all())
    yield Gauge("nirvana_jobs", "Jobs", "state", {state: counts.get(state, 0) for state in STATES})
    now = utc_now()
    of_people = (Job.queue == QUEUE, Job.state == "queued")
    oldest = session.scalar(select(func.min(Job.created_at)).where(*of_people))
    age = (now - oldest).total_seconds() if oldest else 0.0
    yield Gauge("nirvana_queue_age_seconds", "Age of the oldest queued job", values={"": age})
    beats = session.execute(select(Worker.id, Worker.beat_at).where(Worker.leaving.is_(False)))
    ages = {worker: (now - beat).total_seconds() for worker, beat in beats}
    yield Gauge("nirvana_worker_heartbeat_age_seconds", "Time since a worker's last beat", "worker", ages)
