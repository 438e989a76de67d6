"""The client's part of `import nirvana`: load, search and push."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nirvana import environment
from nirvana.client import hub
from nirvana.client.cache import DIGEST, NAME, Cache
from nirvana.client.filters import Value
from nirvana.errors import Invalid, InvalidName, InvalidTicket, JsonObject, NetworkError, NotFound
from nirvana.format.ticket import Ticket

OnBytes = Callable[[int], None]


def load(source: str | Path, *, endpoint: str | None = None, on_bytes: OnBytes | None = None) -> Ticket:
    """Load a ticket, ready to use.

    Args:
        source: a file, `owner/name`, `sha256:...`, `ticket://[service/]owner/name` or `ticket://sha256:...`,
            or `hf://org/name[@revision]`, a repository of the Hugging Face Hub (extra `hub`).
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
    if hub.is_hub(source):
        return Ticket.from_bytes(hub.fetch_from_hub(source))
    endpoint, name = parse_reference(source, endpoint)
    return Ticket.from_bytes(fetch(name, endpoint, on_bytes))


def is_file_name(source: str) -> bool:
    """Tell whether `source` means a file and not a published ticket."""
    return not source.startswith("ticket://") and (source.endswith(".ticket") or Path(source).is_file())


def parse_reference(source: str, endpoint: str | None = None) -> tuple[str, str]:
    """Return the service's address and `owner/name` or `sha256:...` of a published ticket.

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
    """Return the .ticket file of `owner/name` or `sha256:...`, from the cache or the service, checked."""
    cache, is_digest = Cache(), bool(DIGEST.match(name))
    if is_digest and (pinned := cache.find_intact(name)) is not None:
        return pinned
    from nirvana.client.rest import Client  # not above: a file is loaded without what talks to services

    ref = None if is_digest else cache.find_ref(endpoint, name)
    kept = cache.find_intact(*ref) if ref is not None else None
    try:
        with Client(endpoint) as client:
            content = client.download(
                name, ref[1] if ref is not None and kept is not None else None, on_bytes
            )
    except NetworkError:
        if kept is None:
            raise
        return kept
    if content is None:
        assert kept is not None
        return kept
    received = Ticket.from_bytes(content).digest
    if is_digest and received != name:
        raise InvalidTicket(f"{endpoint} sent the ticket {received}, expected {name}")
    cache.keep(received, content)
    if not is_digest:
        cache.keep_ref(endpoint, name, received, f"sha256:{sha256(content).hexdigest()}")
    return content


def search(
    *, endpoint: str | None = None, limit: int | None = None, cursor: str | None = None, **filters: Value
) -> Iterator[dict[str, Any]]:
    """Yield published tickets that match, page after page; see `Client.search` for the filters."""
    from nirvana.client.rest import Client

    with Client(endpoint) as client:
        yield from client.search(limit=limit, cursor=cursor, **filters)


def push(
    ticket: Ticket | str | Path, name: str = "", *, endpoint: str | None = None, to: str = ""
) -> JsonObject:
    """Publish a ticket or a .ticket file as `owner/name`, or as `name` under your own account.

    Args:
        to: `hf://org/name`: publish it there as well, or there alone where there is no `name`.

    Raises:
        Invalid: neither `name` nor `to`.
        InvalidTicket: the file breaks a rule of the format.
        NameTaken: `owner/name` names another ticket.
        Unauthenticated, MissingScope: no token, or one that may not publish.
    """
    from nirvana.client.rest import Client

    if not name and not to:
        raise Invalid("a ticket needs a place: a name in the registry, or hf://org/name")
    content = ticket.to_bytes() if isinstance(ticket, Ticket) else Path(ticket).read_bytes()
    published: JsonObject = {}
    if name:
        with Client(endpoint) as client:
            published = client.publish(content, name)
    return published | ({"hub": hub.push_to_hub(content, to)} if to else {})
