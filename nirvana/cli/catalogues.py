"""tasks, methods, env: the catalogues of this installation, and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nirvana.cli.experiments import method_options
from nirvana.cli.output import Json, Output, Quiet, percent
from nirvana.pruning.methods import METHODS, describe_options

if TYPE_CHECKING:
    from nirvana.tasks import Task

tasks_app = typer.Typer(help="The tasks, and your own among them.", invoke_without_command=True)
TaskName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the task.")]
_OPTION_KEYS = ("name", "default", "help")


@tasks_app.callback()
def list_unless_asked(context: typer.Context, json: Json = False, quiet: Quiet = False) -> None:
    """List the tasks, or add, show and remove your own."""
    if context.invoked_subcommand is None:
        tasks(json, quiet)


@tasks_app.command("ls")
def tasks(json: Json = False, quiet: Quiet = False) -> None:
    """List the tasks: data set, split, metric, margin."""
    from dataclasses import asdict

    from nirvana import tasks as catalogue
    from nirvana.errors import DataDamaged

    output = Output(json, quiet)
    known = []
    for name in catalogue.names():
        try:
            known.append(catalogue.get(name))
        except DataDamaged as error:
            output.say(f"left out: {error.detail}")
    columns = ("task", "title", "input", "classes", "train", "validation", "test", "margin", "licence")
    rows = [
        (
            task.name,
            task.title,
            _shape(task),
            task.classes,
            *(task.sizes[part] for part in ("train", "validation", "test")),
            percent(task.margin, 1),
            task.license,
        )
        for task in known
    ]
    output.data({"items": [asdict(task) for task in known]}, lambda: output.table(columns, rows))


@tasks_app.command()
def show(name: TaskName, json: Json = False, quiet: Quiet = False) -> None:
    """Show a task: its input, classes, split, standardisation and margin."""
    from nirvana import tasks as catalogue

    _show(catalogue.get(name), Output(json, quiet))


@tasks_app.command()
def add(
    path: Annotated[Path, typer.Argument(help="Table (.csv, .tsv, .parquet), arrays (.npz), images (.zip).")],
    name: Annotated[str, typer.Option(help="Name of the new task.")],
    label: Annotated[str | None, typer.Option(help="Column or array of labels; default: last, or y.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    kind: Annotated[str | None, typer.Option(help="Content of an .npz: images, signals or table.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width of a .zip's images.")] = None,
    margin: Annotated[float | None, typer.Option(help="Margin of accuracy; default: by rule.")] = None,
    test_share: Annotated[float, typer.Option(help="Share of examples in the test set.")] = 0.2,
    validation_share: Annotated[float, typer.Option(help="Share of examples in the validation set.")] = 0.2,
    sealed_share: Annotated[
        float, typer.Option(help="Share of examples that verifications alone read, for tickets of others.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    title: Annotated[str | None, typer.Option(help="Title, a few words.")] = None,
    license: Annotated[str, typer.Option(help="Licence of the data, such as CC-BY-4.0.")] = "not stated",
    replace: Annotated[bool, typer.Option("--replace", help="Replace a task of this name.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a task of your own table or arrays; a column `split` (train, validation, test, sealed) is kept."""
    from nirvana import tasks as catalogue

    output = Output(json, quiet)
    task = catalogue.add(
        path,
        name,
        label=label,
        drop=drop or [],
        kind=kind,
        image_size=image_size,
        margin=margin,
        test_share=test_share,
        validation_share=validation_share,
        sealed_share=sealed_share,
        seed=seed,
        title=title,
        license=license,
        replace=replace,
        say=output.say,
    )
    _show(task, output)


