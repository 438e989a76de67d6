"""Tickets as repositories of the Hugging Face Hub: `hf://org/name`, or `hf://org/name@revision`.

    ticket.ticket        the ticket file, byte for byte: what `load` reads
    model.safetensors    initial values (pruned ones 0) and masks, for any reader of that format
    README.md            the card, with the Hub's metadata

Needs the extra `hub` (huggingface_hub), whose own settings it keeps: HF_TOKEN, HF_ENDPOINT, HF_HOME.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nirvana import environment, lazy
from nirvana.errors import (
    Forbidden,
    InvalidName,
    JsonObject,
    NetworkError,
    NirvanaError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from nirvana.format.ticket import Ticket

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"
TICKET_FILE, WEIGHTS_FILE, CARD_FILE = "ticket.ticket", "model.safetensors", "README.md"
DEFAULT_ENDPOINT = "https://huggingface.co"
_REFERENCE = re.compile(r"hf://([A-Za-z0-9_.-]{1,96}/[A-Za-z0-9_.-]{1,96})(?:@([A-Za-z0-9_./-]{1,200}))?\Z")


def is_hub(source: str) -> bool:
    """Tell whether `source` names a repository of the Hub."""
    return source.startswith(SCHEME)


def parse_hub(source: str) -> tuple[str, str | None]:
    """Return org/name and the revision, if there is one. Raises: InvalidName."""
    match = _REFERENCE.match(source)
    if match is None or ".." in source:
        raise InvalidName(f"found {source!r}, expected hf://org/name or hf://org/name@revision")
    return match[1], match[2]


def push_to_hub(content: bytes, target: str) -> JsonObject:
    """Put a .ticket file into a repository, which is made if need be, by one commit.

    Args:
        content: the file.
        target: `hf://org/name`.

    Returns:
        `repository`, `url`, `commit` and `digest`.

    Raises:
        InvalidTicket: the file breaks a rule of the format.
        Unauthenticated, Forbidden: no token of the Hub (HF_TOKEN), or one that may not write there.
        NetworkError: the Hub was not reached.
    """
    repository, revision = parse_hub(target)
    if environment.is_offline():
        raise NetworkError(f"NIRVANA_OFFLINE is set, so that {target} is not asked")
    ticket = Ticket.from_bytes(content)
    with _errors(repository) as api:
        from huggingface_hub import CommitOperationAdd

        files = {
            TICKET_FILE: content,
            WEIGHTS_FILE: lazy.to_safetensors(ticket),
            CARD_FILE: write_card(ticket, repository).encode(),
        }
        operations = [CommitOperationAdd(name, body) for name, body in files.items()]
        api.create_repo(repository, exist_ok=True)
        message = f"Ticket {ticket.digest}"
        commit = api.create_commit(repository, operations, commit_message=message, revision=revision)
        url = f"{api.endpoint}/{repository}"
    return {"repository": repository, "url": url, "commit": commit.oid, "digest": ticket.digest}


def fetch_from_hub(source: str) -> bytes:
    """Return the .ticket file of a repository, from the Hub's cache where it has not changed.

    Raises:
        InvalidName: `source` is not hf://org/name.
        NotFound: there is no such repository or revision, or no ticket in it.
        NetworkError: the Hub was not reached, and the file is not in its cache.
    """
    repository, revision = parse_hub(source)
    with _errors(repository) as api:
        offline = environment.is_offline()
        path = api.hf_hub_download(repository, TICKET_FILE, revision=revision, local_files_only=offline)
    return Path(path).read_bytes()


def write_card(ticket: Ticket, repository: str) -> str:
    """Return the model card: the Hub's metadata, then what the ticket is and how to use it."""
    from huggingface_hub import ModelCardData

    method = _plain(str(ticket.provenance.get("method") or ""))
    tags = ["lottery-ticket", "sparse", "pruning", *filter(None, [method])]
    metadata = ModelCardData(
        library_name="nirvana",
        license=_license(ticket.license),
        license_name=_plain(ticket.license) or None if _license(ticket.license) == "other" else None,
        tags=tags,
        datasets=[ticket.task] if re.fullmatch(r"[A-Za-z0-9_.-]+", ticket.task) else None,
        model_name=repository,
        nirvana_digest=ticket.digest,
        nirvana_density=ticket.density,
    )
    share = f"{100 * ticket.density:.3g} %"
    lines = [
        f"# {repository.rpartition('/')[2]}",
        "",
        f"A lottery ticket: {ticket.kept:,} of {ticket.total:,} weights ({share}) of "
        f"`{_plain(ticket.architecture.name)}`, with their initial values, for the task "
        f"`{_plain(ticket.task)}`. It is a network to train, not a trained one.",
        "",
        "```python",
        "import nirvana",
        f'ticket = nirvana.load("hf://{repository}")',
        "model = ticket.to_torch()  # rewound and masked; train it as any module",
        "```",
        "",
        f"Digest: `{ticket.digest}`. `{WEIGHTS_FILE}` holds the initial values (pruned ones 0) and, as "
        "`mask/<parameter>`, the masks.",
        "",
        "Whether it wins is measured by a registry, never by who publishes it: `nirvana verify` does so.",
        "",
    ]
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n".join(lines)


def _license(name: str) -> str:
    """Return the Hub's identifier of an SPDX licence; `other` for what is none."""
    return name.lower() if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", name) else "other"


def _plain(text: str) -> str:
    """Return text of one line, which stays within its backticks."""
    return re.sub(r"[`\s]+", " ", text).strip()[:100]


@contextmanager
def _errors(repository: str) -> Iterator[HfApi]:
    """Open the Hub's client, and turn its errors into ours.

    Raises:
        Unavailable: huggingface_hub is not installed, or the Hub fails.
        NotFound, Unauthenticated, Forbidden, InvalidName, NetworkError: as the Hub says.
    """
    try:
        from httpx2 import TransportError
        from huggingface_hub import HfApi
        from huggingface_hub import errors as hub
    except ImportError as error:
        raise Unavailable("hf:// needs huggingface_hub: pip install 'nirvana-tickets[hub]'") from error
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    try:
        yield HfApi(endpoint=endpoint, library_name="nirvana", library_version=environment.VERSION)
    except hub.LocalEntryNotFoundError as error:
        raise NetworkError(f"{endpoint} was not reached, and {repository} is not in its cache") from error
    except hub.HFValidationError as error:
        raise InvalidName(f"{repository}: {_first_line(error)}") from error
    except hub.HfHubHTTPError as error:
        raise _error_of(error.response.status_code, repository, _first_line(error)) from error
    except (TransportError, OSError) as error:
        raise NetworkError(f"{endpoint} was not reached: {_first_line(error)}") from error


def _error_of(status: int, repository: str, reason: str) -> NirvanaError:
    kinds: dict[int, type[NirvanaError]] = {401: Unauthenticated, 403: Forbidden, 404: NotFound}
    hint = " (HF_TOKEN holds the token)" if status in (401, 403) else ""
    return kinds.get(status, Unavailable)(f"hf://{repository}: {reason}{hint}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
