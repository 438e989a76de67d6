"""What an answered publish rests on: bytes on the disk, folders on the disk, a commit that waits for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db import Database
from app.storage import Storage
from nirvana.errors import StorageFailed
from nirvana.files import write_durably


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files and folders that the system was asked to bring to the disk, in order."""
    paths, fsync = list[str](), os.fsync

    def note(handle: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    return paths


def test_a_durable_blob_is_synced_with_its_folder_and_the_folders_made_for_it(
    storage: Storage, tmp_path: Path, synced: list[str]
) -> None:
    storage.put("tickets/ab/x.ticket", b"content", durable=True)
    file, *folders = synced
    assert Path(file).name.startswith(".x.ticket.")  # before it gets its name
    blobs = tmp_path / "blobs"
    assert folders == [str(blobs / "tickets/ab"), str(blobs / "tickets"), str(blobs)]
    synced.clear()
    storage.put("tickets/ab/y.ticket", b"content", durable=True)
    assert synced[1:] == [str(blobs / "tickets/ab")]
    assert storage.get("tickets/ab/x.ticket") == b"content"


def test_what_can_be_made_again_is_not_waited_for(storage: Storage, synced: list[str]) -> None:
    storage.put("exports/x", b"content")
    assert synced == []


def test_a_failed_sync_is_said_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFailed, match="Input/output error"):
        write_durably(tmp_path / "new" / "x", b"content")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_commit_waits_for_the_disk(database: Database) -> None:
    with database.write() as session:
        if session.get_bind().dialect.name == "sqlite":
            assert session.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        else:
            assert session.execute(text("SHOW synchronous_commit")).scalar() == "on"
