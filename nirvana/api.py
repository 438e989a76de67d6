"""What `import nirvana` offers: load, search and push."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nirvana import environment
from nirvana.cache import DIGEST, NAME, Cache
from nirvana.errors import InvalidName, InvalidTicket, NetworkError, NotFound
from nirvana.ticket import Ticket

OnBytes = Callable[[int], None]


def load(source: str | Path, *, endpoint: str | None = None, on_bytes: OnBytes | None = None) -> Ticket:
    """A ticket, ready to use.

    Args:
        source: a file, `owner/name`, `sha256:...`, or `ticket://[service/]owner/name` or `ticket://sha256:...`.
            What was downloaded before is kept: a digest then costs no request, a name one without a file.
        on_bytes: called with the number of bytes downloaded so far.

    Raises:
        NotFound: neither a file nor a published ticket.
        InvalidTicket: the file is not a valid ticket, or not the one asked for.
        NetworkError: the service was not reached and the ticket is not in the cache.
    """
    if isinstance(source, Path) or is_file_name(source):
        if not Path(source).is_file():
            raise NotFound(f"no such file: {source}")
        return Ticket.read(Path(source))
    endpoint, name = parse_reference(source, endpoint)
    return Ticket.from_bytes(fetch(name, endpoint, on_bytes))


def is_file_name(source: str) -> bool:
    """Whether `source` means a file and not a published ticket."""
    return not source.startswith("ticket://") and (source.endswith(".ticket") or Path(source).is_file())


def parse_reference(source: str, endpoint: str | None = None) -> tuple[str, str]:
    """The service's address and `owner/name` or `sha256:...` of a published ticket.

    Raises:
        InvalidName: it is neither.
    """
    endpoint = (endpoint or environment.endpoint()).rstrip("/")
    name = source.removeprefix("ticket://")
    if name != source and name.count("/") == 2:
        service, name = name.split("/", 1)
        is_local = (urlsplit(f"//{service}").hostname or "") in ("localhost", "127.0.0.1", "::1")
        endpoint = f"{'http' if is_local else 'https'}://{service}"
    if not DIGEST.match(name) and not NAME.match(name):
        raise InvalidName(
            f"ticket: found {source!r}, expected a .ticket file, owner/name or sha256:<64 hex digits>"
        )
    return endpoint, name


def fetch(name: str, endpoint: str, on_bytes: OnBytes | None = None) -> bytes:
    """The .ticket file of `owner/name` or `sha256:...`, from the cache or the service, checked."""
    cache = Cache()
    digest = name if DIGEST.match(name) else cache.find_ref(endpoint, name)
    kept = cache.find_intact(digest) if digest else None
    if kept is not None and DIGEST.match(name):
        return kept
    from nirvana.client import Client  # not above: a file is loaded without what talks to services

    try:
        with Client(endpoint) as client:
            content = client.download(name, digest if kept is not None else None, on_bytes)
    except NetworkError:
        if kept is None:
            raise
        return kept
    if content is None:
        assert kept is not None
        return kept
    found = Ticket.from_bytes(content).digest
    if DIGEST.match(name) and found != name:
        raise InvalidTicket(f"{endpoint} sent the ticket {found}, expected {name}")
    cache.keep(found, content)
    if not DIGEST.match(name):
        cache.keep_ref(endpoint, name, found)
    return content


def search(
    *, endpoint: str | None = None, limit: int | None = None, **filters: Any
) -> Iterator[dict[str, Any]]:
    """Published tickets that match, page after page; see `Client.search` for the filters."""
    from nirvana.client import Client

    with Client(endpoint) as client:
        yield from client.search(limit=limit, **filters)


def push(ticket: Ticket | str | Path, name: str, *, endpoint: str | None = None) -> dict[str, Any]:
    """Publish a ticket or a .ticket file as `owner/name`, or as `name` under your own account.

    Raises:
        InvalidTicket: the file breaks a rule of the format.
        NameTaken: `owner/name` names another ticket.
        Unauthenticated, MissingScope: no token, or one that may not publish.
    """
    from nirvana.client import Client

    content = ticket.to_bytes() if isinstance(ticket, Ticket) else Path(ticket).read_bytes()
    with Client(endpoint) as client:
        return client.publish(content, name)
