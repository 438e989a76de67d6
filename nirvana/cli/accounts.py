"""login, logout, whoami: the token of this machine's user."""

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
