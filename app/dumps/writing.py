"""A dump: everything that is public at one moment, as files that outlive the service.

    manifest.json        format, the last change that is in it, rows, bytes and sha256 of every other file
    tickets.jsonl        a listing a line: statistics, verdict, card, claims, manifest
    evaluations.jsonl    an evaluation a line, whole
    attestations.jsonl   an attestation a line
    transfers.jsonl      a transfer a line: a ticket measured on another task
    tasks.jsonl          a task that somebody made here a line
    blobs.txt            sha256 and key of every ticket's file and every such task's public examples, as
                         `sha256sum --check` reads it
    keys.json            the public keys of signed verdicts
    tickets.parquet, evaluations.parquet   the same tables in columns, where pyarrow is installed

All are read in one transaction, so that they agree with each other while publishing goes on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Iterable, Iterator, Set
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.changes.service import last_serial
from app.db import Database, Json, utc_now
from app.dumps.tables import EVALUATION_COLUMNS, TICKET_COLUMNS, write_parquet
from app.evaluations.models import Attestation, Evaluation
from app.evaluations.schemas import attestation_response, evaluation_response
from app.evaluations.service import visible_to as evaluations_visible_to
from app.evaluations.signing import list_keys
from app.storage import Storage, ticket_key
from app.tasks.schemas import TaskResponse
from app.tasks.service import list_made, shown
from app.tickets.models import Listing
from app.tickets.schemas import TicketSummary, summary_of
from app.tickets.search.conditions import visible_to
from app.tickets.service import WHOLE
from app.transfers.schemas import transfer_response
from app.transfers.service import list_transfers, name_tickets
from nirvana.environment import VERSION
from nirvana.errors import NotFound

FORMAT = "nirvana.dump/1"
ROOT = "dumps"
MANIFEST = "manifest.json"
AT_ONCE = 200  # rows in memory


def store_dump(database: Database, storage: Storage, registry: str, keep: int) -> Json:
    """Write a dump into the blob store, its manifest last, and forget all but the newest `keep`.

    Returns:
        its manifest.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_dump(database, folder, registry)
        key = f"{ROOT}/{manifest['name']}"
        if storage.size(f"{key}/{MANIFEST}") is not None:
            return manifest  # nothing has changed since
        for file in manifest["files"]:
            storage.put(f"{key}/{file}", folder / file)
        storage.put(f"{key}/{MANIFEST}", (folder / MANIFEST).read_bytes(), durable=True)
    for old in list_dumps(storage)[keep:]:
        _delete(storage, old)
    return manifest


