"""Every verb of `nirvana`. Heavy imports stand inside the verbs' functions, so that --help is fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from nirvana.cli import (
    accounts,
    catalogues,
    experiments,
    import_export,
    jobs,
    predict,
    processes,
    tickets,
    up,
    verify,
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
        from nirvana.environment import VERSION

        typer.echo(f"nirvana {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The open database of winning lottery tickets."""


_VERBS: tuple[Callable[..., None], ...] = (
    *(up.up, processes.serve, processes.worker, processes.migrate, processes.dump),
    *(tickets.search, tickets.show, tickets.diff, tickets.cite, tickets.pull, tickets.push, tickets.yank),
    *(tickets.unyank, tickets.similar, tickets.card, tickets.mirror),
    *(
        experiments.find,
        verify.verify,
        verify.verify_signature,
        verify.attest,
        experiments.train,
        verify.transfer,
    ),
    *(predict.predict, tickets.lint, import_export.export),
    *(catalogues.methods, accounts.signup, accounts.login, accounts.logout, accounts.whoami),
    *(accounts.password, catalogues.env),
)
for _verb in _VERBS:
    app.command(epilog=experiments.options_help() if _verb is experiments.find else None)(_verb)
app.command(name="import")(import_export.import_)
# "-small" takes a tag away and is no option; so this verb knows long options alone.
app.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})(tickets.tags)
app.add_typer(catalogues.tasks_app, name="tasks")
app.add_typer(processes.admin_app, name="admin")
app.add_typer(jobs.app, name="jobs")
app.add_typer(accounts.tokens_app, name="tokens")
app.add_typer(accounts.organisations_app, name="organisations")
app.add_typer(tickets.cache_app, name="cache")
app.add_typer(accounts.webhooks_app, name="webhooks")
