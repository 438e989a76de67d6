"""Tickets kept on this machine, and `nirvana.load`."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nirvana
from nirvana.client.api import fetch, parse_reference
from nirvana.client.cache import Cache
from nirvana.errors import InvalidName, NetworkError, NotFound, StorageFailed
from nirvana.files import write_atomically
from nirvana.format.initial import default_laws
from nirvana.format.ticket import Ticket
from nirvana.networks import zoo


def file_digest(ticket: Ticket) -> str:
    return f"sha256:{sha256(ticket.to_bytes()).hexdigest()}"


def make_ticket(seed: int = 0, recipe: dict[str, Any] | None = None) -> Ticket:
    architecture = zoo.build("mlp-8", (1, 8, 8), 10)
    mask = np.arange(8 * 64).reshape(8, 64) % 7 == 0
    laws = default_laws(architecture)
    return Ticket.create(
        architecture, {"fc1.weight": mask}, task="digits", recipe=recipe or {}, laws=laws, seed=seed
    )


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NIRVANA_CACHE", raising=False)
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    monkeypatch.delenv("NIRVANA_ENDPOINT", raising=False)


def test_a_pinned_digest_is_loaded_without_a_request() -> None:
    ticket = make_ticket()
    Cache().keep(ticket.digest, ticket.to_bytes())
    assert nirvana.load(ticket.digest).digest == ticket.digest
    assert nirvana.load(f"ticket://{ticket.digest}").digest == ticket.digest


def test_a_name_that_was_downloaded_before_is_loaded_offline() -> None:
    ticket = make_ticket()
    Cache().keep(ticket.digest, ticket.to_bytes())
    Cache().keep_ref("http://127.0.0.1:8000", "ada/small", ticket.digest, file_digest(ticket))
    assert nirvana.load("ada/small").digest == ticket.digest


def test_a_name_that_is_not_here_is_a_network_error_offline() -> None:
    with pytest.raises(NetworkError, match="NIRVANA_OFFLINE is set"):
        nirvana.load("ada/small")


def test_a_ref_of_another_service_does_not_count() -> None:
    ticket = make_ticket()
    Cache().keep(ticket.digest, ticket.to_bytes())
    Cache().keep_ref("http://elsewhere.example", "ada/small", ticket.digest, file_digest(ticket))
    with pytest.raises(NetworkError):
        fetch("ada/small", "http://127.0.0.1:8000")


@pytest.mark.parametrize("damage", [b"", b"not a ticket", make_ticket(seed=1).to_bytes()])
def test_a_damaged_file_in_the_cache_is_removed_and_never_given_out(damage: bytes) -> None:
    digest = make_ticket().digest
    path = Cache().keep(digest, damage)
    with pytest.raises(NetworkError):
        nirvana.load(digest)
    assert not path.exists()
    assert list(Cache().digests()) == []


def test_a_bit_that_fell_over_is_found_where_the_digest_does_not_cover_it() -> None:
    ticket = make_ticket()
    path = Cache().keep(ticket.digest, ticket.to_bytes())
    path.write_bytes(make_ticket(recipe={"steps": 10}).to_bytes())  # the same digest
    with pytest.raises(NetworkError):
        nirvana.load(ticket.digest)


def test_files_of_one_ticket_are_kept_each_under_its_name() -> None:
    service, cache = "http://127.0.0.1:8000", Cache()
    ticket, other = make_ticket(), make_ticket(recipe={"steps": 10})
    assert ticket.digest == other.digest
    for name, one in (("ada/small", ticket), ("bob/small", other)):
        cache.keep(one.digest, one.to_bytes())
        cache.keep_ref(service, name, one.digest, file_digest(one))
    assert fetch("ada/small", service) == ticket.to_bytes()
    assert fetch("bob/small", service) == other.to_bytes(), "not the file of another listing"
    assert nirvana.load(ticket.digest).digest == ticket.digest
    assert list(cache.digests()) == [ticket.digest]
    assert cache.size_bytes(ticket.digest) == len(ticket.to_bytes()) + len(other.to_bytes())
    cache.remove(ticket.digest)
    assert list(cache.digests()) == []


@pytest.mark.parametrize("ref", ["", make_ticket().digest, "x y", "sha256:a sha256:b"])
def test_a_ref_of_an_older_version_or_a_broken_one_is_none(ref: str, tmp_path: Path) -> None:
    cache, service = Cache(tmp_path), "http://127.0.0.1:8000"
    cache.keep_ref(service, "ada/small", make_ticket().digest, file_digest(make_ticket()))
    path = next(path for path in (tmp_path / "refs").rglob("small"))
    path.write_text(ref)
    assert cache.find_ref(service, "ada/small") is None


def test_a_file_is_loaded_from_its_path(tmp_path: Path) -> None:
    ticket = make_ticket()
    ticket.write(tmp_path / "small.ticket")
    assert nirvana.load(tmp_path / "small.ticket").digest == ticket.digest
    assert nirvana.load(str(tmp_path / "small.ticket")).digest == ticket.digest


def test_a_file_that_is_not_there_is_said_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no such file: .*gone\.ticket"):
        nirvana.load(tmp_path / "gone.ticket")


@pytest.mark.parametrize(
    "source", ["ada", "ada/../../etc", "Ada/X", "sha256:abc", "ada/small/", "/etc/passwd0"]
)
def test_what_is_neither_a_file_nor_a_name_is_refused(source: str) -> None:
    with pytest.raises(InvalidName, match=r"expected a \.ticket file, owner/name or sha256"):
        nirvana.load(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ada/small", ("http://here", "ada/small")),
        ("ticket://ada/small", ("http://here", "ada/small")),
        ("ticket://registry.example/ada/small", ("https://registry.example", "ada/small")),
        ("ticket://localhost:8000/ada/small", ("http://localhost:8000", "ada/small")),
    ],
)
def test_a_reference_names_a_service_and_a_ticket(source: str, expected: tuple[str, str]) -> None:
    assert parse_reference(source, "http://here/") == expected


def test_a_failed_write_leaves_neither_the_file_nor_a_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(StorageFailed, match="target cannot be written: Is a directory"):
        write_atomically(tmp_path / "target", b"content")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_written_file_has_the_mode_asked_for(tmp_path: Path) -> None:
    write_atomically(tmp_path / "token", b"secret", mode=0o600)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_every_public_name_is_there() -> None:
    assert all(getattr(nirvana, name) is not None for name in nirvana.__all__)
    assert set(nirvana.__all__) <= set(dir(nirvana))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nirvana.nothing  # noqa: B018
