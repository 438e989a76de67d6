"""Dumps: whole, public alone, of one moment, and each file what its manifest says."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy.orm import Session

from app.accounts.service import create_account, find_account
from app.changes.service import list_changes
from app.db import Database, utc_now
from app.dumps import writing
from app.dumps.writing import MANIFEST, find_dump_file, list_dumps, store_dump, write_dump
from app.storage import Storage
from app.tasks.models import TaskRow
from app.tasks.service import describe
from app.tickets.publishing import Publication, publish_ticket
from app.transfers.service import record_transfer
from nirvana import tasks
from nirvana.errors import NotFound, StorageFull
from tests.factories import make_ticket
from tests.jobs.test_transfer import FOUND
from tests.registry import VERDICT, measure

WHERE = "https://registry.example"


def publish(database: Database, storage: Storage, seed: int, visibility: str = "public") -> str:
    """Publish a ticket as ada's; return its digest."""
    ticket = make_ticket(seed=seed)
    with database.write() as session:
        ada = find_account(session, "ada") or create_account(session, "ada")
        publish_ticket(session, storage, ticket.to_bytes(), Publication(ada, f"t{seed}", visibility))
    return ticket.digest


def add_task(session: Session, storage: Storage, name: str) -> TaskRow:
    """List a task of ada's, whose data are its name."""
    ada, data = find_account(session, "ada"), name.encode()
    assert ada is not None
    body = describe(tasks.get("digits"))
    body |= {"name": name, "data_sha256": hashlib.sha256(data).hexdigest()}
    row = TaskRow(name=name, body=body, owner_id=ada.id, storage_key=name.replace("/", "-"))
    storage.put(row.data_key, data)
    session.add(row)
    return row


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dump_holds_all_that_is_public_and_nothing_else(
    database: Database, storage: Storage, tmp_path: Path
) -> None:
    digests = [publish(database, storage, seed) for seed in (1, 2)]
    private = [publish(database, storage, 3, "private")]
    with database.write() as session:
        measure(session, digests[0], VERDICT)
        for number, digest in enumerate((*private, digests[1])):
            record_transfer(session, digest=digest, measured=FOUND, job_id=f"j{number}")
        add_task(session, storage, "ada/flowers")
        add_task(session, storage, "ada/gone").removed_at = utc_now()
    folder = tmp_path / "dump"
    manifest = write_dump(database, folder, WHERE)
    tickets = read_lines(folder / "tickets.jsonl")
    assert [ticket["digest"] for ticket in tickets] == digests
    made = read_lines(folder / "tasks.jsonl")
    assert [(one["name"], one["removed_at"] is None) for one in made] == [
        ("ada/flowers", True),
        ("ada/gone", False),
    ]
    assert [line for line in (folder / "blobs.txt").read_text().splitlines() if "tasks/" in line] == [
        f"{hashlib.sha256(b'ada/flowers').hexdigest()}  tasks/ada-flowers.npz"
    ]
    assert [ticket["verdict"] for ticket in tickets] == ["WINNING", None]
    assert [one["arms"] for one in read_lines(folder / "evaluations.jsonl")] == [VERDICT["arms"]]
    assert [one["name"] for one in read_lines(folder / "transfers.jsonl")] == ["ada/t2"]
    assert "t3" not in "".join(path.read_text(errors="replace") for path in folder.iterdir())
    for line in (folder / "blobs.txt").read_text().splitlines():
        sha256, key = line.split("  ")
        assert hashlib.sha256(storage.get(key)).hexdigest() == sha256
    for name, about in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert about["sha256"] == hashlib.sha256(content).hexdigest()
        assert about["size_bytes"] == len(content)
    rows = pq.read_table(folder / "tickets.parquet").to_pylist()
    assert [row["kept"] for row in rows] == [ticket["kept"] for ticket in tickets]
    assert json.loads(rows[0]["manifest"]) == tickets[0]["manifest"]
    assert pq.read_table(folder / "evaluations.parquet").to_pylist()[0]["accuracy"] == pytest.approx(0.965)
    with database.read() as session:
        assert manifest["serial"] == list_changes(session, 0, 100)[-1][0]


def test_a_dump_shows_one_moment_while_publishing_goes_on(
    database: Database, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first rows were read, another ticket is published: it is in none of the files."""
    monkeypatch.setattr(writing, "AT_ONCE", 1)
    publish(database, storage, 1)
    publish(database, storage, 2)
    walk = writing._tickets

    def walk_and_publish(session: Any) -> Any:
        for number, ticket in enumerate(walk(session)):
            yield ticket
            if number == 0:
                writer = threading.Thread(target=publish, args=(database, storage, 3))
                writer.start()
                writer.join(20)

    monkeypatch.setattr(writing, "_tickets", walk_and_publish)
    manifest = write_dump(database, tmp_path / "dump", WHERE)
    names = [ticket["name"] for ticket in read_lines(tmp_path / "dump" / "tickets.jsonl")]
    assert names == ["t1", "t2"]
    with database.read() as session:
        after = list_changes(session, manifest["serial"], 100)
        assert [row[5] for row in after] == ["t3"]  # a mirror that begins with the dump goes on with this


def test_the_newest_dumps_are_kept_and_found(database: Database, storage: Storage) -> None:
    made = []
    for seed in range(3):
        publish(database, storage, seed)
        made.append(store_dump(database, storage, WHERE, keep=2)["name"])
    assert [dump["name"] for dump in list_dumps(storage)] == made[:0:-1]
    key, sha256 = find_dump_file(storage, made[2], "tickets.jsonl")
    assert hashlib.sha256(storage.get(key)).hexdigest() == sha256
    assert not [key for key in storage.keys("dumps") if made[0] in key]
    for name, file in ((made[0], "tickets.jsonl"), (made[2], "../../x"), ("..", MANIFEST)):
        with pytest.raises(NotFound):
            find_dump_file(storage, name, file)


def test_a_dump_that_was_not_finished_is_none(
    database: Database, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(database, storage, 1)
    put = Storage.put

    def fill_up(self: Storage, key: str, content: bytes | Path, *, durable: bool = False) -> None:
        if key.endswith("blobs.txt"):
            raise StorageFull("The blob store is full; nothing was stored.")
        put(self, key, content, durable=durable)

    monkeypatch.setattr(Storage, "put", fill_up)
    with pytest.raises(StorageFull):
        store_dump(database, storage, WHERE, keep=7)
    assert list_dumps(storage) == []
    monkeypatch.undo()
    name = store_dump(database, storage, WHERE, keep=7)["name"]
    assert [dump["name"] for dump in list_dumps(storage)] == [name]
    assert store_dump(database, storage, WHERE, keep=7)["name"] == name  # nothing has changed
    assert len(list_dumps(storage)) == 1
