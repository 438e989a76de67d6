"""login, logout, whoami: the token of this machine's user; and webhooks, to which changes are sent."""

from __future__ import annotations

from typing import Annotated

import typer

from nirvana.cli.output import Json, Output, Quiet


def login(
    token: Annotated[
        str | None, typer.Option(help="Token; prompted for when left out. It is shown nowhere.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep a token for this machine's user, after the service has confirmed it."""
    from nirvana import environment
    from nirvana.client.rest import Client
    from nirvana.files import write_atomically

    secret = (token or typer.prompt("Token", hide_input=True, err=True)).strip()
    with Client(token=secret) as client:
        who = client.whoami()
    path = environment.token_file()
    write_atomically(path, secret.encode(), mode=0o600)
    output = Output(json, quiet)
    output.data(who, lambda: output.say(f"signed in as {_account_name(who)}; the token is kept in {path}"))


def logout(json: Json = False, quiet: Quiet = False) -> None:
    """Forget the kept token. It stays valid until it is revoked."""
    from nirvana import environment

    path = environment.token_file()
    was_there = path.exists()
    path.unlink(missing_ok=True)
    output = Output(json, quiet)
    outcome = f"forgot the token in {path}" if was_there else "there was no token"
    output.data({"removed": was_there}, lambda: output.say(outcome))


def whoami(json: Json = False, quiet: Quiet = False) -> None:
    """Print the account and the scopes of the token."""
    from nirvana.client.rest import Client

    with Client() as client:
        who = client.whoami()
    Output(json, quiet).data(who, lambda: print(_account_name(who)))


def _account_name(who: dict[str, object]) -> str:
    account = who.get("account")
    return str(account.get("name") if isinstance(account, dict) else account or who.get("name"))


webhooks_app = typer.Typer(help="Addresses to which a registry's changes are sent.", no_args_is_help=True)
WebhookId = Annotated[int, typer.Argument(metavar="ID", help="Number of the webhook.")]
_COLUMNS = ("id", "url", "kinds", "position", "failures", "last_error", "disabled_at")


@webhooks_app.command("ls")
def list_webhooks(json: Json = False, quiet: Quiet = False) -> None:
    """List your webhooks, and how their deliveries go."""
    from nirvana.client.rest import Client

    with Client() as client:
        items = list(client.webhooks())
    output = Output(json, quiet)
    rows = [[one[column] for column in _COLUMNS] for one in items]
    output.data({"items": items}, lambda: output.table(_COLUMNS, rows))


@webhooks_app.command("add")
def add_webhook(
    url: Annotated[str, typer.Argument(help="Address to send changes to.")],
    kind: Annotated[list[str] | None, typer.Option(help="Kind of changes; may be repeated.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Have changes sent to an address; prints the secret of its signatures, which is shown this once."""
    from nirvana.client.rest import Client

    with Client() as client:
        made = client.create_webhook(url, kind or [])
    Output(json, quiet).data(made, lambda: print(f"{made['id']} {made['secret']}"))


@webhooks_app.command("rm")
def remove_webhook(number: WebhookId, json: Json = False, quiet: Quiet = False) -> None:
    """Send nothing there any more."""
    from nirvana.client.rest import Client

    with Client() as client:
        client.delete_webhook(number)
    output = Output(json, quiet)
    output.data({"removed": number}, lambda: output.say(f"removed webhook {number}"))


@webhooks_app.command("replay")
def replay_webhook(
    number: WebhookId,
    since: Annotated[int, typer.Option(min=0, help="Serial after which to begin.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send every change after a serial again, and turn the webhook on if it was off."""
    from nirvana.client.rest import Client

    with Client() as client:
        replayed = client.replay_webhook(number, since)
    output = Output(json, quiet)
    output.data(replayed, lambda: output.say(f"webhook {number} goes on after {replayed['position']}"))
