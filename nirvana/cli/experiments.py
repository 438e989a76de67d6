"""find, verify, train: experiments with tickets, here or by the service's workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nirvana.cli.output import Json, Output, Quiet, percent
from nirvana.cli.tickets import Name
from nirvana.methods import METHODS
from nirvana.recipe import CRITERIA, MASK_0_ACTIONS, MASK_1_ACTIONS

WINNING = ("WINNING", "MATCHING")


def find(
    task: Annotated[str, typer.Option(help="A task's name: `nirvana tasks` lists them.")],
    architecture: Annotated[str, typer.Option(help="A network of the zoo, such as lenet-300-100.")],
    out: Annotated[Path, typer.Option(help="Folder for level-NN.ticket and report.json.")],
    method: Annotated[str, typer.Option(help=", ".join(METHODS) + ".")] = "imp",
    levels: Annotated[int | None, typer.Option(help="How many times to prune.")] = None,
    density: Annotated[float | None, typer.Option(help="Prune down to this share of weights.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of initial values and data order.")] = 0,
    recipe: Annotated[Path | None, typer.Option(help="JSON file; overrides the task's recipe.")] = None,
    scope: Annotated[str | None, typer.Option(help="layerwise or global ranking.")] = None,
    rewind_step: Annotated[int | None, typer.Option(help="Updates before the values are taken.")] = None,
    criterion: Annotated[str | None, typer.Option(help=f"Who stays: {', '.join(CRITERIA)}.")] = None,
    mask_1_action: Annotated[
        str | None, typer.Option("--mask-1", help=f"Kept weights: {', '.join(MASK_1_ACTIONS)}.")
    ] = None,
    mask_0_action: Annotated[
        str | None, typer.Option("--mask-0", help=f"Pruned weights: {', '.join(MASK_0_ACTIONS)}.")
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, dense (torch) or sparse.")] = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find tickets here, without a server: train, prune, rewind, again; or by another method."""
    from nirvana.cli.progress import Watch

    output = Output(json, quiet)
    overrides = read_recipe(recipe) or {}
    pruning = {"scope": scope, "rewind_step": rewind_step, "criterion": criterion}
    pruning |= {"mask_1_action": mask_1_action, "mask_0_action": mask_0_action}
    if chosen := {name: value for name, value in pruning.items() if value is not None}:
        overrides["pruning"] = overrides.get("pruning", {}) | chosen
    lab = open_lab()
    with Watch(output, f"{architecture} on {task}") as watch:
        report = lab.find(
            task,
            architecture,
            method,
            levels=levels,
            density=density,
            seed=seed,
            recipe=overrides,
            engine=engine,
            out=out,
            progress=watch,
        )
    found = report.to_dict()
    output.data(found, lambda: _print_levels(output, found["levels"]))
    output.say(f"tickets and report.json are in {out}")


def _print_levels(output: Output, levels: list[dict[str, Any]]) -> None:
    columns = ("level", "density", "kept", "test accuracy", "early stop", "untrained", "seconds", "ticket")
    rows = [
        (
            level["level"],
            percent(level["density"]),
            level["kept"],
            percent(level["early_stop_test_accuracy"]),
            level["early_stop_step"],
            percent(level["untrained_test_accuracy"]),
            f"{level['seconds']:.1f}",
            level["ticket"],
        )
        for level in levels
    ]
    output.table(columns, rows)


