"""A mirror served: its folder (`nirvana.client.mirror`) as a database of its own, read only.

The database is made again whenever the mirror has moved on, beside the old one, and takes its place when it
is whole. Files are checked again while they are read; verdicts keep the registry's own signatures.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.accounts.models import Account
from app.accounts.service import find_account
from app.architectures.service import bound_name, keep_architecture
from app.changes.service import note_change
from app.db import Database, Json, insert_all_absent, make_engine, utc_now
from app.evaluations.models import UNMEASURED, Attestation, Evaluation, SigningKey, band_of_accuracy
from app.evaluations.signing import signed_key
from app.problems import problem_response
from app.settings import Settings
from app.storage import Storage, make_storage
from app.tasks.models import TaskRow
from app.tickets.files.checking import CheckedTicket, check_file
from app.tickets.files.serving import limits_of
from app.tickets.models import Blob, Listing, TicketSketch, TicketTag, band_of_density
from app.tickets.search.text import keep_words
from app.tickets.service import mark_copies
from app.transfers.models import Transfer
from nirvana.client.mirror import (
    Mirror,
    check_record,
    check_task,
    check_task_data,
    check_verdicts,
    full_name,
    read_object,
    task_key,
)
from nirvana.errors import DataDamaged, NirvanaError, ReadOnly
from nirvana.format.ticket import MEDIA_TYPE

READING = ("GET", "HEAD", "OPTIONS")
STORING_NOTHING = ("/api/v1/tickets:lint", "/api/v1/architectures:check")
_SAME = ("job_id", "origin", "tags", "card", "yank_reason", "yank_detail", "verdict", "protocol")
_MEASURED = ("accuracy", "accuracy_gap", "replicates")
_OF_TASK_ROW = ("owner", "data_bytes", "yanked_at", "yank_reason", "yank_detail", "removed_at")
_INSTANTS = ("created_at", "yanked_at", "evaluated_at")


class ReadOnlyGate:
    """The layer of a mirror that refuses every write."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING or scope["path"] in STORING_NOTHING:
            await self.app(scope, receive, send)
            return
        registry = scope["app"].state.settings.mirror_of
        refusal = ReadOnly(f"This is a read-only mirror of {registry}: write there.", registry=registry)
        await problem_response(Request(scope), refusal)(scope, receive, send)


def open_mirror(settings: Settings, folder: Path, migrate: Callable[[Settings], None]) -> Settings:
    """Return the settings that serve a mirror, whose database is made if need be.

    Args:
        migrate: makes the tables of an empty database.

    Raises:
        NotFound: the folder holds no mirror.
        DataDamaged: a record or a file in it is damaged, and which.
    """
    mirror = Mirror(folder.absolute())
    state = mirror.state()
    home = mirror.folder / "served"
    path = home / f"{state['serial']}.db"
    served = settings.model_copy(
        update={
            "home": home,
            "database_url": f"sqlite:///{path}",
            "blob_url": (mirror.folder / "blobs").as_uri(),
            "signing_key": home / "signing-key.pem",
            "mirror_of": state["registry"],
            "signup": "closed",
        }
    )
    if not path.exists():
        _make(served, mirror, path, migrate)
    return served


def _make(settings: Settings, mirror: Mirror, path: Path, migrate: Callable[[Settings], None]) -> None:
    """Make the database beside its place, and forget those of older serials."""
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    new = path.with_suffix(".new")
    making = settings.model_copy(update={"database_url": f"sqlite:///{new}"})
    migrate(making)
    database = Database(make_engine(making.database_url))
    with database.write() as session:
        fill(session, make_storage(making), making, mirror)
    with database.engine.connect() as connection:  # one file, so that it can be renamed
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
        connection.exec_driver_sql("BEGIN")
    database.dispose()
    new.replace(path)


def fill(session: Session, storage: Storage, settings: Settings, mirror: Mirror) -> None:
    """Write a mirror's records as rows, each file checked again. Raises: DataDamaged."""
    keys = read_object(mirror.folder / "keys.json")
    for key in keys["keys"]:
        session.merge(SigningKey(kid=key["kid"], jwk=key, created_at=utc_now()))
    for task in mirror.tasks():
        _add_task(session, mirror, task)
    for number, record in mirror.listings():
        ticket = record["ticket"]
        try:
            check_record(record)
            checked = check_file(mirror.file(ticket["file_sha256"]).read_bytes(), limits_of(settings))
            check_verdicts(record, keys)
        except (OSError, NirvanaError) as error:
            advice = "`nirvana mirror --check` lists all that is damaged."
            raise DataDamaged(f"{full_name(ticket)}: {error}. {advice}") from error
        if (checked.fields["digest"], checked.file_digest) != (ticket["digest"], ticket["file_sha256"]):
            raise DataDamaged(f"{full_name(ticket)} has another file than its record says.")
        _add_listing(session, number, ticket, checked)
        _add_verdicts(session, storage, record)
        session.flush()


