"""`python -m app serve | migrate | token`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from app.accounts.service import FIRST_SCOPES
from app.settings import Settings
from nirvana.errors import NirvanaError, Unavailable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0, or 4 where it was refused."""
    args = _parser().parse_args(arguments)
    settings = Settings(
        **{name: getattr(args, name) for name in ("host", "port") if getattr(args, name, None)}
    )
    try:
        {"serve": serve, "migrate": migrate, "token": token}[args.command](settings, args)
    except NirvanaError as error:
        print(f"{error.title}: {error.detail}", file=sys.stderr)
        return 4
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", description="The Nirvana service.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="answer requests")
    serving.add_argument("--host", help="address to listen on (NIRVANA_HOST)")
    serving.add_argument("--port", type=int, help="port to listen on (NIRVANA_PORT)")
    commands.add_parser("migrate", help="bring the database to the newest schema")
    granting = commands.add_parser("token", help="make a token, and the account if need be; print the secret")
    granting.add_argument("--account", required=True)
    granting.add_argument("--scopes", default=",".join(FIRST_SCOPES), help="comma-separated")
    granting.add_argument("--name", default="command line", help="what the token is for")
    return parser


def serve(settings: Settings, _args: argparse.Namespace) -> None:
    """Answer requests until SIGTERM or Ctrl-C; requests in flight are finished."""
    import uvicorn

    from app.logs import configure_logs
    from app.main import create_app

    configure_logs(settings.log_level)
    check_migrated(settings)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def check_migrated(settings: Settings) -> None:
    """Raises: Unavailable, saying what to do, where the tables are not there or the database is not."""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    from app.main import make_database

    database = make_database(settings)
    try:
        with database.read() as session:
            session.execute(text("SELECT 1 FROM ticket LIMIT 1"))
    except DBAPIError as error:
        raise Unavailable(f"{error.orig}. Is it there, and migrated (`python -m app migrate`)?") from error
    finally:
        database.dispose()


def migrate(settings: Settings, _args: argparse.Namespace) -> None:
    """Bring the database to the newest schema."""
    from app.migrate import migrate_database

    migrate_database(settings)


def token(settings: Settings, args: argparse.Namespace) -> None:
    """Make a token and print its secret, once."""
    from app.accounts.service import create_account, create_token, find_account
    from app.main import make_database

    database = make_database(settings)
    with database.write() as session:
        account = find_account(session, args.account) or create_account(session, args.account)
        _, secret = create_token(session, account, name=args.name, scopes=args.scopes.split(","))
    database.dispose()
    print(secret)


if __name__ == "__main__":
    sys.exit(main())
