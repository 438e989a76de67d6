"""find, train: tickets found and trained on this machine, without a server."""

from __future__ import annotations

import json as json_
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nirvana.cli.output import Json, Output, Quiet, Watch, percent
from nirvana.cli.tickets import Name
from nirvana.errors import Invalid, InvalidJob, InvalidRecipe, JsonObject, NotFound, TrainingFailed
from nirvana.pruning.methods import METHODS, describe_options
from nirvana.training.recipe import CRITERIA, MASK_0_ACTIONS, MASK_1_ACTIONS

if TYPE_CHECKING:
    from nirvana.format.ticket import Ticket
    from nirvana.training.spec import TrainResult

Engine = Annotated[str, typer.Option(help="Engine: auto, dense (torch) or sparse.")]


def find(
    task: Annotated[str, typer.Option(help="Name of the task; `nirvana tasks` lists them.")],
    architecture: Annotated[str, typer.Option(help="Network of the zoo, such as lenet-300-100.")],
    out: Annotated[Path, typer.Option(help="Folder for level-NN.ticket and report.json.")],
    method: Annotated[str, typer.Option(help=f"Method: {', '.join(METHODS)}.")] = "imp",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Option of the method (below); may be repeated."),
    ] = None,
    levels: Annotated[int | None, typer.Option(help="Number of pruning rounds.")] = None,
    density: Annotated[
        float | None, typer.Option(help="Target density, the share of prunable weights kept.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial values and data order.")] = 0,
    recipe: Annotated[
        Path | None, typer.Option(help="JSON file of fields that override the task's recipe.")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="Ranking scope: layerwise or global.")] = None,
    rewind_step: Annotated[
        int | None, typer.Option(help="Updates before the ticket's values are taken.")
    ] = None,
    criterion: Annotated[str | None, typer.Option(help=f"Ranking criterion: {', '.join(CRITERIA)}.")] = None,
    mask_1_action: Annotated[
        str | None, typer.Option("--mask-1", help=f"Values of kept weights: {', '.join(MASK_1_ACTIONS)}.")
    ] = None,
    mask_0_action: Annotated[
        str | None, typer.Option("--mask-0", help=f"Values of pruned weights: {', '.join(MASK_0_ACTIONS)}.")
    ] = None,
    engine: Engine = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find tickets here, without a server: train, prune, rewind, again; or by another method."""
    from nirvana import lab

    output = Output(json, quiet)
    overrides, options = read_recipe(recipe), _read_settings(settings or [])
    pruning = {"scope": scope, "rewind_step": rewind_step, "criterion": criterion}
    pruning |= {"mask_1_action": mask_1_action, "mask_0_action": mask_0_action}
    if chosen := {name: value for name, value in pruning.items() if value is not None}:
        overrides["pruning"] = overrides.get("pruning", {}) | chosen
    with Watch(output, f"{architecture} on {task}") as watch:
        report = lab.find(
            task,
            architecture,
            method,
            levels=levels,
            density=density,
            seed=seed,
            recipe=overrides,
            options=options,
            engine=engine,
            out=out,
            progress=watch,
        ).to_dict()
    output.data(report, lambda: _print_levels(output, report["levels"]))
    output.say(f"tickets and report.json are in {out}")


def method_options() -> list[tuple[str, str, str, str]]:
    """List (method, option, default, meaning) of every option that a method has."""
    return [
        (method, name, f"{default:g}", meaning)
        for method in METHODS
        for name, default, meaning in describe_options(method)
    ]


def options_help() -> str:
    """Return the end of `nirvana find --help`: every method's options, a line each."""
    lines = [
        f"{method:<18} {f'{name}={default}':<22} {meaning}"
        for method, name, default, meaning in method_options()
    ]
    return "\n".join(["\b", "Options of the methods for --set, with their defaults:", *lines])


def _read_settings(settings: Sequence[str]) -> dict[str, int | float]:
    """Parse NAME=VALUE pairs; a method's own rules are checked with the search.

    Raises:
        InvalidJob: one is no such pair, or its value is no number.
    """
    options: dict[str, int | float] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            options[name.strip().replace("-", "_")] = _number(text)
        except ValueError:
            raise InvalidJob(
                f"--set {setting!r}: expected NAME=VALUE with a number, such as rounds=50"
            ) from None
    return options


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _print_levels(output: Output, levels: Sequence[JsonObject]) -> None:
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


def train(
    name: Name,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data order.")] = 0,
    engine: Engine = "auto",
    out: Annotated[Path | None, typer.Option(help="File (.npz) for the weights after the last step.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Maximum threads of the sparse engine; default: one per core.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a ticket here with its own recipe, and print its test accuracy; torch is not needed where the
    sparse engine can do it."""
    from nirvana.client.api import load
    from nirvana.engines import choose_engine, train_ticket
    from nirvana.training.recipe import Recipe

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
        from nirvana.weights import Weights

        Weights.trained(ticket, result, seed).write(out)
        trained["weights"] = str(out)
    accuracy = f"test accuracy {percent(trained['test_accuracy'])} at density {percent(ticket.density)}"
    output.data(trained, lambda: print(f"{accuracy}, {trained['seconds']:.1f} s ({result.engine})"))
    if result.failed:
        raise TrainingFailed(f"the loss was not finite at step {result.failed_step}")


def _check_out(out: Path | None) -> None:
    """Refuse a file for weights before anything is trained."""
    if out is not None and (out.suffix != ".npz" or not out.absolute().parent.is_dir()):
        raise Invalid(f"--out is {out}, expected a file that ends in .npz in a folder that exists")


def _training_summary(ticket: Ticket, result: TrainResult, seed: int) -> JsonObject:
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


def read_recipe(path: Path | None) -> JsonObject:
    """Read a JSON file of recipe fields; no file has none.

    Raises:
        NotFound, InvalidRecipe: there is no such file, or no JSON object in it.
    """
    if path is None:
        return {}
    try:
        fields = json_.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"no such file: {path}") from error
    except ValueError as error:
        raise InvalidRecipe(
            f"{path}: found no JSON ({error}), expected an object of recipe fields"
        ) from error
    if not isinstance(fields, dict):
        raise InvalidRecipe(f"{path}: found {type(fields).__name__}, expected an object of recipe fields")
    return fields
