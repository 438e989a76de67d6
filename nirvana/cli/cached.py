"""cache: the tickets that were downloaded to this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from nirvana.cli.output import Json, Output, Quiet

app = typer.Typer(help="The tickets kept on this machine.", no_args_is_help=True)


@app.command("ls")
def list_kept(json: Json = False, quiet: Quiet = False) -> None:
    """List the kept tickets."""
    from nirvana.cache import Cache

    cache = Cache()
    kept = [(digest, cache.path(digest).stat().st_size) for digest in cache.digests()]
    output = Output(json, quiet)
    listed = [{"digest": digest, "bytes": size} for digest, size in kept]
    output.data({"items": listed}, lambda: output.table(("digest", "bytes"), kept))


@app.command("rm")
def remove(
    digests: Annotated[list[str] | None, typer.Argument(help="Which; --all for every one.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every kept ticket.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Forget kept tickets; they can be downloaded again."""
    from nirvana.cache import Cache

    cache = Cache()
    chosen = list(cache.digests()) if everything else digests or []
    for digest in chosen:
        cache.remove(digest)
    output = Output(json, quiet)
    output.data({"removed": chosen}, lambda: output.say(f"removed {len(chosen)}"))


@app.command("verify")
def verify_kept(json: Json = False, quiet: Quiet = False) -> None:
    """Read every kept ticket again; damaged ones are removed. Exit code 4 when there was one."""
    from nirvana.cache import Cache

    cache = Cache()
    listed = list(cache.digests())
    damaged = [digest for digest in listed if cache.find_intact(digest) is None]
    output = Output(json, quiet)
    found = {"intact": len(listed) - len(damaged), "damaged": damaged}
    output.data(found, lambda: print(f"{found['intact']} intact, {len(damaged)} damaged and removed"))
    if damaged:
        raise typer.Exit(4)