def verify(
    name: Name,
    local: Annotated[bool, typer.Option("--local", help="Measure here and not by the service.")] = False,
    replicates: Annotated[
        int | None, typer.Option(min=2, help="Seeds an arm: 5, which the service tops up to 20.")
    ] = None,
    max_replicates: Annotated[
        int | None, typer.Option(help="Top up to this many while the verdict is open: up to 4 times as many.")
    ] = None,
    stability: Annotated[
        bool, typer.Option("--stability", help="Linear mode connectivity too (here only).")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Train every arm, keep no run (here only).")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Trainings side by side: one for each core (here only).")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a verdict: the ticket against dense, re-initialised, rescaled, shuffled and random controls.

    Exit code 6 when the verdict is neither WINNING nor MATCHING.
    """
    from nirvana.api import is_file_name
    from nirvana.cli.verdicts import print_verdict

    output = Output(json, quiet)
    options: dict[str, Any] = {"max_replicates": max_replicates, "stability": stability, "threads": threads}
    options |= {"cache": None} if no_cache else {}
    if local or is_file_name(name):
        verdict = _verify_here(name, replicates or 5, options, output)
    else:
        _refuse_here_only(options)
        verdict = _verify_there(name, {"replicates": replicates, "max_replicates": max_replicates}, output)
    output.data(verdict, lambda: print_verdict(output, verdict))
    if not str(verdict["verdict"]).startswith(WINNING) or verdict["verdict"] == "MATCHING_UNRESOLVED":
        raise typer.Exit(6)


def _refuse_here_only(options: dict[str, Any]) -> None:
    from nirvana.errors import Invalid

    if options["stability"] or "cache" in options or options["threads"]:
        raise Invalid("--stability, --no-cache and --threads need --local: the service has its own ways")


def _verify_here(name: str, replicates: int, options: dict[str, Any], output: Output) -> dict[str, Any]:
    from nirvana.api import load
    from nirvana.cli.progress import Watch

    ticket = load(name)
    lab = open_lab()
    with Watch(output, "verification") as watch:
        return dict(lab.verify(ticket, replicates=replicates, progress=watch, **options).to_dict())


def _verify_there(name: str, replicates: dict[str, int | None], output: Output) -> dict[str, Any]:
    from nirvana.api import parse_reference
    from nirvana.cli.following import follow_job
    from nirvana.cli.progress import Watch
    from nirvana.client import Client

    endpoint, reference = parse_reference(name)
    with Client(endpoint) as client:
        client.ticket(reference)  # an unknown one is "not found", and not an impossible job
        given = {part: number for part, number in replicates.items() if number is not None}
        job = client.submit_job("verify", {"ticket": reference} | given)
        output.say(f"verification job {job['id']} is {job['state']}")
        with Watch(output, "verification") as watch:
            ended = follow_job(client, job["id"], watch)
        return evaluation_of(client, ended)


def evaluation_of(client: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The evaluation that a finished verification job wrote."""
    from nirvana.errors import NotFound

    result = dict(job.get("result") or {})
    if "arms" in result:
        return result
    for evaluation in client.evaluations(str(job["spec"]["ticket"])):
        if evaluation.get("job_id") == job["id"] or evaluation.get("id") == result.get("evaluation"):
            return dict(evaluation)
    raise NotFound(f"job {job['id']} has ended without an evaluation")


def train(
    name: Name,
    seed: Annotated[int, typer.Option(min=0, help="Of the data's order.")] = 0,
    engine: Annotated[str, typer.Option(help="auto, dense (torch) or sparse.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="File (.npz) for the weights after the last step.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the sparse engine, at most; default: one for each core.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a ticket here with its own recipe, and print its test accuracy; torch is not needed where the
    sparse engine can do it."""
    from nirvana.api import load
    from nirvana.cli.progress import Watch
    from nirvana.errors import TrainingFailed
    from nirvana.recipe import Recipe
    from nirvana.running import choose_engine, train_ticket

    output = Output(json, quiet)
    _check_out(out)
    ticket = load(name)
    recipe = Recipe.from_dict(dict(ticket.recipe))
    choice = choose_engine(engine, ticket.architecture, ticket.masks, recipe, threads)
    if choice.reason:
        output.say(f"torch trains this: {choice.reason}")
    with Watch(output, f"{ticket.architecture.name} on {ticket.task}") as watch:
        result = train_ticket(
            *(ticket, seed),
            engine=choice.engine,
            threads=threads,
            progress=watch,
            keep_weights=out is not None,
        )
    trained = _training_summary(ticket, result, seed)
    if out is not None and not result.failed:
        from nirvana.trained import Weights

        Weights.trained(ticket, result, seed).write(out)
        trained["weights"] = str(out)
    said = f"test accuracy {percent(trained['test_accuracy'])} at density {percent(ticket.density)}"
    output.data(trained, lambda: print(f"{said}, {trained['seconds']:.1f} s ({result.engine})"))
    if result.failed:
        raise TrainingFailed(f"the loss was not finite at step {result.failed_step}")


def _check_out(out: Path | None) -> None:
    """Refuse a file for weights before anything is trained."""
    from nirvana.errors import Invalid

    if out is not None and (out.suffix != ".npz" or not out.absolute().parent.is_dir()):
        raise Invalid(f"--out is {out}, expected a file that ends in .npz in a folder that exists")


def _training_summary(ticket: Any, result: Any, seed: int) -> dict[str, Any]:
    return {
        "test_accuracy": result.early_stop_test_accuracy,
        "early_stop_step": result.early_stop_step,
        "final_test_accuracy": result.final_test_accuracy,
        "untrained_test_accuracy": result.untrained_test_accuracy,
        "seconds": result.seconds,
        "engine": result.engine,
        "seed": seed,
        "digest": ticket.digest,
        "density": ticket.density,
        "task": ticket.task,
        "flops": result.flops_dense,
        "flops_sparse": result.flops_sparse,
    }


def open_lab() -> Any:
    """nirvana.lab, or a clear word where torch is not installed."""
    from nirvana.errors import missing_lab

    try:
        from nirvana import lab
    except ModuleNotFoundError as error:
        raise missing_lab(error) from None
    return lab


def read_recipe(path: Path | None) -> dict[str, Any] | None:
    import json

    from nirvana.errors import InvalidRecipe, NotFound

    if path is None:
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"no such file: {path}") from error
    except ValueError as error:
        raise InvalidRecipe(
            f"{path}: found no JSON ({error}), expected an object of recipe fields"
        ) from error
    if not isinstance(fields, dict):
        raise InvalidRecipe(f"{path}: found {type(fields).__name__}, expected an object of recipe fields")
    return fields
