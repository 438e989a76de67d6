"""Rules of tasks: the library's own, and those that people made here.

A task of somebody's is `owner/name`, so that nobody takes `mnist`. It is public, and never changes. Its owner
can hide it (yank) at any time, and remove it until something depends on it; an admin can take its data away.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import JSON, column, delete, exists, func, select, table
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.accounts.service import charge_storage, check_storage
from app.db import Database, Json, insert_if_absent, utc_now
from app.pagination import Page, binding, cut_page, read_cursor
from app.settings import Settings
from app.storage import Storage
from app.tasks.models import TaskRow
from app.tickets.models import Listing, ListingGroup
from app.tickets.search.counts import SHOWN, count_by
from nirvana import tasks
from nirvana.errors import Conflict, DataMissing, Forbidden, Gone, NameTaken, NotFound, Problem, QuotaExceeded
from nirvana.tasks import Task
from nirvana.tasks.own import write_description
from nirvana.tasks.task import task_from_json, task_to_json

# `app.jobs` and `app.transfers` know tasks, not the other way round, so their tables are named here.
JOB = table("job", column("id"), column("state"), column("spec", JSON))
TRANSFER = table("transfer", column("task"))
OPEN_STATES = ("queued", "running")


@dataclass(frozen=True)
class MadeTask:
    """A task that was made of an upload, with its files.

    Attributes:
        data: its data.npz. sealed: its sealed.npz, where it has one.
        warnings: what is odd and no error.
    """

    task: Task
    data: Path
    sealed: Path | None
    warnings: tuple[str, ...] = ()

    @property
    def stored_bytes(self) -> int:
        """The size of its files together."""
        return sum(path.stat().st_size for path in (self.data, self.sealed) if path)


def sync_tasks(session: Session) -> None:
    """Bring the rows in line with the library's own tasks (what somebody added to the operator's folder stays
    hers); safe to repeat."""
    bodies = {name: describe(tasks.get(name)) for name in tasks.built_in_names()}
    for name, body in bodies.items():
        insert_if_absent(session, TaskRow, name=name, body=body, stored_bytes=0, updated_at=utc_now())
    own = TaskRow.owner_id.is_(None)
    for row in session.scalars(select(TaskRow).where(own, TaskRow.name.in_(bodies))):
        if row.body != bodies[row.name]:
            row.body, row.updated_at = bodies[row.name], utc_now()
    session.execute(delete(TaskRow).where(own, TaskRow.name.not_in(bodies)))


def describe(task: Task) -> Json:
    """Return a task as JSON."""
    fields = task_to_json(task) | {"seal": asdict(task.seal) if task.seal else None}
    plain: Json = json.loads(json.dumps(fields))
    return plain


def list_tasks(
    session: Session, *, limit: int, cursor: str | None = None, owner: str | None = None
) -> Page[Json]:
    """Return tasks that are not hidden, by name, each with the number of public tickets for it.

    Args:
        owner: those of an account alone. Raises: InvalidCursor.
    """
    bound_to = binding("tasks", owner)
    query = select(TaskRow).where(TaskRow.yanked_at.is_(None), TaskRow.removed_at.is_(None))
    if owner is not None:
        account = select(Account.id).where(Account.name == owner).scalar_subquery()
        query = query.where(TaskRow.owner_id == account)
    if cursor is not None:
        query = query.where(TaskRow.name > read_cursor(cursor, bound_to, (str,))[0])
    rows = session.scalars(query.order_by(TaskRow.name).limit(limit + 1)).all()
    page = cut_page(rows, limit, bound_to, lambda row: (row.name,))
    names = [row.name for row in page.rows]
    counts = count_by(session, "task", (*SHOWN, ListingGroup.task.in_(names)))
    return Page([shown(row, counts.get(row.name, 0)) for row in page.rows], page.next_cursor)


def list_made(session: Session) -> list[TaskRow]:
    """Return the tasks that people made here, by name, hidden ones and those without their data too."""
    query = select(TaskRow).where(TaskRow.owner_id.is_not(None)).order_by(TaskRow.name)
    return list(session.scalars(query))


def shown(row: TaskRow, tickets: int) -> Json:
    """Return what is shown of a task."""
    about = ("yanked_at", "yank_reason", "yank_detail", "removed_at")
    own = {name: getattr(row, name) for name in about}
    owner = row.name.partition("/")[0] if row.owner_id else None
    return row.body | own | {"owner": owner, "data_bytes": row.stored_bytes or None, "tickets": tickets}


def get_task(session: Session, name: str) -> Json:
    """Return what is shown of a task, of one that was removed too. Raises: NotFound, naming those there
    are."""
    row = get_row(session, name)
    return shown(row, count_by(session, "task", (*SHOWN, ListingGroup.task == name)).get(name, 0))


def get_row(session: Session, name: str) -> TaskRow:
    """Return the row of a task. Raises: NotFound, naming those of the library."""
    row = session.scalars(select(TaskRow).where(TaskRow.name == name)).one_or_none()
    if row is None:
        known = ", ".join(tasks.built_in_names())
        raise NotFound(f"There is no task {name[:100]!r}; there are {known}, and those of GET /tasks.")
    return row


def find_task(session: Session, name: str) -> Task:
    """Return a task that jobs can run on: the library's, one in the operator's own folder, or one that was
    made here.

    Raises:
        NotFound: there is none of that name. Gone: its data were removed.
    """
    if "/" not in name:
        return tasks.get(name)
    row = get_row(session, name)
    refuse_removed(row)
    return task_from_json(row.body)


def refuse_removed(row: TaskRow) -> None:
    """Refuse a task whose data were taken away. Raises: Gone."""
    if row.removed_at is not None:
        raise Gone(f"The data of the task {row.name} were removed on {row.removed_at:%Y-%m-%d}.")


def refuse_yanked(session: Session, name: str) -> None:
    """Refuse a task that nobody should begin with any more. Raises: Gone."""
    row = session.scalars(select(TaskRow).where(TaskRow.name == name)).one_or_none()
    if row is not None and row.yanked_at is not None:
        why = f"{row.yank_reason}" + (f": {row.yank_detail}" if row.yank_detail else "")
        raise Gone(f"The task {name} was yanked ({why}).")


def check_quota(session: Session, settings: Settings, account: Account, size_bytes: int) -> None:
    """Refuse one more task of an account that has no room for it. Raises: QuotaExceeded."""
    check_storage(settings, account, size_bytes)
    own = select(func.count()).where(TaskRow.owner_id == account.id, TaskRow.removed_at.is_(None))
    number, most = session.scalar(own) or 0, settings.max_tasks_per_account
    if number >= most:
        detail = f"You have {number} tasks, expected fewer than {most} before another; remove one."
        raise QuotaExceeded(detail, limit=most)


def keep_task(
    database: Database, storage: Storage, settings: Settings, account: Account, made: MadeTask
) -> bool:
    """Store a task's files, then list it; return True where it is new.

    Raises:
        NameTaken, QuotaExceeded, Gone: as in `insert_task`. StorageFull, StorageFailed: nothing was written.
    """
    with database.read() as session:
        check_quota(session, settings, account, made.stored_bytes)
    key, created = _store(storage, made), False
    try:
        with database.write() as session:
            _, created = insert_task(session, settings, account, made, key)
    finally:
        if not created:
            delete_blobs(storage, TaskRow(storage_key=key))
    return created


def _store(storage: Storage, made: MadeTask) -> str:
    """Store the files of a task, on the disk when this returns; return its storage key. Files without a row
    are harmless."""
    row = TaskRow(storage_key=str(uuid.uuid4()))
    if made.sealed is not None:
        storage.put(row.sealed_key, made.sealed, durable=True)
    storage.put(row.data_key, made.data, durable=True)
    return str(row.storage_key)


def insert_task(
    session: Session, settings: Settings, account: Account, made: MadeTask, storage_key: str
) -> tuple[TaskRow, bool]:
    """List a stored task.

    Returns:
        its row, and True where it is new: the same file under the same name again is the old one.

    Raises:
        NameTaken: the name names another task. QuotaExceeded: the account has no room.
    """
    owner = session.get_one(Account, account.id, with_for_update={"key_share": True}, populate_existing=True)
    name, body, stored = made.task.name, describe(made.task), made.stored_bytes
    old = session.scalars(select(TaskRow).where(TaskRow.name == name)).one_or_none()
    if old is not None:
        refuse_removed(old)
        if old.body != body:
            raise NameTaken(f"{name} names another task, which never changes; choose another name.")
        return old, False
    check_quota(session, settings, owner, stored)
    about: Json = {"owner_id": owner.id, "storage_key": storage_key, "stored_bytes": stored}
    row = TaskRow(name=name, body=body, **about)
    session.add(row)
    charge_storage(session, owner.id, stored, tickets=0)
    session.flush()
    return row, True


def fetch_task(storage: Storage, row: TaskRow, folder: Path, *, needs_seal: bool) -> None:
    """Put a task that was made here into a folder of tasks, there whole or not at all. Readers check its
    digests.

    Args:
        folder: new; NIRVANA_TASKS of who reads it.
        needs_seal: the sealed rows as well, where it has some.

    Raises:
        Gone: its data were removed. DataMissing: a file of it is not in the blob store, and which.
    """
    refuse_removed(row)
    task = task_from_json(row.body)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        own = Path(name) / "tasks" / row.name.replace("/", "@")
        own.mkdir(parents=True, mode=0o700)
        _fetch(storage, row, row.data_key, own / "data.npz")
        if needs_seal and task.seal is not None:
            _fetch(storage, row, row.sealed_key, own / "sealed.npz")
        write_description(own, task)
        own.parent.rename(folder)


def _fetch(storage: Storage, row: TaskRow, key: str, path: Path) -> None:
    try:
        with path.open("wb") as file:
            for part in storage.stream(key):
                file.write(part)
    except NotFound as error:
        what = "sealed rows" if key == row.sealed_key else "data"
        detail = f"The {what} of the task {row.name} are gone: there is no {key} in the blob store"
        raise DataMissing(f"{detail}. Put it back from a backup; until then no job can use them.") from error


def get_own_task(session: Session, name: str, account: Account, *, admin: bool) -> TaskRow:
    """Return a task that somebody may hide or remove. Raises: NotFound, Forbidden."""
    row = get_row(session, name)
    if row.owner_id is None or (row.owner_id != account.id and not admin):
        whose = name.partition("/")[0] if row.owner_id else "the library"
        raise Forbidden(f"The task {name} belongs to {whose}, and you are {account.name}.")
    return row


def yank_task(row: TaskRow, reason: str, detail: str | None) -> None:
    """Hide a task: lists leave it out, and no search or transfer begins on it; its tickets are verified, and
    its data are downloaded, as before."""
    row.yanked_at, row.yank_reason, row.yank_detail = utc_now(), reason, detail


def unyank_task(row: TaskRow) -> None:
    """Show a task again."""
    row.yanked_at = row.yank_reason = row.yank_detail = None


def remove_task(session: Session, row: TaskRow, *, admin: bool) -> None:
    """Take the data of a task away; its name stays taken, and its description stays here. Again: nothing.
    Its blobs are to be deleted after the commit.

    Args:
        admin: whatever depends on it.

    Raises:
        Conflict: something depends on it, and what.
    """
    if row.removed_at is not None:
        return
    problems = [] if admin else [Problem("/task", "depended-on", text) for text in _dependants(session, row)]
    if problems:
        detail = f"{row.name} stays: {problems[0].detail}; yank it to hide it"
        raise Conflict(f"{detail}.", errors=problems)
    row.removed_at = utc_now()
    assert row.owner_id is not None
    charge_storage(session, row.owner_id, -row.stored_bytes, tickets=0)
    row.stored_bytes = 0


def delete_blobs(storage: Storage, row: TaskRow) -> None:
    """Delete the files of a task that was removed."""
    for key in (row.sealed_key, row.data_key):
        storage.delete(key)


def _dependants(session: Session, row: TaskRow) -> Iterator[str]:
    """Yield what depends on a task."""
    if session.scalar(select(exists().where(Listing.task == row.name))):
        yield "tickets were published for it"
    if session.scalar(select(exists().where(TRANSFER.c.task == row.name))):
        yield "a ticket was tried on it"
    on_it = JOB.c.spec["task"].as_string() == row.name
    if session.scalar(select(exists().where(JOB.c.state.in_(OPEN_STATES), on_it))):
        yield "a job on it is queued or running"