def _add_task(session: Session, mirror: Mirror, task: Json) -> None:
    """Add a task that somebody made, its data checked again. Raises: DataDamaged."""
    try:
        check_task(task, task["name"])
        if task["removed_at"] is None:
            check_task_data(task, mirror.task_data(task).read_bytes())
    except OSError as error:
        raise DataDamaged(f"{task['name']}: {error}") from error
    about = {name: _instant(task[name]) for name in ("yanked_at", "removed_at")}
    about |= {name: task[name] for name in ("name", "yank_reason", "yank_detail")}
    body = {name: value for name, value in task.items() if name not in _OF_TASK_ROW}
    owner = _add_account(session, task["owner"])
    stored = task["data_bytes"] or 0
    session.add(
        TaskRow(body=body, owner_id=owner.id, storage_key=task_key(task), stored_bytes=stored, **about)
    )


def _add_account(session: Session, name: str) -> Account:
    owner = find_account(session, name)
    if owner is None:
        owner = Account(name=name)
        session.add(owner)
        session.flush()
    return owner


def _add_listing(session: Session, number: int, ticket: Json, checked: CheckedTicket) -> None:
    owner = _add_account(session, ticket["owner"])
    blob = {"digest": checked.file_digest, "size_bytes": checked.size_bytes, "media_type": MEDIA_TYPE}
    insert_all_absent(session, Blob, [blob | {"created_at": utc_now()}])
    session.flush()
    name, family = bound_name(checked.architecture, owner.name)
    accuracy = UNMEASURED if ticket["accuracy"] is None else ticket["accuracy"]
    row = Listing(
        **checked.fields,
        **{name: ticket[name] for name in (*_SAME, *_MEASURED)},
        **{name: _instant(ticket[name]) for name in _INSTANTS},
        id=number,
        owner_id=owner.id,
        name=ticket["name"],
        exam_key=ticket["exam"],
        blob_id=session.query(Blob.id).filter_by(digest=checked.file_digest).scalar(),
        architecture_id=keep_architecture(session, checked.architecture, name, family, is_public=True),
        architecture_name=name,
        family=family,
        sort_accuracy=accuracy,
        accuracy_band=band_of_accuracy(ticket["accuracy"]),
        density_band=band_of_density(checked.fields["density"]),
        is_copy=False,
        sort_gap=UNMEASURED if ticket["accuracy_gap"] is None else ticket["accuracy_gap"],
    )
    session.add(row)
    session.flush()
    note_change(session, "published", [number])
    insert_all_absent(session, TicketSketch, _rows("number", checked.sketch, number))
    insert_all_absent(session, TicketTag, _rows("tag", ticket["tags"], number))
    keep_words(session, [(row, ticket["owner"])])
    mark_copies(session, [number])


def _rows(column: str, values: list[str] | list[int], ticket_id: int) -> list[Mapping[str, object]]:
    return [{column: value, "ticket_id": ticket_id} for value in values]


def _add_verdicts(session: Session, storage: Storage, record: Json) -> None:
    """Add evaluations, attestations and transfers, which listings of one ticket share."""
    for shown in record["evaluations"]:
        columns = {name: shown[name] for name in ("id", "job_id", "task", "protocol", "verdict")}
        columns |= {name: shown[name] for name in ("replicates", "margin", "accuracy", "accuracy_sd")}
        columns |= {"dense_accuracy": shown["dense_accuracy"], "created_at": _instant(shown["created_at"])}
        columns |= {"ticket_digest": shown["ticket"], "exam_key": shown["exam"], "body": shown}
        session.merge(Evaluation(**columns))
        signed = record["signed"][str(shown["id"])]
        storage.put(signed_key(shown["id"]), json.dumps(signed).encode())
    for shown in reversed(record["attestations"]):
        same = {name: shown[name] for name in ("task", "outcome", "overlap", "job_id", "environment")}
        about = {"ticket_digest": shown["ticket"], "found_digest": shown["found"]}
        about["created_at"] = _instant(shown["created_at"])
        insert_all_absent(session, Attestation, [same | about])
    for shown in record.get("transfers", []):  # a mirror of before has none
        session.merge(Transfer(**_transfer_columns(shown)))


def _transfer_columns(shown: Json) -> Json:
    """Return the columns of a transfer from what its registry says of it."""
    names = ("id", "source", "task", "verdict", "replicates", "accuracy", "dense_accuracy", "job_id")
    arms = {arm: {"accuracies": values} for arm, values in shown["arms"].items()}
    columns = {name: shown[name] for name in names}
    columns |= {"ticket_digest": shown["ticket"], "created_at": _instant(shown["created_at"])}
    return columns | {"body": {"arms": arms, "reason": shown["reason"], "density": shown["density"]}}


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
