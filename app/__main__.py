"""`python -m app serve | migrate | fingerprint | recount | reverify | dump | token`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.accounts.service import FIRST_SCOPES, create_account, create_token, find_account
from app.accounts.sessions import make_setup_link
from app.db import make_database
from app.dumps.writing import store_dump, write_dump
from app.jobs.engine import migrate_engine
from app.jobs.reverify import ENQUEUED, reverify
from app.settings import Settings
from app.storage import make_storage
from app.telemetry import configure_logs
from app.tickets.files.serving import limits_of
from app.tickets.publishing import fill_fingerprints
from app.tickets.search.counts import recount
from nirvana.errors import NirvanaError, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger("nirvana.app")
ROOT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code, 0, or 4 where it was refused."""
    args = _parser().parse_args(arguments)
    settings = Settings(
        **{name: getattr(args, name) for name in ("host", "port", "workers") if getattr(args, name, None)}
    )
    try:
        verbs = {"serve": serve, "migrate": migrate, "fingerprint": fill, "token": token, "dump": dump}
        (verbs | {"recount": count_again, "reverify": verify_again})[args.command](settings, args)
    except NirvanaError as error:
        print(f"{error.title}: {error.detail}", file=sys.stderr)
        return 4
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", description="The Nirvana service.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="answer requests")
    serving.add_argument("--host", help="address to listen on (NIRVANA_HOST)")
    serving.add_argument("--from-mirror", type=Path, metavar="DIR", help="serve a mirror, read only")
    serving.add_argument("--port", type=int, help="port to listen on (NIRVANA_PORT)")
    serving.add_argument("--workers", type=int, help="processes that answer (NIRVANA_WORKERS)")
    commands.add_parser("migrate", help="bring the database to the newest schema")
    commands.add_parser("fingerprint", help="find copies among tickets that an older version published")
    commands.add_parser("recount", help="count the listings anew, should the kept counts ever be wrong")
    again = commands.add_parser("reverify", help="measure headlines of older protocols by today's")
    again.add_argument("--task", help="of this task alone")
    again.add_argument("--limit", type=int, help="the most verifications to enqueue")
    again.add_argument("--dry-run", action="store_true", help="say what would happen, and enqueue nothing")
    again.add_argument("--json", action="store_true", help="a JSON document at the end, progress on stderr")
    dumping = commands.add_parser("dump", help="write all that is public as files")
    dumping.add_argument("--out", type=Path, help="folder; default: the blob store, where /dumps shows it")
    granting = commands.add_parser("token", help="make a token, and the account if need be; print the secret")
    granting.add_argument("--account", required=True)
    granting.add_argument("--scopes", default=",".join(FIRST_SCOPES), help="comma-separated")
    granting.add_argument("--name", default="command line", help="what the token is for")
    return parser


def serve(settings: Settings, args: argparse.Namespace) -> None:
    """Answer requests until SIGTERM or Ctrl-C; requests in flight are finished."""
    from app import server
    from app.mirror import open_mirror

    configure_logs(settings.log_level)
    if args.from_mirror is not None:
        settings = open_mirror(settings, args.from_mirror, migrate_database)
    check_migrated(settings)
    if not settings.mirror_of:
        show_setup_link(settings)
    server.serve(settings)


def show_setup_link(settings: Settings) -> None:
    """Log the link by which somebody becomes the first administrator, while there is none."""
    database = make_database(settings)
    with database.write() as session:
        key = make_setup_link(session)
    database.dispose()
    if key is not None:
        link = f"{settings.public_url}/setup?key={key}"
        log.warning("no administrator yet: %s makes one, once, within a day", link)


def check_migrated(settings: Settings) -> None:
    """Check that the tables are there. Raises: Unavailable, naming the remedy."""
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
    migrate_database(settings)


def fill(settings: Settings, _args: argparse.Namespace) -> None:
    """Give older listings their fingerprints, from their files; safe to repeat."""
    database = make_database(settings)
    with database.write() as session:
        filled = fill_fingerprints(session, make_storage(settings), limits_of(settings))
    database.dispose()
    print(f"{filled} listings got a fingerprint")


def count_again(settings: Settings, _args: argparse.Namespace) -> None:
    """Write the kept counts anew, from the listings; safe to repeat."""
    database = make_database(settings)
    with database.write() as session:
        recount(session.connection())
    database.dispose()


def verify_again(settings: Settings, args: argparse.Namespace) -> None:
    """Enqueue a verification for each exam whose headline is of an older protocol; safe to repeat."""
    database, talk = make_database(settings), sys.stderr if args.json else sys.stdout
    items = []
    options = {"task": args.task, "limit": args.limit, "dry_run": args.dry_run}
    for name, happened in reverify(database, settings, **options):
        items.append({"ticket": name, "outcome": happened})
        print(f"{name}: {happened}", file=talk, flush=True)
    database.dispose()
    enqueued = sum(item["outcome"] == ENQUEUED for item in items)
    verb = "would be" if args.dry_run else "were"
    print(f"{enqueued} of {len(items)} verifications {verb} enqueued", file=talk)
    if args.json:
        print(json.dumps({"dry_run": args.dry_run, "enqueued": enqueued, "items": items}))


def dump(settings: Settings, args: argparse.Namespace) -> None:
    """Write a dump, and print its manifest."""
    database, address = make_database(settings), settings.public_url
    if args.out is not None:
        manifest = write_dump(database, args.out, address)
    else:
        manifest = store_dump(database, make_storage(settings), address, settings.dumps_kept)
    database.dispose()
    print(json.dumps(manifest, indent=1))


def migrate_database(settings: Settings) -> None:
    """Upgrade the service's tables, then the job engine's own; safe to repeat."""
    from alembic import command

    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    command.upgrade(alembic_config(settings), "head")
    database = make_database(settings)
    migrate_engine(database.engine)
    database.dispose()


def alembic_config(settings: Settings) -> Config:
    """Return Alembic's configuration for the database of the settings."""
    from alembic.config import Config

    config = Config(ROOT / "alembic.ini")
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["settings"] = settings
    return config


def token(settings: Settings, args: argparse.Namespace) -> None:
    """Make a token and print its secret, once."""
    database = make_database(settings)
    with database.write() as session:
        account = find_account(session, args.account) or create_account(
            session, args.account, by_operator=True
        )
        _, secret = create_token(session, account, name=args.name, scopes=args.scopes.split(","))
    database.dispose()
    print(secret)


if __name__ == "__main__":
    sys.exit(main())