def write_dump(database: Database, folder: Path, registry: str) -> Json:
    """Write a dump into a folder.

    Args:
        registry: the service's address.

    Returns:
        its manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    now = utc_now()
    with database.snapshot() as session:
        serial = last_serial(session)
        rows = {
            "tickets.jsonl": _write_lines(folder / "tickets.jsonl", _tickets(session)),
            "evaluations.jsonl": _write_lines(folder / "evaluations.jsonl", _evaluations(session)),
            "attestations.jsonl": _write_lines(folder / "attestations.jsonl", _attestations(session)),
            "transfers.jsonl": _write_lines(folder / "transfers.jsonl", _transfers(session)),
            "tasks.jsonl": _write_lines(folder / "tasks.jsonl", _tasks(session)),
            "keys.json": 1,
        }
        (folder / "keys.json").write_text(json.dumps(list_keys(session)))
        data = {(row.body["data_sha256"], row.data_key) for row in list_made(session) if not row.removed_at}
    rows["blobs.txt"] = _write_blobs(folder, data)
    if importlib.util.find_spec("pyarrow") is not None:
        for table, columns in (("tickets", TICKET_COLUMNS), ("evaluations", EVALUATION_COLUMNS)):
            lines = _read_lines(folder / f"{table}.jsonl")
            rows[f"{table}.parquet"] = write_parquet(folder / f"{table}.parquet", lines, columns)
    files = {name: _describe(folder / name) | {"rows": count} for name, count in rows.items()}
    manifest: Json = {
        "format": FORMAT,
        "name": f"{now:%Y-%m-%d}-{serial}",
        "registry": registry,
        "serial": serial,
        "created_at": now.isoformat().replace("+00:00", "Z"),
        "nirvana": VERSION,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return manifest


def list_dumps(storage: Storage) -> list[Json]:
    """Return the manifests of the whole dumps in the blob store, the newest first: by what they hold, and not
    by a clock, which may have jumped."""
    keys = [key for key in storage.keys(ROOT) if key.endswith(f"/{MANIFEST}")]
    manifests: list[Json] = [json.loads(storage.get(key)) for key in keys]
    return sorted(manifests, key=lambda one: (one["serial"], one["created_at"]), reverse=True)


def find_dump_file(storage: Storage, name: str, file: str) -> tuple[str, str]:
    """Return key and sha256 of a file of a dump. Raises: NotFound."""
    key = f"{ROOT}/{name}/{file}"
    manifest = next((one for one in list_dumps(storage) if one["name"] == name), None)
    if manifest is None or file not in (*manifest["files"], MANIFEST):
        raise NotFound(f"There is no file {file[:100]!r} of a dump {name[:100]!r}.")
    if file == MANIFEST:
        return key, hashlib.sha256(storage.get(key)).hexdigest()
    return key, str(manifest["files"][file]["sha256"])


def _delete(storage: Storage, manifest: Json) -> None:
    """Delete a dump, its manifest first: without one it is none."""
    for file in (MANIFEST, *manifest["files"]):
        storage.delete(f"{ROOT}/{manifest['name']}/{file}")


def _tickets(session: Session) -> Iterator[Json]:
    query, last = select(Listing).options(*WHOLE).where(visible_to(None)).order_by(Listing.id), 0
    while rows := session.scalars(query.where(Listing.id > last).limit(AT_ONCE)).all():
        for row in rows:
            summary = TicketSummary.model_validate(summary_of(row, {})).model_dump(mode="json")
            del summary["copy_of"]  # it follows from digests and fingerprints
            own = {name: getattr(row, name) for name in ("fingerprint", "description", "card", "manifest")}
            blob = {"file_sha256": row.blob.digest, "size_bytes": row.blob.size_bytes}
            yield {"listing": row.id} | summary | own | blob | {"exam": row.exam_key}
        last = rows[-1].id
        session.expunge_all()


def _evaluations(session: Session) -> Iterator[Json]:
    query, last = select(Evaluation).where(evaluations_visible_to(None)).order_by(Evaluation.id), 0
    while rows := session.scalars(query.where(Evaluation.id > last).limit(AT_ONCE)).all():
        yield from (evaluation_response(row).model_dump(mode="json") for row in rows)
        last = rows[-1].id
        session.expunge_all()


def _attestations(session: Session) -> Iterator[Json]:
    public = select(Listing.id).where(Listing.digest == Attestation.ticket_digest, visible_to(None))
    query, last = select(Attestation).where(public.exists()).order_by(Attestation.id), 0
    while rows := session.scalars(query.where(Attestation.id > last).limit(AT_ONCE)).all():
        yield from (attestation_response(row).model_dump(mode="json") for row in rows)
        last = rows[-1].id
        session.expunge_all()


def _transfers(session: Session) -> Iterator[Json]:
    cursor, is_last = None, False
    while not is_last:
        page = list_transfers(session, None, limit=AT_ONCE, cursor=cursor)
        names = name_tickets(session, None, {row.ticket_digest for row in page.rows})
        for row in page.rows:
            yield transfer_response(row, names[row.ticket_digest]).model_dump(mode="json")
        cursor, is_last = page.next_cursor, page.next_cursor is None
        session.expunge_all()


def _tasks(session: Session) -> Iterator[Json]:
    for row in list_made(session):
        yield TaskResponse(**shown(row, 0)).model_dump(mode="json", exclude={"tickets"})


def _write_lines(path: Path, items: Iterable[Json]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(item, separators=(",", ":"), default=_plain) + "\n")
            count += 1
    return count


def _plain(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()


def _read_lines(path: Path) -> Iterator[Json]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _write_blobs(folder: Path, data: Set[tuple[str, str]]) -> int:
    """Write each file once, in order of its sha256.

    Args:
        data: sha256 and key of each that is no ticket.
    """
    digests = {str(ticket["file_sha256"]) for ticket in _read_lines(folder / "tickets.jsonl")}
    files = {(digest.removeprefix("sha256:"), ticket_key(digest)) for digest in digests} | data
    lines = [f"{digest}  {key}\n" for digest, key in sorted(files)]
    (folder / "blobs.txt").write_text("".join(lines))
    return len(lines)


def _describe(path: Path) -> Json:
    with path.open("rb") as file:
        return {
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            "size_bytes": path.stat().st_size,
        }
