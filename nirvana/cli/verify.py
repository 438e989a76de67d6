"""verify, attest, transfer: verdicts on tickets, measured against controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from nirvana.cli.experiments import read_recipe
from nirvana.cli.output import Json, Output, Quiet, Watch, mean_and_sd, percent
from nirvana.cli.tickets import Name
from nirvana.errors import Invalid, JsonObject, NotFound

if TYPE_CHECKING:
    from nirvana.client.rest import Client
    from nirvana.format.ticket import Ticket
    from nirvana.training.recipe import Recipe

_WINNING = ("WINNING", "MATCHING")
_COLUMNS = ("arm", "accuracy", "early stop", "untrained", "replicates", "failed", "cached")


@dataclass(frozen=True)
class _Protocol:
    """The options of a verification. None of `replicates` and `max_replicates`: the default of the place that
    measures; the rest are for a verification here."""

    replicates: int | None
    max_replicates: int | None
    stability: bool
    dynamic: str | None
    leaks: bool
    no_cache: bool
    threads: int | None
    seed: int | None


def verify(
    name: Name,
    local: Annotated[bool, typer.Option("--local", help="Measure here and not at the service.")] = False,
    replicates: Annotated[
        int | None, typer.Option(min=2, help="Seeds per arm; default 5, which the service tops up to 20.")
    ] = None,
    max_replicates: Annotated[
        int | None,
        typer.Option(help="Maximum seeds per arm while the verdict is open; at most 4 times --replicates."),
    ] = None,
    stability: Annotated[
        bool, typer.Option("--stability", help="Measure linear mode connectivity too (here only).")
    ] = False,
    dynamic: Annotated[
        str | None, typer.Option(help="rigl or set: beside a network that moves its mask (here only).")
    ] = None,
    leaks: Annotated[
        bool, typer.Option("--leaks", help="Look for signs of a search on test labels too (here only).")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Train every arm, keep no run (here only).")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Trainings side by side; default: one per core (here only).")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of orders and controls; default: drawn, and printed (here only)."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a verdict: the ticket against dense, re-initialised, rescaled, shuffled and random controls.

    Exit code 6 when the verdict is neither WINNING nor MATCHING.
    """
    from nirvana.client.api import is_file_name

    output = Output(json, quiet)
    protocol = _Protocol(replicates, max_replicates, stability, dynamic, leaks, no_cache, threads, seed)
    is_here = local or is_file_name(name)
    evaluation = (_verify_here if is_here else _verify_there)(name, protocol, output)
    output.data(evaluation, lambda: print_verdict(output, evaluation))
    verdict = str(evaluation["verdict"])
    if not verdict.startswith(_WINNING) or verdict == "MATCHING_UNRESOLVED":
        raise typer.Exit(6)


def _verify_here(name: str, protocol: _Protocol, output: Output) -> JsonObject:
    from nirvana import lab
    from nirvana.client.api import load

    ticket = load(name)
    with Watch(output, "verification") as watch:
        return lab.verify(
            ticket,
            replicates=protocol.replicates or 5,
            max_replicates=protocol.max_replicates,
            seed=protocol.seed,
            stability=protocol.stability,
            dynamic=protocol.dynamic,
            leaks=protocol.leaks,
            cache=None if protocol.no_cache else "home",
            progress=watch,
            threads=protocol.threads,
        ).to_dict()


def _verify_there(name: str, protocol: _Protocol, output: Output) -> JsonObject:
    from nirvana.cli.jobs import evaluation_of, follow_job
    from nirvana.client.api import parse_reference
    from nirvana.client.rest import Client

    beside = (protocol.stability, protocol.dynamic, protocol.leaks, protocol.no_cache, protocol.threads)
    if any(beside) or protocol.seed is not None:
        raise Invalid(
            "--stability, --dynamic, --leaks, --no-cache, --threads and --seed need --local: the service has "
            "its own ways, and draws its own seeds"
        )
    endpoint, reference = parse_reference(name)
    replicates = {"replicates": protocol.replicates, "max_replicates": protocol.max_replicates}
    with Client(endpoint) as client:
        client.ticket(reference)  # an unknown one is "not found", and not an impossible job
        chosen = {option: number for option, number in replicates.items() if number is not None}
        job = client.submit_job("verify", {"ticket": reference, **chosen})
        output.say(f"verification job {job['id']} is {job['state']}")
        with Watch(output, "verification") as watch:
            ended = follow_job(client, job["id"], watch)
        return evaluation_of(client, ended)


