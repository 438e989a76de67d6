"""signup, login, logout, whoami, password, tokens, organisations, webhooks: this machine's user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nirvana.cli.output import Json, Output, Quiet

if TYPE_CHECKING:
    from pathlib import Path

    from nirvana.client.rest import Client

tokens_app = typer.Typer(help="Your tokens.", no_args_is_help=True)
organisations_app = typer.Typer(help="Organisations, and who is in them.", no_args_is_help=True)
Organisation = Annotated[str, typer.Argument(metavar="ORGANISATION", help="Its name.")]
Member = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Name of the account.")]
Role = Annotated[
    str, typer.Option(help="reader (sees private tickets), writer (publishes), owner (members).")
]


def signup(
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 39 of a-z, 0-9 and -.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an account and keep its first token for this machine's user."""
    from nirvana.client.rest import Client

    with Client() as client:
        made = client.create_account(name)
    path = _keep(made["token"]["secret"])
    shown = {"name": made["name"], "token": {k: v for k, v in made["token"].items() if k != "secret"}}
    output = Output(json, quiet)
    output.data(shown, lambda: output.say(f"you are {made['name']}; the token is kept in {path}"))


def password(json: Json = False, quiet: Quiet = False) -> None:
    """Give your account a password to sign in by in a browser; prompts for it."""
    from nirvana.client.rest import Client
    from nirvana.errors import Unauthenticated

    with Client() as client:
        name = _account_name(client.whoami())
        new = typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
        try:
            client.set_password(new)
        except Unauthenticated:
            client.set_password(new, typer.prompt("Old password", hide_input=True, err=True))
    output = Output(json, quiet)
    output.data({"account": name}, lambda: output.say(f"{name} has a new password"))


@tokens_app.command("ls")
def list_tokens(json: Json = False, quiet: Quiet = False) -> None:
    """List your tokens, newest first."""
    from nirvana.client.rest import Client

    with Client() as client:
        found = list(client.tokens())
    rows = [
        (token["id"], token["name"], ", ".join(token["scopes"]), ", ".join(token["names"] or ["all"]),
         token["last_used_at"] or "never", token["expires_at"] or "never")
        for token in found
    ]  # fmt: skip
    output = Output(json, quiet)
    columns = ("id", "name", "may", "listings", "last used", "ends")
    output.data({"items": found}, lambda: output.table(columns, rows))


