"""search, show, pull, push, yank, lint: tickets as a registry holds them, and as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nirvana.cli.output import Json, Output, Quiet, percent

Name = Annotated[str, typer.Argument(metavar="TICKET", help="owner/name, sha256:..., or a .ticket file.")]


def search(
    q: Annotated[str | None, typer.Argument(help="Words to look for.")] = None,
    task: Annotated[str | None, typer.Option(help="The task that tickets are for.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Name of the network.")] = None,
    method: Annotated[str | None, typer.Option(help="How tickets were found: imp, one-shot.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who published them.")] = None,
    verdict: Annotated[str | None, typer.Option(help="winning, matching ...")] = None,
    min_density: Annotated[float | None, typer.Option(help="Least share of weights kept.")] = None,
    max_density: Annotated[float | None, typer.Option(help="Greatest share of weights kept.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Least test accuracy, in [0, 1].")] = None,
    sort: Annotated[str | None, typer.Option(help="accuracy, density, kept, created_at ...")] = None,
    order: Annotated[str | None, typer.Option(help="asc or desc.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to print.")] = 50,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search published tickets."""
    from nirvana.client import Client

    filters = {"q": q, "task": task, "architecture": architecture, "method": method, "owner": owner}
    filters |= {"verdict": verdict, "sort": sort, "order": order}
    ranges = {"min_density": min_density, "max_density": max_density, "min_accuracy": min_accuracy}
    with Client() as client:
        found = list(client.search(limit=limit, **filters, **ranges))
    output = Output(json, quiet)
    output.data({"items": found}, lambda: _print_hits(output, found))


def _print_hits(output: Output, found: list[dict[str, Any]]) -> None:
    if not found:
        output.say("no ticket matches")
        return
    columns = ("ticket", "task", "architecture", "density", "accuracy", "verdict")
    output.table(columns, [_hit_row(hit) for hit in found])


def _hit_row(hit: dict[str, Any]) -> tuple[Any, ...]:
    accuracy = hit.get("accuracy")
    architecture = hit.get("architecture")
    shown = architecture.get("name") if isinstance(architecture, dict) else architecture
    return (
        full_name(hit),
        hit.get("task"),
        shown,
        percent(hit.get("density")),
        percent(accuracy) if isinstance(accuracy, int | float) else "",
        hit.get("verdict") or "unverified",
    )


def full_name(listing: dict[str, Any]) -> str:
    """owner/name of a listing; the digest where it has none."""
    owner, name = listing.get("owner"), listing.get("name")
    owner = owner.get("name") if isinstance(owner, dict) else owner
    return f"{owner}/{name}" if owner and name else str(listing.get("digest", ""))


def show(name: Name, json: Json = False, quiet: Quiet = False) -> None:
    """Show a published ticket, or a .ticket file: what it is, its layers, its verdict."""
    from nirvana.api import is_file_name, parse_reference
    from nirvana.client import Client

    output = Output(json, quiet)
    if is_file_name(name):
        shown = _describe_file(Path(name))
    else:
        endpoint, reference = parse_reference(name)
        with Client(endpoint) as client:
            shown = client.ticket(reference)
    output.data(shown, lambda: _print_ticket(output, shown))


def _describe_file(path: Path) -> dict[str, Any]:
    from nirvana.ticket import Ticket

    ticket = Ticket.read(path)
    counts = {"density": ticket.density, "kept": ticket.kept, "total": ticket.total}
    manifest = ticket.manifest()
    described = {"digest": ticket.digest, "task": ticket.task, "architecture": ticket.architecture.name}
    return described | counts | {"layers": ticket.layers(), "manifest": manifest}


def _print_ticket(output: Output, shown: dict[str, Any]) -> None:
    skipped = {"layers", "manifest", "evaluations", "lineage"}
    rows = [(key, value) for key, value in shown.items() if key not in skipped and _is_short(value)]
    output.table(("field", "value"), rows, title=full_name(shown))
    layers = shown.get("layers") or []
    columns = ("layer", "shape", "kept", "total", "density")
    cells = [(x["name"], "x".join(map(str, x["shape"])), x["kept"], x["total"]) for x in layers]
    shares = [percent(layer["density"]) for layer in layers]
    if layers:
        output.table(columns, [(*row, share) for row, share in zip(cells, shares, strict=True)])


def _is_short(value: Any) -> bool:
    return value is not None and not isinstance(value, dict | list)


def pull(
    name: Name,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File or folder to write to.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download a ticket, checked, to a file; it is kept in the cache as well."""
    from nirvana.api import fetch, parse_reference
    from nirvana.cli.progress import Watch
    from nirvana.files import write_atomically
    from nirvana.ticket import Ticket

    output = Output(json, quiet)
    endpoint, reference = parse_reference(name)
    with Watch(output) as watch:
        content = fetch(reference, endpoint, lambda done: watch({"kind": "download", "done": done}))
    file_name = reference.rsplit("/", 1)[-1].replace("sha256:", "") + ".ticket"
    target = out / file_name if out is not None and out.is_dir() else out or Path(file_name)
    write_atomically(target, content)
    ticket = Ticket.from_bytes(content)
    pulled = {
        "ticket": str(target),
        "digest": ticket.digest,
        "density": ticket.density,
        "bytes": len(content),
    }
    output.data(pulled, lambda: print(target))


def push(
    file: Annotated[Path, typer.Argument(help="The .ticket file.")],
    name: Annotated[str, typer.Option("--name", "-n", help="The name it gets under your account.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a .ticket file under your account. Doing it again with the same file and name is no error."""
    from nirvana.client import Client
    from nirvana.ticket import Ticket

    Ticket.read(file)
    output = Output(json, quiet)
    with Client() as client:
        published = client.publish(file.read_bytes(), name)
    output.data(published, lambda: print(f"{full_name(published)} {published['digest']}"))


def yank(
    name: Name,
    reason: Annotated[
        str, typer.Option(help="broken, duplicate, license, privacy, superseded, withdrawn, other.")
    ],
    detail: Annotated[str | None, typer.Option(help="Why, in words.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hide your ticket from search; pinned downloads go on working."""
    from nirvana.api import parse_reference
    from nirvana.client import Client

    endpoint, reference = parse_reference(name)
    with Client(endpoint) as client:
        yanked = client.yank(reference, reason, detail)
    Output(json, quiet).data(yanked, lambda: print(f"yanked {name}"))


def lint(
    file: Annotated[Path, typer.Argument(help="The .ticket file.")], json: Json = False, quiet: Quiet = False
) -> None:
    """Check a .ticket file against the format; exit code 4 when it is not valid."""
    from nirvana.reader import lint as lint_file

    report = lint_file(file)
    Output(json, quiet).data(report.to_dict(), lambda: _print_lint(report))
    if not report.ok:
        raise typer.Exit(4)


def _print_lint(report: Any) -> None:
    if report.ok:
        print(f"valid: {report.digest}, density {report.density:.4f} ({report.kept} of {report.total})")
    for problem in report.errors:
        print(f"{problem.pointer or '/'}: {problem.detail} [{problem.code}]")
    for warning in report.warnings:
        print(f"warning: {warning}")