def attest(name: Name, json: Json = False, quiet: Quiet = False) -> None:
    """Ask the service to run a ticket's search again: where that gives the ticket, its mask is attested.

    Exit code 6 when another ticket comes out.
    """
    from nirvana.cli.jobs import follow_job
    from nirvana.client.api import parse_reference
    from nirvana.client.rest import Client

    output = Output(json, quiet)
    endpoint, reference = parse_reference(name)
    with Client(endpoint) as client:
        shown = client.ticket(reference)
        if shown.get("listings", [shown])[0]["origin"] != "attested":  # of a digest: its first listing
            job = client.attest(reference)
            output.say(f"attestation job {job['id']} is {job['state']}")
            with Watch(output, "search") as watch:
                follow_job(client, job["id"], watch)
        found = next(client.attestations(reference))
    output.data(found, lambda: print(_attested(reference, found)))
    if found["outcome"] == "differs":
        raise typer.Exit(6)


def _attested(name: str, found: JsonObject) -> str:
    if found["outcome"] == "differs":
        overlap = f"its masks overlap with the ticket's by {percent(found['overlap'])} beyond chance"
        return f"{name} stays brought in: the search gave {found['found']}, {overlap}"
    how = "found it" if found["outcome"] == "found" else "ran its search again and got it"
    return f"{name} is attested: the registry's worker {how} (job {found['job_id']})"


