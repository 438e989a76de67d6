"""What a listing says about its ticket: all of it computed from the file, nothing believed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from app.db import utc_now
from app.evaluations.models import UNMEASURED
from app.tickets.models import Ticket as Listing
from nirvana import tasks
from nirvana.container import read_container
from nirvana.errors import InvalidTicket, Problem
from nirvana.reader import find_warnings
from nirvana.ticket import Ticket

MAX_TERMS = 200
MAX_TERM_LENGTH = 40
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_WORD = re.compile(r"[^\W_]+")


def describe(ticket: Ticket, data: bytes) -> dict[str, Any]:
    """Column values of the listing of a ticket.

    Args:
        data: the file that the ticket was read from.

    Raises:
        InvalidTicket: a text that no database keeps.
    """
    provenance = ticket.provenance
    fields = {
        "digest": ticket.digest,
        "task": ticket.task,
        "architecture_name": ticket.architecture.name,
        "family": ticket.architecture.family,
        "method": _short_text(provenance.get("method")),
        "level": _level(provenance.get("level")),
        "parent_digest": _digest(provenance.get("parent")),
        "license": ticket.license,
        "description": ticket.description,
        "initial_kind": ticket.start.kind,
        "rewind_step": ticket.start.rewind_step,
        "density": ticket.density,
        "kept": ticket.kept,
        "total": ticket.total,
        "parameters": ticket.architecture.parameter_count,
        "flops": ticket.flops(),
    }
    _refuse_nul(fields)
    unset = {"tags": [], "version": 1, "sort_accuracy": UNMEASURED, "sort_gap": UNMEASURED}
    manifest = json.loads(read_container(data)[0]["manifest"])
    lists = {"layers": ticket.layers(), "manifest": manifest, "warnings": list(warnings_of(ticket))}
    return fields | unset | lists | {"created_at": utc_now()}


def warnings_of(ticket: Ticket) -> Iterator[str]:
    """What is odd about a valid ticket."""
    yield from find_warnings(ticket)
    if ticket.task not in tasks.built_in_names():
        yield f"the task {ticket.task!r} is not known here, so nobody can verify it here"


def _refuse_nul(fields: dict[str, Any]) -> None:
    """PostgreSQL keeps no NUL character in a text."""
    problems = [
        Problem(f"/{name}", "nul-character", "a NUL character, which no database keeps")
        for name, value in fields.items()
        if isinstance(value, str) and "\0" in value
    ]
    if problems:
        raise InvalidTicket(f"{problems[0].pointer}: {problems[0].detail}.", errors=problems)


def _short_text(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 100 else None


def _level(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= 10_000 else None


def _digest(value: Any) -> str | None:
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else None


def terms_of(row: Listing, owner: str) -> list[str]:
    """The words that a listing is found by."""
    fields = (owner, row.name, row.task, row.architecture_name, row.method or "", row.description or "")
    return list(dict.fromkeys(words(" ".join(fields))))[:MAX_TERMS]


def words(text: str) -> Iterator[str]:
    """The words of a text: runs of letters and digits, lower case, cut at 40 characters."""
    for found in _WORD.finditer(text.lower()):
        yield found[0][:MAX_TERM_LENGTH]
