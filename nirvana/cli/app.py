"""Every verb of `nirvana`. Each module imports what it needs inside its functions, so that --help is fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from nirvana.cli import (
    accounts,
    cached,
    catalogues,
    experiments,
    exporting,
    importing,
    jobs,
    predicting,
    processes,
    tickets,
    transferring,
)

app = typer.Typer(
    name="nirvana",
    help="The open database of winning lottery tickets.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from nirvana import __version__

        typer.echo(f"nirvana {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The open database of winning lottery tickets."""


_VERBS: tuple[Callable[..., None], ...] = (
    *(processes.up, processes.serve, processes.worker, processes.migrate),
    *(tickets.search, tickets.show, tickets.pull, tickets.push, tickets.yank),
    *(experiments.find, experiments.verify, experiments.train, transferring.transfer),
    *(predicting.predict, tickets.lint, exporting.export),
    *(catalogues.methods, accounts.login, accounts.logout, accounts.whoami, catalogues.env),
)
for _verb in _VERBS:
    app.command()(_verb)
app.command(name="import")(importing.import_)
app.add_typer(catalogues.tasks_app, name="tasks")
app.add_typer(jobs.app, name="jobs")
app.add_typer(cached.app, name="cache")
