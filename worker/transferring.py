"""The round of a transfer: a ticket on another task, beside its controls. Only the child imports this."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nirvana.lab.verification.transfer import transfer as measure
from nirvana.ticket import Ticket

ARMS = ("own", "dense", "ticket", "reinit", "shuffle")  # in the order in which they are trained

Progress = Callable[[dict[str, Any]], None]


def transfer(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Train `input.ticket` on the task of the spec, and `own.ticket`, where there is one, beside it."""
    spec, folder = request["spec"], Path(request["folder"])
    ticket, path, replicates = Ticket.read(folder / "input.ticket"), folder / "own.ticket", spec["replicates"]
    own = Ticket.read(path) if path.exists() else None
    arms = ARMS if own else ARMS[1:]

    def tell(event: dict[str, Any]) -> None:
        progress(_counted(event, arms, replicates))

    found = measure(ticket, spec["task"], own=own, replicates=replicates, cache=None, progress=tell)
    return {"transfer": found.to_dict()}


def _counted(event: dict[str, Any], arms: tuple[str, ...], replicates: int) -> dict[str, Any]:
    """An event of one arm with its place among the replicates of all arms."""
    if "arm" not in event:
        return event
    before, total = replicates * arms.index(event["arm"]), replicates * len(arms)
    if event["kind"] == "arm":
        return event | {"done": before + event["done"], "total": total}
    return event | {"first": -before, "replicates": total}