@tokens_app.command("new")
def new_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scopes: Annotated[str, typer.Option(help="Comma-separated: read, publish, yank, job.")] = "read",
    days: Annotated[int | None, typer.Option(min=1, help="Days until it ends; default: it does not.")] = None,
    names: Annotated[
        str | None,
        typer.Option(
            help="Listings that it may write, comma-separated: 'lenet-*', or 'lab/*' for an organisation."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a token that may do no more than yours, and print its secret, once."""
    from nirvana.client.rest import Client

    fields: dict[str, object] = {"name": name, "scopes": scopes.split(",")}
    fields |= {"expires_in_seconds": days * 86_400} if days is not None else {}
    fields |= {"names": names.split(",")} if names is not None else {}
    with Client() as client:
        made = client.create_token(**fields)
    Output(json, quiet).data(made, lambda: print(made["secret"]))


@tokens_app.command("revoke")
def revoke_token(
    token: Annotated[int, typer.Argument(metavar="ID", help="The token's id.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """End one of your tokens."""
    from nirvana.client.rest import Client

    with Client() as client:
        client.revoke_token(str(token))
    output = Output(json, quiet)
    output.data({"revoked": token}, lambda: output.say(f"token {token} is revoked"))


@organisations_app.command("ls")
def list_organisations(json: Json = False, quiet: Quiet = False) -> None:
    """List your organisations, and those that invite you."""
    from nirvana.client.rest import Client

    with Client() as client:
        who = client.whoami()
    shown = {name: who[name] for name in ("organisations", "invitations")}
    rows = [(one["organisation"], one["role"], "") for one in shown["organisations"]]
    rows += [(one["organisation"], one["role"], "invited") for one in shown["invitations"]]
    output = Output(json, quiet)
    output.data(shown, lambda: output.table(("organisation", "role", ""), rows))


@organisations_app.command("create")
def create_organisation(name: Organisation, json: Json = False, quiet: Quiet = False) -> None:
    """Make an organisation, whose owner you are."""
    from nirvana.client.rest import Client

    with Client() as client:
        made = client.create_organisation(name)
    output = Output(json, quiet)
    output.data(made, lambda: output.say(f"you own {name}; publish with --name {name}/TICKET"))


@organisations_app.command("members")
def list_members(organisation: Organisation, json: Json = False, quiet: Quiet = False) -> None:
    """List the members of an organisation that you are in."""
    from nirvana.client.rest import Client

    with Client() as client:
        shown = client.members(organisation)
    rows = [(one["account"], one["role"], one["created_at"], "") for one in shown["items"]]
    rows += [
        (one["account"], one["role"], one["created_at"], f"invited by {one['invited_by']}")
        for one in shown["invitations"]
    ]
    output = Output(json, quiet)
    output.data(shown, lambda: output.table(("account", "role", "since", ""), rows))


@organisations_app.command("invite")
def invite(
    organisation: Organisation,
    account: Member,
    role: Role = "reader",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Invite somebody to your organisation: they are no member until they accept."""
    from nirvana.client.rest import Client

    with Client() as client:
        made = client.invite(organisation, account, role)
    output = Output(json, quiet)
    output.data(made, lambda: output.say(f"{account} is invited to {organisation} as {role}"))


@organisations_app.command("accept")
def accept_invitation(organisation: Organisation, json: Json = False, quiet: Quiet = False) -> None:
    """Accept an invitation."""
    from nirvana.client.rest import Client

    with Client() as client:
        made = client.accept_invitation(organisation)
    output = Output(json, quiet)
    output.data(made, lambda: output.say(f"you are in {organisation} as {made['role']}"))


@organisations_app.command("decline")
def decline_invitation(organisation: Organisation, json: Json = False, quiet: Quiet = False) -> None:
    """Decline an invitation."""
    from nirvana.client.rest import Client

    with Client() as client:
        client.drop_invitation(organisation, _account_name(client.whoami()))
    output = Output(json, quiet)
    output.data({"declined": organisation}, lambda: output.say(f"declined {organisation}"))


@organisations_app.command("withdraw")
def withdraw_invitation(
    organisation: Organisation, account: Member, json: Json = False, quiet: Quiet = False
) -> None:
    """Withdraw an invitation to your organisation."""
    from nirvana.client.rest import Client

    with Client() as client:
        client.drop_invitation(organisation, account)
    output = Output(json, quiet)
    output.data({"withdrawn": account}, lambda: output.say(f"{organisation} invites {account} no more"))


@organisations_app.command("role")
def change_role(
    organisation: Organisation,
    account: Member,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="reader, writer or owner.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give a member of your organisation another role."""
    from nirvana.client.rest import Client

    with Client() as client:
        changed = client.change_role(organisation, account, role)
    output = Output(json, quiet)
    output.data(changed, lambda: output.say(f"{account} is {role} in {organisation}"))


@organisations_app.command("remove")
def remove_member(
    organisation: Organisation, account: Member, json: Json = False, quiet: Quiet = False
) -> None:
    """Remove a member of your organisation, at once."""
    from nirvana.client.rest import Client

    with Client() as client:
        client.remove_member(organisation, account)
    output = Output(json, quiet)
    output.data({"removed": account}, lambda: output.say(f"{account} is in {organisation} no more"))


@organisations_app.command("leave")
def leave(organisation: Organisation, json: Json = False, quiet: Quiet = False) -> None:
    """Leave an organisation."""
    from nirvana.client.rest import Client

    with Client() as client:
        client.remove_member(organisation, _account_name(client.whoami()))
    output = Output(json, quiet)
    output.data({"left": organisation}, lambda: output.say(f"you are in {organisation} no more"))


def login(
    token: Annotated[
        str | None, typer.Option(help="A token that you have; - to be prompted for it. It is shown nowhere.")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, or only say where it is.")
    ] = True,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Get a token for this machine's user, granted in a browser, and keep it."""
    from nirvana.client.rest import Client

    output = Output(json, quiet)
    if token is None:
        secret = _ask_in_browser(output, opens=browser)
    else:
        secret = (typer.prompt("Token", hide_input=True, err=True) if token == "-" else token).strip()
    with Client(token=secret) as client:
        who = client.whoami()
    path = _keep(secret)
    output.data(who, lambda: output.say(f"signed in as {_account_name(who)}; the token is kept in {path}"))


def _ask_in_browser(output: Output, *, opens: bool) -> str:
    """Return the secret of a token that the user grants on a page of the registry."""
    import platform
    import sys
    import webbrowser

    from nirvana.client.rest import Client

    with Client(token="") as client:
        asked = client.create_device_code(name=(platform.node() or "command line")[:100])
        address = asked["verification_uri"]
        print(f"Type the code {asked['user_code']} at {address}", file=sys.stderr, flush=True)
        if opens and _has_screen() and not webbrowser.open(address):
            output.say("no browser was opened: open the page yourself")
        return _wait_for_token(client, asked)


def _has_screen() -> bool:
    """Tell whether a browser would have a screen; in a terminal alone it would take the terminal."""
    import os
    import sys

    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def _wait_for_token(client: Client, asked: dict[str, Any]) -> str:
    """Ask for the token until it is granted; what passes (a busy service, a lost connection) is waited for.

    Raises:
        Forbidden: it was denied.
        Unauthenticated: nobody granted it in time.
    """
    import time

    from nirvana.errors import NetworkError, NotFound, RateLimited, Unauthenticated, Unavailable

    until = time.monotonic() + float(asked["expires_in_seconds"])
    while time.monotonic() < until:
        time.sleep(float(asked["interval_seconds"]))
        try:
            made = client.fetch_device_token(asked["device_code"])
        except (NetworkError, RateLimited, Unavailable):
            time.sleep(float(asked["interval_seconds"]))
        except NotFound:
            break
        else:
            if made is not None:
                return str(made["secret"])
    raise Unauthenticated("nobody granted the token in time; run `nirvana login` again")


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


def _keep(secret: str) -> Path:
    from nirvana import environment
    from nirvana.files import write_atomically

    path = environment.token_file()
    write_atomically(path, secret.encode(), mode=0o600)
    return path


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
