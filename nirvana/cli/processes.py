"""up, serve, worker, migrate: the service's processes."""

from __future__ import annotations

from typing import Annotated

import typer

from nirvana.cli.output import Json, Output, Quiet


def up(
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1; a free one if it is busy.")] = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", "--once", help="In a throw-away home; do the first job, then stop. 0 if it won."
        ),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a registry on this machine; on an empty database, find and verify a first ticket."""
    from nirvana.cli.up import run_demo, run_up

    output = Output(json, quiet)
    if demo:
        raise typer.Exit(run_demo(output))
    run_up(output, 8000 if port is None else port)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Run the service."""
    from nirvana.cli.children import become

    options = [("--host", host), ("--port", port)]
    given = [str(part) for option in options if option[1] is not None for part in option]
    become("app", "serve", *given)


def worker() -> None:
    """Run a worker, which does the service's jobs."""
    from nirvana.cli.children import become

    become("worker")


def migrate() -> None:
    """Bring the database to this version."""
    from nirvana.cli.children import become

    become("app", "migrate")
