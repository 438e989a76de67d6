"""transfer: a ticket that was found on one task, on others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nirvana.cli.output import Json, Output, Quiet, percent

if TYPE_CHECKING:
    from nirvana.ticket import Ticket


def transfer(
    names: Annotated[list[str], typer.Argument(metavar="TICKET...", help="Files, or owner/name.")],
    task: Annotated[
        list[str] | None,
        typer.Option(help="A target; may be given more than once. Default: every task named."),
    ] = None,
    replicates: Annotated[int, typer.Option(min=2, help="Data orders an arm.")] = 5,
    recipe: Annotated[Path | None, typer.Option(help="JSON file: fields over the target's recipe.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a new output layer.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train each ticket on other tasks, beside those tasks' own tickets and controls: a ticket x task matrix.

    Among the tickets, the one of a target's own task is what the others are compared with there.
    """
    from nirvana.api import load
    from nirvana.cli.experiments import open_lab, read_recipe
    from nirvana.cli.progress import Watch

    output = Output(json, quiet)
    tickets = _by_task([load(name) for name in names])
    targets = task or list(tickets)
    recipes = _recipes(tickets, targets, read_recipe(recipe) or {})
    with Watch(output, "transfer") as watch:
        rows = open_lab().transfer_matrix(
            tickets, targets, replicates=replicates, recipes=recipes, seed=seed, progress=watch
        )
    output.data({"items": rows}, lambda: _print(output, rows))


def _by_task(tickets: list[Ticket]) -> dict[str, Ticket]:
    """The tickets by the task that they were found on.

    Raises:
        Invalid: two are of one task.
    """
    from nirvana.errors import Invalid

    found: dict[str, Ticket] = {}
    for ticket in tickets:
        if ticket.task in found:
            raise Invalid(f"two of the tickets are of {ticket.task}, expected one of each task")
        found[ticket.task] = ticket
    return found


def _recipes(tickets: dict[str, Ticket], targets: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    """Each target's recipe: its own ticket's, or else the task's default, with some fields replaced."""
    from nirvana import tasks
    from nirvana.recipe import Recipe

    name = next(iter(tickets.values())).architecture.name
    return {
        target: (
            Recipe.from_dict(dict(tickets[target].recipe))
            if target in tickets
            else tasks.get(target).default_recipe(name)
        ).override(fields)
        for target in targets
    }


def _print(output: Output, rows: list[dict[str, Any]]) -> None:
    columns = ("ticket of", "on", "density", "ticket", "own", "dense", "reinit", "shuffle", "verdict")
    names = ("ticket", "own", "dense", "reinit", "shuffle")
    cells = [
        (
            row["source"],
            row["target"],
            percent(row["density"]),
            *(percent(row[n]) for n in names),
            row["verdict"],
        )
        for row in rows
    ]
    output.table(columns, cells)
