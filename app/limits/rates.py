"""The table of rates: how often somebody may do what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from limits import RateLimitItem, parse

from nirvana.errors import Invalid, Problem

OFF = "off"


@dataclass(frozen=True)
class Rate:
    """What an action may cost, as the library `limits` writes it: `60/minute`, `10/2 hours`, or `off`.

    Attributes:
        help: the requests that count.
        address: of whoever sends no token, by address (IPv6: by /64). account: of a person with a token.
    """

    help: str
    address: str
    account: str


RATES: Mapping[str, Rate] = {
    "read": Rate("everything that only reads and is none of the others", "1200/minute", "2400/minute"),
    "write": Rate("everything that writes and is none of the others", "60/minute", "240/minute"),
    "search": Rate("lists of tickets, tasks and boards, and their pages", "300/minute", "600/minute"),
    "export": Rate("a ticket in another form", "60/minute", "240/minute"),
    "export-mib": Rate("MiB of exports that are made for you", "4096/day", "16384/day"),
    "stream": Rate("streams of events that begin", "60/minute", "240/minute"),
    "lint": Rate("files and graphs that are only checked", "30/minute", "120/minute"),
    "publish": Rate("tickets that are published", OFF, "1200/hour"),
    "task": Rate("tasks that are made", OFF, "30/hour"),
    "job": Rate("jobs that are asked for", OFF, "240/hour"),
    "report": Rate("reports of tickets", OFF, "20/day"),
    "organisation": Rate("organisations that are made", OFF, "10/day"),
    "invite": Rate("invitations to organisations", OFF, "60/hour"),
    "sign-up": Rate("accounts that are made", "10/hour", "10/hour"),
    "sign-in": Rate("passwords and one-time codes that are tried", "20/5 minutes", "20/5 minutes"),
    "guess": Rate("requests with a token that is not known", "30/minute", OFF),
}
ACTIONS: Mapping[str, str | None] = {
    "list_tickets": "search",
    "search_page": "search",
    "list_tasks": "search",
    "tasks_page": "search",
    "task_page": "search",
    "list_similar_tickets": "search",
    "list_task_leaderboard": "search",
    "get_task_frontier": "search",
    "list_architectures": "search",
    "get_ticket_export": "export",
    "stream_job_events": "stream",
    "lint_ticket": "lint",
    "check_architecture": "lint",
    "create_ticket": "publish",
    "create_task": "task",
    "submit_job": "job",
    "create_verification": "job",
    "create_attestation": "job",
    "create_report": "report",
    "create_account": "sign-up",
    "sign_up_page": "sign-up",
    "create_session": "sign-in",
    "sign_in_page": "sign-in",
    "begin_sign_in": "sign-in",
    "finish_sign_in": "sign-in",
    "link_identity": "sign-in",
    "name_account_page": "sign-up",
    "replace_password": "sign-in",
    "create_device_code": "sign-in",
    "device_page": "sign-in",
    "device_answer_page": "sign-in",
    "change_password_page": "sign-in",
    "create_organisation": "organisation",
    "create_organisation_page": "organisation",
    "create_invitation": "invite",
    "invite_page": "invite",
    "get_health": None,
    "get_readiness": None,
    "get_metrics": None,
}
"""Of operations, and of pages by their functions: the action, or None where nothing is counted."""


@dataclass(frozen=True)
class Payer:
    """Whose counters a request raises: those of a person who is signed in, or of an address."""

    key: str
    is_signed_in: bool = False


def read_rates(own: Mapping[str, str]) -> dict[tuple[str, bool], RateLimitItem]:
    """Return (action, is signed in) -> rate, for all that are not off.

    Args:
        own: rates instead of those of the table, by `search` (both) or `search.address`, `search.account`.

    Raises:
        Invalid: a name that is none, or a rate that cannot be read.
    """
    table = {f"{name}.address": rate.address for name, rate in RATES.items()}
    table |= {f"{name}.account": rate.account for name, rate in RATES.items()}
    for name, rate in own.items():
        names = [name] if name in table else [f"{name}.address", f"{name}.account"]
        if names[0] not in table:
            raise _refusal(name, f"{name!r} is none of {', '.join(RATES)}")
        table |= dict.fromkeys(names, rate)
    items = {name: _parse(name, rate) for name, rate in table.items() if rate != OFF}
    return {(name.partition(".")[0], name.endswith(".account")): item for name, item in items.items()}


def _parse(name: str, rate: str) -> RateLimitItem:
    try:
        return parse(rate)
    except ValueError:
        raise _refusal(name, f"{rate!r} is no rate, expected one as '60/minute', or 'off'") from None


def _refusal(name: str, detail: str) -> Invalid:
    return Invalid(f"NIRVANA_RATES: {detail}.", errors=[Problem(f"/{name}", "rate", detail)])
