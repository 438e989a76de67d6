"""search, show, card, tags, pull, push, yank, lint, cache: tickets of a registry, as files and as kept."""

from __future__ import annotations

import inspect
import operator
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nirvana.cli.output import Json, Output, Quiet, Watch, percent
from nirvana.client.filters import PARAMETERS, Filter, Value
from nirvana.errors import JsonObject

if TYPE_CHECKING:
    from nirvana.format.lint import LintReport

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
Name = Annotated[str, typer.Argument(metavar="TICKET", help="owner/name, sha256:..., hf://... or a file.")]


def search(
    *,
    facets: Annotated[
        str | None,
        typer.Option(help="Count the values of these instead, comma-separated, such as task,method,verdict."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of tickets.")] = 50,
    json: Json = False,
    quiet: Quiet = False,
    **filters: Value,
) -> None:
    """Search published tickets."""
    from nirvana.client.rest import Client

    output = Output(json, quiet)
    with Client() as client:
        if facets:
            counted = client.facets(facets.split(","), **filters)
            return output.data(counted, lambda: _print_facets(output, counted))
        hits = list(client.search(limit=limit, cursor=None, **filters))
    output.data({"items": hits}, lambda: _print_hits(output, hits))
    if str(filters.get("verdict") or "").upper() == "WINNING" and not filters.get("origin"):
        output.say("attested and sealed winners only, each once; --origin any shows the others too")


def _options(row: Filter) -> Iterator[inspect.Parameter]:
    """Yield the options of a filter: one, or those of a range's ends; words are an argument."""
    help = f"{row.help[0].upper()}{row.help[1:]}."
    if row.kind == "range":
        is_instant = row.type is datetime
        annotation = str | None if is_instant else operator.or_(row.type, None)
        for name, end in zip(row.ends, ("Minimum", "Maximum"), strict=True):
            option = typer.Option(None, metavar="TIME" if is_instant else None, help=f"{end} {row.help}.")
            yield inspect.Parameter(name, _KEYWORD, default=option, annotation=annotation)
        return
    option = typer.Option(row.default, help=help)
    if row.kind == "words":
        option = typer.Argument(None, help=help)
    elif row.kind == "flag":
        option = typer.Option(False, f"--{row.name.replace('_', '-')}", help=help)
    yield inspect.Parameter(row.name, _KEYWORD, default=option, annotation=row.annotation)


def _signature() -> inspect.Signature:
    """Return the signature of `search` with the options of every filter in the place of `filters`."""
    *own, _filters = inspect.signature(search, eval_str=True).parameters.values()
    return inspect.Signature([*(option for row in PARAMETERS for option in _options(row)), *own])


search.__signature__ = _signature()  # type: ignore[attr-defined]


def _print_facets(output: Output, counted: JsonObject) -> None:
    for name, counts in counted["facets"].items():
        output.table((name, "tickets"), list(counts.items()))
    about = "" if counted["total_is_exact"] and counted["facets_are_exact"] else "about "
    output.say(f"{about}{counted['total']} tickets")


def _print_hits(output: Output, hits: list[JsonObject]) -> None:
    if not hits:
        output.say("no ticket matches")
        return
    columns = ("ticket", "task", "architecture", "density", "accuracy", "verdict", "origin")
    output.table(columns, [_hit_row(hit) for hit in hits])


def _hit_row(hit: JsonObject) -> tuple[object, ...]:
    accuracy = hit.get("accuracy")
    architecture = hit.get("architecture")
    shown = architecture.get("name") if isinstance(architecture, dict) else architecture
    return (
        full_name(hit),
        hit.get("task"),
        shown,
        percent(hit.get("density")),
        percent(accuracy) if isinstance(accuracy, int | float) else "",
        f"copy of {copy_of}" if (copy_of := hit.get("copy_of")) else _verdict(hit),
        str(hit.get("origin") or "").replace("-", " "),
    )


def _verdict(hit: JsonObject) -> str:
    """Return the verdict, with its protocol where that is an older one."""
    from nirvana.verification.protocol import PROTOCOL

    verdict, protocol = hit.get("verdict"), hit.get("protocol")
    if not verdict:
        return "unverified"
    return str(verdict) if protocol in (PROTOCOL, None) else f"{verdict} (by {protocol})"


def full_name(listing: JsonObject) -> str:
    """Return owner/name of a listing; the digest where it has none."""
    owner, name = listing.get("owner"), listing.get("name")
    owner = owner.get("name") if isinstance(owner, dict) else owner
    return f"{owner}/{name}" if owner and name else str(listing.get("digest", ""))


def show(name: Name, json: Json = False, quiet: Quiet = False) -> None:
    """Show a published ticket, or a .ticket file: its layers and verdict; of a digest, its listings."""
    from nirvana.client.api import is_file_name, parse_reference
    from nirvana.client.rest import Client

    output = Output(json, quiet)
    if is_file_name(name):
        shown = _describe_file(Path(name))
    else:
        endpoint, reference = parse_reference(name)
        with Client(endpoint) as client:
            shown = client.ticket(reference)
    output.data(shown, lambda: _print_ticket(output, shown))


def _describe_file(path: Path) -> JsonObject:
    from nirvana.format.ticket import Ticket

    ticket = Ticket.read(path)
    counts = {
        "density": ticket.density,
        "kept": ticket.kept,
        "total": ticket.total,
        "kept_parameters": ticket.kept_parameters,
        "parameters": ticket.architecture.parameter_count,
    }
    manifest = ticket.manifest()
    described = {"digest": ticket.digest, "task": ticket.task, "architecture": ticket.architecture.name}
    return described | counts | {"layers": ticket.layers(), "manifest": manifest}


def _print_ticket(output: Output, shown: JsonObject) -> None:
    skipped = {"layers", "manifest", "evaluations", "lineage"}
    rows = [(key, value) for key, value in shown.items() if key not in skipped and _is_short(value)]
    output.table(("field", "value"), rows, title=full_name(shown))
    layers = shown.get("layers") or []
    columns = ("layer", "shape", "kept", "total", "density")
    cells = [(x["name"], "x".join(map(str, x["shape"])), x["kept"], x["total"]) for x in layers]
    shares = [percent(layer["density"]) for layer in layers]
    if layers:
        output.table(columns, [(*row, share) for row, share in zip(cells, shares, strict=True)])
    if exams := shown.get("exams"):
        counts = ", ".join(f"{verdict} {count}" for verdict, count in sorted(exams.items()))
        output.say(f"examined {sum(exams.values())} times, its copies counted: {counts}")
    if listings := shown.get("listings"):
        _print_hits(output, listings)


def _is_short(value: object) -> bool:
    return value is not None and not isinstance(value, dict | list)


def pull(
    name: Name,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File or folder to write to.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download a ticket, checked, to a file; it is kept in the cache as well."""
    from nirvana.client.api import fetch, parse_reference
    from nirvana.client.hub import fetch_from_hub, is_hub, parse_hub
    from nirvana.files import write_atomically
    from nirvana.format.ticket import Ticket

    output = Output(json, quiet)
    if is_hub(name):
        content, reference = fetch_from_hub(name), parse_hub(name)[0]
    else:
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
    name: Annotated[
        str, typer.Option("--name", "-n", help="Name of the ticket under your account, or ORGANISATION/NAME.")
    ] = "",
    to: Annotated[
        str, typer.Option(help="hf://org/name: to the Hugging Face Hub as well, or alone without --name.")
    ] = "",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a .ticket file under your account, or an organisation's. Doing it again with the same file and
    name is no error."""
    from nirvana.client.api import push as publish
    from nirvana.format.ticket import Ticket

    if not name and not to:
        raise typer.BadParameter("a ticket needs a place: --name in the registry, or --to hf://org/name")
    Ticket.read(file)
    output = Output(json, quiet)
    published = publish(file, name, to=to)
    if copy_of := published.get("copy_of"):
        output.say(f"warning: a copy of {copy_of}, which was published first, and listed as one")
    output.data(published, lambda: _print_places(published))


def _print_places(published: JsonObject) -> None:
    if "digest" in published:
        print(f"{full_name(published)} {published['digest']}")
    if hub := published.get("hub"):
        print(f"{hub['url']} {hub['digest']}")


def yank(
    name: Name,
    reason: Annotated[
        str, typer.Option(help="Reason: broken, duplicate, license, privacy, superseded, withdrawn or other.")
    ],
    detail: Annotated[str | None, typer.Option(help="Reason in words.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hide your ticket from search; pinned downloads go on working."""
    from nirvana.client.api import parse_reference
    from nirvana.client.rest import Client

    endpoint, reference = parse_reference(name)
    with Client(endpoint) as client:
        yanked = client.yank(reference, reason, detail)
    Output(json, quiet).data(yanked, lambda: print(f"yanked {name}"))


def lint(
    file: Annotated[Path, typer.Argument(help="The .ticket file.")], json: Json = False, quiet: Quiet = False
) -> None:
    """Check a .ticket file against the format; exit code 4 when it is not valid."""
    from nirvana.format.lint import lint as lint_file

    report = lint_file(file)
    Output(json, quiet).data(report.to_dict(), lambda: _print_lint(report))
    if not report.ok:
        raise typer.Exit(4)


def _print_lint(report: LintReport) -> None:
    if report.ok:
        weights = f"density {report.density:.4f} ({report.kept} of {report.total} weights"
        print(
            f"valid: {report.digest}, {weights}, {report.kept_parameters} of {report.parameters} parameters)"
        )
    for problem in report.errors:
        print(f"{problem.pointer or '/'}: {problem.detail} [{problem.code}]")
    for warning in report.warnings:
        print(f"warning: {warning}")


def diff(
    first: Name,
    second: Annotated[str, typer.Argument(help="The other one.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare the masks of two tickets, layer by layer: files, or published ones."""
    from nirvana.client.api import load
    from nirvana.verification.overlaps import diff as diff_tickets

    output = Output(json, quiet)
    shared = diff_tickets(load(first), load(second))
    output.data({"first": first, "second": second} | shared, lambda: _print_diff(output, shared))


def _print_diff(output: Output, shared: JsonObject) -> None:
    columns = ("layer", "first keeps", "second keeps", "both", "jaccard", "beyond chance", "same values")
    rows = [
        (
            row["name"],
            *row["kept"],
            row["both"],
            f"{row['jaccard']:.3f}",
            f"{row['beyond_chance']:.3f}",
            "yes" if row["same_values"] else "no",
        )
        for row in (*shared["layers"], shared | {"name": "all"})
    ]
    output.table(columns, rows)


def similar(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Maximum number of tickets.")] = 10,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the published tickets whose masks are most like a published one's."""
    from nirvana.client.api import parse_reference
    from nirvana.client.rest import Client

    endpoint, reference = parse_reference(name)
    with Client(endpoint) as client:
        hits = client.similar(reference, limit)
    output = Output(json, quiet)
    rows = [
        (full_name(hit), percent(hit["shared"], 0), percent(hit["density"]), _verdict(hit)) for hit in hits
    ]
    output.data({"items": hits}, lambda: output.table(("ticket", "shared", "density", "verdict"), rows))


def card(
    name: Name,
    edit: Annotated[
        str | None, typer.Option(metavar="FILE", help="Markdown to take, - for stdin; an empty one: no card.")
    ] = None,
    if_match: Annotated[
        str | None, typer.Option(help="The etag that --json printed: refuse when it was changed since.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the card of a published ticket, or give your own a new one."""
    from nirvana.client.api import parse_reference
    from nirvana.client.rest import Client

    endpoint, reference = parse_reference(name)
    output = Output(json, quiet)
    with Client(endpoint) as client:
        listing, etag = client.versioned(reference)
        if edit is not None:
            listing = client.update(reference, if_match or etag, card=_read_text(edit).strip() or None)
            etag = client.versioned(reference)[1]
            output.say(f"{reference} has {'a new card' if listing['card'] else 'no card any more'}")
    if listing["card"] is None:
        output.say(f"{reference} has no card")
    shown = {"ticket": reference, "card": listing["card"], "etag": etag}
    output.data(shown, lambda: print(listing["card"] or "", end="\n" if listing["card"] else ""))


def _read_text(path: str) -> str:
    """Return the text of a file, or of stdin."""
    from nirvana.errors import Invalid, NotFound

    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Invalid(f"{path} is no text in UTF-8") from None
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None


def tags(
    name: Name,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[+TAG] [-TAG]...", help="Tags to add and to take away.")
    ] = None,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No talk.")] = False,
) -> None:
    """Print the tags of a published ticket; with +TAG and -TAG, change those of your own."""
    from nirvana.client.api import parse_reference
    from nirvana.client.rest import Client

    endpoint, reference = parse_reference(name)
    wrong = [change for change in changes or () if change[:1] not in ("+", "-") or not change[1:]]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r}: expected +TAG or -TAG")
    add, remove = ([one[1:] for one in changes or () if one[0] == sign] for sign in "+-")
    with Client(endpoint) as client:
        listing = client.retag(reference, add, remove) if changes else client.ticket(reference)
    shown, lines = {"ticket": reference, "tags": listing["tags"]}, [f"{tag}\n" for tag in listing["tags"]]
    Output(json, quiet).data(shown, lambda: print(*lines, sep="", end=""))


CITATIONS = ("bibtex", "cff", "csl", "datacite")


def cite(
    name: Name,
    format: Annotated[str, typer.Option(help=f"One of {', '.join(CITATIONS)}.")] = "bibtex",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print how to cite a published ticket."""
    from nirvana.client.api import parse_reference
    from nirvana.client.rest import Client

    endpoint, reference = parse_reference(name)
    with Client(endpoint) as client:
        text = client.citation(reference, format)
    Output(json, quiet).data({"format": format, "citation": text}, lambda: print(text, end=""))


cache_app = typer.Typer(help="The tickets kept on this machine.", no_args_is_help=True)


@cache_app.command("ls")
def list_kept(json: Json = False, quiet: Quiet = False) -> None:
    """List the kept tickets."""
    from nirvana.client.cache import Cache

    cache = Cache()
    kept = [(digest, cache.size_bytes(digest)) for digest in cache.digests()]
    output = Output(json, quiet)
    listed = [{"digest": digest, "bytes": size} for digest, size in kept]
    output.data({"items": listed}, lambda: output.table(("digest", "bytes"), kept))


@cache_app.command("rm")
def forget(
    digests: Annotated[list[str] | None, typer.Argument(help="Digests; --all for every one.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every kept ticket.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Forget kept tickets; they can be downloaded again."""
    from nirvana.client.cache import Cache

    cache = Cache()
    chosen = list(cache.digests()) if everything else digests or []
    for digest in chosen:
        cache.remove(digest)
    output = Output(json, quiet)
    output.data({"removed": chosen}, lambda: output.say(f"removed {len(chosen)}"))


@cache_app.command("verify")
def verify_kept(json: Json = False, quiet: Quiet = False) -> None:
    """Read every kept ticket again; damaged ones are removed. Exit code 4 when there was one."""
    from nirvana.client.cache import Cache

    cache = Cache()
    listed = list(cache.digests())
    damaged = [digest for digest in listed if cache.find_intact(digest) is None]
    output = Output(json, quiet)
    intact = len(listed) - len(damaged)
    counts = {"intact": intact, "damaged": damaged}
    output.data(counts, lambda: print(f"{intact} intact, {len(damaged)} damaged and removed"))
    if damaged:
        raise typer.Exit(4)


def unyank(name: Name, json: Json = False, quiet: Quiet = False) -> None:
    """Show your yanked ticket in search again."""
    from nirvana.client.api import parse_reference
    from nirvana.client.rest import Client

    endpoint, reference = parse_reference(name)
    with Client(endpoint) as client:
        shown = client.unyank(reference)
    Output(json, quiet).data(shown, lambda: print(f"unyanked {name}"))


def mirror(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Address of the registry.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the mirror.")],
    check: Annotated[
        bool, typer.Option("--check", help="Read what is there again afterwards; 4 when it is damaged.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a registry's public tickets, files and verdicts, checked; run again, it takes what is new."""
    from dataclasses import asdict

    from nirvana.client.mirror import Mirror
    from nirvana.client.rest import Client

    output, kept = Output(json, quiet), Mirror(folder)
    with Client(source, token="") as client:  # what anybody sees
        serial = kept.follow(client, output.say)
    damaged = list(kept.check()) if check else []
    for line in damaged:
        output.say(line)
    counts = asdict(kept.counts)
    result = {"registry": source, "serial": serial, "damaged": damaged} | counts
    words = ", ".join(f"{count} {name}" for name, count in counts.items())
    output.data(result, lambda: print(f"up to change {serial}: {words}"))
    if damaged:
        raise typer.Exit(4)