@tasks_app.command()
def push(
    name: Annotated[str, typer.Argument(help="Its name at the service, under your account.")],
    file: Annotated[
        Path | None, typer.Option(help="Table, arrays or zip of images; default: your own task NAME.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title, a few words.")] = None,
    license: Annotated[str | None, typer.Option(help="Licence of the data, such as CC-BY-4.0.")] = None,
    description: Annotated[str | None, typer.Option(help="Description, some sentences.")] = None,
    label: Annotated[str | None, typer.Option(help="Column or array of labels of the file.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    kind: Annotated[str | None, typer.Option(help="Content of an .npz: images, signals or table.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width of a .zip's images.")] = None,
    margin: Annotated[float | None, typer.Option(help="Margin of accuracy; default: by rule.")] = None,
    test_share: Annotated[float | None, typer.Option(help="Share in the test set.")] = None,
    validation_share: Annotated[float | None, typer.Option(help="Share in the validation set.")] = None,
    sealed_share: Annotated[
        float | None, typer.Option(help="Share that verifications alone read; default: a fifth.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the split.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a task at the service, OWNER/NAME, of a file or of a task of your own; a fifth is sealed."""
    from nirvana.client.rest import Client
    from nirvana.client.tasks import push_task

    output = Output(json, quiet)
    with Client() as client:
        made = push_task(
            client,
            name,
            file,
            title=title or (name if file else None),
            license=license,
            description=description,
            label=label,
            drop=drop,
            kind=kind,
            image_size=image_size,
            margin=margin,
            test_share=test_share,
            validation_share=validation_share,
            sealed_share=sealed_share,
            seed=seed,
        )
    for warning in made["warnings"]:
        output.say(warning)
    seal = f"{made['seal']['rows']:,} rows sealed" if made["seal"] else "nothing sealed"
    output.data(made, lambda: output.say(f"{made['name']}: {made['sizes']['train']:,} train, {seal}"))


@tasks_app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Task of the service.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep a task of the service here, all but its sealed rows, to find tickets for it."""
    from nirvana.client.rest import Client
    from nirvana.client.tasks import pull_task

    with Client() as client:
        task = pull_task(client, name)
    _show(task, Output(json, quiet))


@tasks_app.command()
def board(
    name: TaskName,
    limit: Annotated[int, typer.Option(min=1, help="Most tickets to list.")] = 25,
    brought_in: Annotated[
        bool, typer.Option("--brought-in", help="Those whose masks were brought in, and copies, too.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the service's tickets for a task by measured accuracy, with 95 % intervals."""
    from nirvana.client.rest import Client

    with Client() as client:
        items = list(client.leaderboard(name, brought_in=brought_in, limit=limit))
    columns = ("ticket", "kept", "accuracy", "95 %", "n", "verdict", "origin", "engine", "seconds")
    rows = [
        (
            f"{one['owner']}/{one['name']}",
            f"{one['kept']:,}",
            percent(one["accuracy"]),
            _interval(one["interval"]),
            one["replicates"] or "",
            one["verdict"] or "not verified",
            one["origin"],
            one["engine"] or "",
            f"{one['cost']['seconds']:.1f}" if one["cost"] and one["cost"]["seconds"] is not None else "",
        )
        for one in items
    ]
    output = Output(json, quiet)
    output.data({"items": items}, lambda: output.table(columns, rows))


@tasks_app.command()
def frontier(
    name: TaskName,
    brought_in: Annotated[
        bool, typer.Option("--brought-in", help="Those whose masks were brought in, too.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the service's tickets for a task that no smaller one beats, beside dense and controls."""
    from nirvana.client.rest import Client

    with Client() as client:
        shown = client.frontier(name, brought_in=brought_in)
    columns = ("ticket", "kept", "accuracy", "95 %", "dense", "reinit", "random")
    rows = [
        (
            f"{one['owner']}/{one['name']}",
            f"{one['kept']:,}",
            _mean(one["accuracy"]),
            _interval(one["accuracy"] and (one["accuracy"]["low"], one["accuracy"]["high"])),
            _mean(one["dense"]),
            *(_mean(one["controls"].get(arm)) for arm in ("reinit", "random")),
        )
        for one in shown["items"]
    ]
    output = Output(json, quiet)
    output.data(shown, lambda: output.table(columns, rows))


@tasks_app.command()
def croissant(name: TaskName, quiet: Quiet = False) -> None:
    """Print the service's Croissant metadata of a task (JSON-LD)."""
    from nirvana.client.rest import Client

    with Client() as client:
        document = client.croissant(name)
    Output(True, quiet).data(document, lambda: None)


@tasks_app.command()
def yank(
    name: TaskName,
    reason: Annotated[str, typer.Option(help="broken, duplicate, license, privacy, superseded ...")],
    detail: Annotated[str | None, typer.Option(help="More about it.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hide a task of yours at the service; its tickets and its data stay."""
    from nirvana.client.rest import Client

    with Client() as client:
        shown = client.yank_task(name, reason, detail)
    output = Output(json, quiet)
    output.data(shown, lambda: output.say(f"yanked {name}"))


def _mean(one: dict[str, Any] | None) -> str:
    return percent(one["mean"]) if one else ""


def _interval(ends: Sequence[float | None] | None) -> str:
    """Format an interval of accuracies; of one replicate there is none."""
    if not ends or ends[0] is None or ends[1] is None:
        return ""
    return f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f} %"


@tasks_app.command("rm")
def remove(name: TaskName, json: Json = False, quiet: Quiet = False) -> None:
    """Forget a task of your own, and its data."""
    from nirvana import tasks as catalogue

    catalogue.remove(name)
    output = Output(json, quiet)
    output.data({"removed": name}, lambda: output.say(f"removed {name}"))


def _show(task: Task, output: Output) -> None:
    """Print a task, and for one of your own how many examples of each class its parts have."""
    from dataclasses import asdict

    counts = _class_counts(task)
    rows = [
        *((field, getattr(task, field)) for field in ("name", "title", "description")),
        ("input", _shape(task)),
        ("classes", task.classes),
        *((part, f"{size:,} examples") for part, size in task.sizes.items()),
        *((field, getattr(task, field)) for field in ("split", "license", "source")),
        ("standardisation", _standardisation(task)),
        ("margin", f"{percent(task.margin, 1)}: {task.margin_reason}"),
        ("data sha256", task.data_sha256 or "never measured"),
        ("seal", _seal(task)),
    ]

    def human() -> None:
        output.table(("field", "value"), rows)
        if counts:
            output.table(("class", *counts), zip(task.class_names, *counts.values(), strict=True))

    output.data(asdict(task) | {"counts": counts}, human)


def _class_counts(task: Task) -> dict[str, list[int]]:
    """Count the classes by part; none for a built-in task, whose data may have to be downloaded."""
    import numpy as np

    from nirvana import tasks as catalogue

    if task.name in catalogue.built_in_names():
        return {}
    arrays = catalogue.load(task)
    labels = {"train": arrays.train_y, "validation": arrays.validation_y, "test": arrays.test_y}
    return {part: np.bincount(y, minlength=task.classes).tolist() for part, y in labels.items()}


def _seal(task: Task) -> str:
    if task.seal is None:
        return "none: tickets are verified on the test set"
    rows = f"{task.seal.rows:,} examples that verifications alone read, sha256 {task.seal.sha256[:16]}"
    return f"{rows}; the same examples are public elsewhere" if task.seal.is_public else rows


def _shape(task: Task) -> str:
    return "x".join(map(str, task.input_shape))


def _standardisation(task: Task) -> str:
    """Format means and standard deviations of the training part, the first few where there are many."""

    def format_part(part: float | tuple[float, ...]) -> str:
        if not isinstance(part, tuple):
            return f"{part:.4g}"
        return ", ".join(f"{number:.4g}" for number in part[:4]) + (" ..." if len(part) > 4 else "")

    mean, sd = task.normalisation
    return f"mean {format_part(mean)}; standard deviation {format_part(sd)}"


def methods(json: Json = False, quiet: Quiet = False) -> None:
    """List the methods that `nirvana find` knows, with their papers and options."""
    output = Output(json, quiet)
    rows = [
        (name, "each level" if method.is_iterative else "one", method.summary, method.reference)
        for name, method in METHODS.items()
    ]
    items = [
        {"name": name}
        | {field: getattr(method, field) for field in ("summary", "reference", "is_iterative")}
        | {"options": [dict(zip(_OPTION_KEYS, option, strict=True)) for option in describe_options(name)]}
        for name, method in METHODS.items()
    ]

    def human() -> None:
        output.table(("method", "tickets", "what it does", "source"), rows)
        output.table(("method", "--set", "default", "meaning"), method_options())

    output.data({"items": items}, human)


def env(json: Json = False, quiet: Quiet = False) -> None:
    """Versions, folders and settings: what a bug report needs. No secret is shown."""
    values = _environment()
    output = Output(json, quiet)
    output.data(values, lambda: output.table(("what", "value"), list(values.items())))


def _environment() -> dict[str, object]:
    import platform

    from nirvana import environment

    packages = ("numpy", "torch", "scipy", "numba", "fastapi", "sqlalchemy", "dbos", "httpx", "typer", "rich")
    return {
        "nirvana": environment.VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "endpoint": environment.endpoint(),
        "signed in": environment.token() is not None,
        "offline": environment.is_offline(),
        "NIRVANA_HOME": str(environment.home()),
        "NIRVANA_CACHE": str(environment.cache_folder()),
        "NIRVANA_DATA": str(environment.data_folder() or "not set"),
    } | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
