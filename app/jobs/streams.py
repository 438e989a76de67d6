"""One look at the database for all who watch jobs: while nothing happens a stream has no query of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.accounts.models import Account
from app.db import Database
from app.jobs.models import ENDED_STATES, Job, JobEvent
from app.jobs.service import get_visible_job, read_events
from nirvana.errors import NotFound

log = logging.getLogger("nirvana.app")
SECONDS_BETWEEN_LOOKS = 0.5
JOBS_A_QUERY = 500


@dataclass
class _Topic:
    """A job that is watched.

    Attributes:
        last: serial of its last event.
        watchers: one a stream, set when there is something new.
    """

    last: int = -1
    is_over: bool = False
    watchers: set[asyncio.Event] = field(default_factory=set)

    def learn(self, last: int, is_over: bool) -> None:
        if (last, is_over) != (self.last, self.is_over):
            self.last, self.is_over = last, is_over
            for watcher in self.watchers:
                watcher.set()


class JobWatch:
    """The jobs that streams of this process follow, and the one task that looks after them all."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._topics: dict[str, _Topic] = {}
        self._task: asyncio.Task[None] | None = None

    async def follow(self, job_id: str, after: int, reader: Account | None = None) -> AsyncIterator[JobEvent]:
        """Yield a job's events with a serial above `after` as they happen, until it is over, or `reader` may
        not see it any more."""
        topic, woken = self._topics.setdefault(job_id, _Topic()), asyncio.Event()
        topic.watchers.add(woken)
        try:
            await self._look([job_id])
            self._begin()
            while not (topic.is_over and after >= topic.last):
                if after >= topic.last:
                    await woken.wait()
                woken.clear()
                for event in await run_in_threadpool(self._read, job_id, after, reader):
                    after = event.serial
                    yield event
        except NotFound:
            return
        finally:
            topic.watchers.discard(woken)
            if not topic.watchers:
                self._topics.pop(job_id, None)

    def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_again_and_again())

    async def _look_again_and_again(self) -> None:
        while self._topics:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            watched = [job_id for job_id, topic in self._topics.items() if not topic.is_over]
            for first in range(0, len(watched), JOBS_A_QUERY):
                try:
                    await self._look(watched[first : first + JOBS_A_QUERY])
                except SQLAlchemyError as error:
                    log.warning("streams wait: the database does not answer (%s)", type(error).__name__)

    async def _look(self, job_ids: Sequence[str]) -> None:
        """Ask for news of these jobs; one that is gone is over."""
        rows = await run_in_threadpool(self._read_states, job_ids)
        for job_id in job_ids:
            if (topic := self._topics.get(job_id)) is not None:
                state, last = rows.get(job_id, (ENDED_STATES[0], topic.last))
                topic.learn(last, state in ENDED_STATES)

    def _read_states(self, job_ids: Sequence[str]) -> dict[str, tuple[str, int]]:
        query = select(Job.id, Job.state, Job.last_event).where(Job.id.in_(job_ids))
        with self.database.read() as session:
            return {job_id: (state, last) for job_id, state, last in session.execute(query)}

    def _read(self, job_id: str, after: int, reader: Account | None) -> list[JobEvent]:
        with self.database.read() as session:
            get_visible_job(session, job_id, reader)
            return read_events(session, job_id, after)
