"""Where data sets' files are looked for, and how they are downloaded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nirvana.errors import DataDamaged, DataMissing
from nirvana.tasks.files import SourceFile, obtain

CONTENT = b"the published bytes" * 10_000
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
SOURCE = SourceFile("train-images-idx3-ubyte.gz", CHECKSUM, (1,))
NOWHERE = ("http://127.0.0.1:9/nowhere",)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a web server on loopback publishes, and its address."""
    folder = tmp_path / "published"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIRVANA_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("NIRVANA_OFFLINE", raising=False)
    (tmp_path / "data" / "mnist").mkdir(parents=True)


@pytest.mark.parametrize("folder", ["data/mnist", "data", "home/data/mnist"])
def test_a_file_is_found_in_each_of_the_three_places(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / SOURCE.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    assert obtain("mnist", SOURCE, NOWHERE) == path


def test_a_damaged_file_is_named_with_both_checksums(tmp_path: Path) -> None:
    path = tmp_path / "data" / "mnist" / SOURCE.name
    path.write_bytes(CONTENT[:-1])
    found = hashlib.sha256(CONTENT[:-1]).hexdigest()
    with pytest.raises(DataDamaged, match=rf"{path}: found sha256:{found}, expected {CHECKSUM}"):
        obtain("mnist", SOURCE, NOWHERE)


def test_another_data_sets_file_of_the_same_name_is_passed_over(
    tmp_path: Path, published: tuple[Path, str]
) -> None:
    (tmp_path / "data" / SOURCE.name).write_bytes(b"fashion")
    folder, address = published
    (folder / SOURCE.name).write_bytes(CONTENT)
    assert obtain("mnist", SOURCE, [address]).read_bytes() == CONTENT


def test_a_missing_file_says_where_it_looked_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    with pytest.raises(DataMissing) as refusal:
        obtain("mnist", SOURCE, NOWHERE)
    said = refusal.value.detail
    for place in ("data/mnist", "data", "home/data/mnist"):
        assert str(tmp_path / place / SOURCE.name) in said
    assert "NIRVANA_DATA" in said
    assert "NIRVANA_OFFLINE is set" in said
    assert f"{NOWHERE[0]}/{SOURCE.name}" in said


def test_a_part_of_the_training_set_is_not_taken_for_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    (tmp_path / "data" / "kmnist-partial").mkdir()
    (tmp_path / "data" / "kmnist-partial" / "train7011-images-idx3-ubyte.gz").write_bytes(CONTENT)
    with pytest.raises(
        DataMissing, match=r"train7011-images-idx3-ubyte\.gz is there, which is not the whole file"
    ):
        obtain("kmnist", SOURCE, NOWHERE)


def test_a_file_without_a_home_says_so_and_where_to_put_it(tmp_path: Path) -> None:
    lonely = SourceFile("pictures.npz", CHECKSUM, ())
    with pytest.raises(DataMissing, match="it has no home to be downloaded from") as refusal:
        obtain("pictures", lonely, ())
    assert "NIRVANA_DATA/pictures/pictures.npz" in refusal.value.detail
    assert str(tmp_path / "data" / "pictures" / "pictures.npz") in refusal.value.detail


def test_a_folder_may_have_a_second_name(tmp_path: Path) -> None:
    path = tmp_path / "data" / "its-other-name" / SOURCE.name
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert obtain("mnist", SOURCE, NOWHERE, folders=["its-other-name"]) == path


def test_a_download_is_kept_and_reports_its_bytes(tmp_path: Path, published: tuple[Path, str]) -> None:
    folder, address = published
    (folder / SOURCE.name).write_bytes(CONTENT)
    events: list[dict[str, Any]] = []
    path = obtain("mnist", SOURCE, [address], events.append)
    assert path == tmp_path / "home" / "data" / "mnist" / SOURCE.name
    assert (events[-1]["done"], events[-1]["total"]) == (len(CONTENT), len(CONTENT))
    (folder / SOURCE.name).unlink()
    assert obtain("mnist", SOURCE, [address]) == path


def test_the_next_home_is_tried_when_the_first_lacks_the_file(published: tuple[Path, str]) -> None:
    folder, address = published
    (folder / SOURCE.name).write_bytes(CONTENT)
    assert obtain("mnist", SOURCE, [f"{address}/elsewhere", address]).read_bytes() == CONTENT


def test_a_download_with_another_checksum_leaves_nothing_behind(
    tmp_path: Path, published: tuple[Path, str]
) -> None:
    folder, address = published
    (folder / SOURCE.name).write_bytes(b"something else")
    with pytest.raises(DataMissing, match=f"found sha256:.*, expected {CHECKSUM}"):
        obtain("mnist", SOURCE, [address])
    assert list((tmp_path / "home" / "data" / "mnist").iterdir()) == []


def test_an_unreachable_home_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="nowhere"):
        obtain("mnist", SOURCE, NOWHERE)
    assert list((tmp_path / "home" / "data" / "mnist").iterdir()) == []
