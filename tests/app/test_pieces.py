"""Settings, storage, problems: pieces without a database."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.problems import status_of
from app.settings import Settings
from app.storage import Storage, make_storage
from nirvana.errors import NotFound, StorageFailed, StorageFull, error_classes
from tests.registry import make_settings


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return make_storage(make_settings(tmp_path))


def test_everything_lies_in_the_home_unless_it_is_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "a home"))
    monkeypatch.delenv("NIRVANA_DATABASE_URL", raising=False)
    settings = Settings()
    assert settings.database_url == f"sqlite:///{tmp_path / 'a home'}/nirvana.db"
    assert settings.host == "127.0.0.1"
    make_storage(settings).put("k", b"v")
    assert (tmp_path / "a home" / "blobs" / "k").read_bytes() == b"v"


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValidationError):
        Settings(port=70_000)
    with pytest.raises(ValidationError, match="worker_expiry_seconds"):
        Settings(worker_heartbeat_seconds=20, worker_expiry_seconds=30)


def test_a_blob_comes_back_whole_and_in_parts(storage: Storage, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    storage.put("a/b", content)
    assert storage.get("a/b") == content
    assert storage.size("a/b") == len(content)
    assert b"".join(storage.stream("a/b", 1000, 900_000)) == content[1000:900_000]
    assert b"".join(storage.stream("a/b", 10)) == content[10:]
    path = tmp_path / "file"
    path.write_bytes(b"from a file")
    storage.put("a/c", path)
    assert storage.get("a/c") == b"from a file"
    storage.delete("a/c")
    storage.delete("a/c")
    assert storage.size("a/c") is None


def test_a_blob_that_is_not_there_is_not_found(storage: Storage) -> None:
    with pytest.raises(NotFound):
        storage.get("none")
    with pytest.raises(NotFound):
        list(storage.stream("none"))


def test_a_full_device_is_told_from_a_broken_store(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught, full.open("wb", buffering=0) as device:
        device.write(b"x")
    assert caught.value.errno == 28
    blocked = tmp_path / "blocked"
    storage = make_storage(make_settings(tmp_path, blob_url=blocked.as_uri()))
    blocked.rmdir()
    blocked.write_text("a file")
    with pytest.raises(StorageFailed) as failed:
        storage.put("a/b", b"x")
    assert not isinstance(failed.value, StorageFull)


def test_every_error_has_a_status() -> None:
    statuses = {code: status_of(kind("x")) for code, kind in error_classes().items()}
    assert statuses["name-taken"] == 409
    assert statuses["missing-scope"] == 403
    assert statuses["storage-full"] == 507
    assert statuses["invalid-cursor"] == statuses["invalid-ticket"] == 422
    of_ours = {"error", "network", "training-failed", "cancelled", "verdict-not-reached"}
    assert {code for code, status in statuses.items() if status == 500} <= of_ours