def verify_signature(
    name: Annotated[
        str, typer.Argument(metavar="TICKET|FILE", help="A signed verdict, or a published ticket.")
    ],
    keys: Annotated[
        Path | None, typer.Option(help="File of the registry's keys; default: asked of the registry.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to keep the signed one in.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check who signed a verdict, and print what it says; exit code 4 when no key of the registry did.

    Of a published ticket: its newest verification.
    """
    from nirvana.client.api import parse_reference
    from nirvana.client.rest import Client
    from nirvana.client.signatures import check_signature
    from nirvana.files import write_atomically

    is_file = Path(name).is_file()
    endpoint, reference = (None, "") if is_file else parse_reference(name)
    with Client(endpoint) as client:
        signed = _read_object(Path(name)) if is_file else _newest_verdict(client, reference)
        statement = check_signature(signed, _read_object(keys) if keys else client.keys())
    if out is not None:
        write_atomically(out, dumps(signed).encode())
    Output(json, quiet).data(statement, lambda: print(_signed(statement)))


def _newest_verdict(client: Client, reference: str) -> JsonObject:
    newest = next(client.evaluations(reference), None)
    if newest is None:
        raise NotFound(f"{reference} has no verification yet: nirvana verify {reference}")
    return client.signed_verdict(reference, newest["id"])


def _read_object(path: Path) -> JsonObject:
    try:
        found = loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Invalid(f"{path}: expected a JSON object ({error})") from None
    if not isinstance(found, dict):
        raise Invalid(f"{path}: found {type(found).__name__}, expected a JSON object")
    return found


def _signed(statement: JsonObject) -> str:
    evaluation = statement["evaluation"]
    measured = f"{evaluation['verdict']} by {evaluation['protocol']}, n = {evaluation['replicates']}"
    when = f"{statement['registry']} signed what it measured on {evaluation['created_at']}"
    return f"{when}: {evaluation['ticket']} is {measured}"


def print_verdict(output: Output, verdict: JsonObject) -> None:
    """Print the arms' table, the verdict with its reason, looks, tracks, badges and cost; evaluations of
    protocol 1 have no looks, tracks, badges or cost in dense trainings."""
    from nirvana.verification.verdicts import explain_measurement

    if verdict["arms"]:
        output.table(_COLUMNS, [_row(verdict, arm) for arm in verdict["arms"]])
    print(f"{verdict['verdict']}: {verdict.get('reason', '')} (margin {percent(verdict['margin'], 1)})")
    lines = (
        _dynamic(verdict),
        _leaks(verdict),
        _looks(verdict),
        *_tracks(verdict),
        _speed(verdict),
        _badges(verdict),
    )
    for line in (*explain_measurement(verdict), *lines, _cost(verdict)):
        if line:
            print(line)


def _row(verdict: JsonObject, arm: str) -> tuple[object, ...]:
    values = verdict["arms"][arm]
    stops, untrained = (verdict.get(name, {}).get(arm) for name in ("early_stop", "untrained"))
    failed = sum(verdict.get("failed", {}).get(arm, []))
    return (
        arm,
        mean_and_sd(values),
        f"{fmean(stops):.0f}" if stops else "",
        percent(fmean(untrained)) if untrained else "",
        len(values),
        failed,
        verdict.get("cached", {}).get(arm, 0),
    )


def _dynamic(verdict: JsonObject) -> str:
    found = verdict.get("dynamic")
    if not found:
        return ""
    line = f"{found['kind']}, as many weights with a mask that moves: {mean_and_sd(found['accuracies'])}"
    if found["difference"]:
        gap = found["difference"]
        bounds = f"[{percent(gap['lower'])}, {percent(gap['upper'])}]"
        line += f"; ticket - {found['kind']}: {percent(gap['mean'])} {bounds}"
    return line


def _leaks(verdict: JsonObject) -> str:
    found = verdict.get("leaks")
    if not found:
        return ""
    gaps = f"{percent(found['on_test'])} on test data, {percent(found['on_other_half'])} on the half left out"
    likely = "likely" if found["excess"] > 0 else "unlikely"
    return f"trained on half of the data, ticket - dense: {gaps}; a search on test labels is {likely}"


def _looks(verdict: JsonObject) -> str:
    looks = [
        f"{look['verdict']} at {look['n']} (alpha {look['alpha']:g})" for look in verdict.get("looks", [])
    ]
    return f"looks: {', '.join(looks)}" if len(looks) > 1 else ""


def _tracks(verdict: JsonObject) -> list[str]:
    tracks = (verdict.get("tracks") or {}).items()
    return [f"{name}: {track['verdict']}: {track['reason']}" for name, track in tracks]


def _speed(verdict: JsonObject) -> str:
    speed, rate = verdict.get("speed"), verdict.get("trainability")
    if not speed or not rate:
        return ""
    gain = f"early stop, dense / ticket: {speed['ratio']:.2f} {_interval(speed['interval'])}"
    return f"{gain}; trains in {rate['count']} of {rate['of']} replicates {_interval(rate['interval'])}"


def _interval(bounds: list[float]) -> str:
    return f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"


def _badges(verdict: JsonObject) -> str:
    earned = [name for name, has in (verdict.get("badges") or {}).items() if has]
    return f"badges: {', '.join(earned)}" if earned else ""


def _cost(verdict: JsonObject) -> str:
    cost = verdict.get("cost") or {}
    dense = cost.get("dense_trainings") or {}
    if dense.get("by_flops") is None:
        return ""
    operations = (
        f"cost: {cost['trainings']} trainings, as many operations as {dense['by_flops']:.1f} dense ones"
    )
    seconds = dense.get("by_seconds")
    return operations + (f", as many seconds as {seconds:.1f}" if seconds is not None else "")


def transfer(
    names: Annotated[list[str], typer.Argument(metavar="TICKET...", help="Files, or owner/name.")],
    task: Annotated[
        list[str] | None,
        typer.Option(help="Target task; may be repeated. Default: the tickets' own tasks."),
    ] = None,
    replicates: Annotated[int, typer.Option(min=2, help="Seeds (data orders) per arm.")] = 5,
    recipe: Annotated[
        Path | None, typer.Option(help="JSON file of fields that override the target's recipe.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a new output layer.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train each ticket on other tasks, beside those tasks' own tickets and controls: a ticket x task matrix.

    Among the tickets, the one of a target's own task is what the others are compared with there.
    """
    from nirvana import lab
    from nirvana.client.api import load

    output = Output(json, quiet)
    tickets = _by_task([load(name) for name in names])
    targets = task or list(tickets)
    recipes = _target_recipes(tickets, targets, read_recipe(recipe))
    with Watch(output, "transfer") as watch:
        rows = lab.transfer_matrix(
            tickets, targets, replicates=replicates, recipes=recipes, seed=seed, progress=watch
        )
    output.data({"items": rows}, lambda: _print_matrix(output, rows))


def _by_task(tickets: Sequence[Ticket]) -> dict[str, Ticket]:
    """Return the tickets by the task that they were found on.

    Raises:
        Invalid: two are of one task.
    """
    by_task: dict[str, Ticket] = {}
    for ticket in tickets:
        if ticket.task in by_task:
            raise Invalid(f"two of the tickets are of {ticket.task}, expected one of each task")
        by_task[ticket.task] = ticket
    return by_task


def _target_recipes(
    tickets: Mapping[str, Ticket], targets: Sequence[str], fields: JsonObject
) -> dict[str, Recipe]:
    """Return each target's recipe: its own ticket's, or else its default, with these fields put in."""
    from nirvana import tasks
    from nirvana.training.recipe import Recipe

    name = next(iter(tickets.values())).architecture.name
    return {
        target: (
            Recipe.from_dict(dict(tickets[target].recipe))
            if target in tickets
            else tasks.get(target).default_recipe(name)
        ).override(fields)
        for target in targets
    }


def _print_matrix(output: Output, rows: Sequence[JsonObject]) -> None:
    columns = ("ticket of", "on", "density", "ticket", "own", "dense", "reinit", "shuffle", "verdict")
    arms = ("ticket", "own", "dense", "reinit", "shuffle")
    cells = [
        (
            row["source"],
            row["target"],
            percent(row["density"]),
            *(percent(row[arm]) for arm in arms),
            row["verdict"],
        )
        for row in rows
    ]
    output.table(columns, cells)
