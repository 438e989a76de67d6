"""tasks, methods and env: what this installation knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nirvana.cli.output import Json, Output, Quiet, percent

if TYPE_CHECKING:
    from nirvana.tasks import Task

tasks_app = typer.Typer(help="The tasks, and your own among them.", invoke_without_command=True)
TaskName = Annotated[str, typer.Argument(metavar="NAME", help="The task's name.")]


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
    path: Annotated[Path, typer.Argument(help="A table (.csv, .tsv, .parquet) or arrays (.npz).")],
    name: Annotated[str, typer.Option(help="The new task's name.")],
    label: Annotated[str | None, typer.Option(help="Column or array of labels; else the last, or y.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="A column to leave out; may be repeated.")] = None,
    kind: Annotated[str | None, typer.Option(help="What an .npz holds: images, signals or table.")] = None,
    margin: Annotated[float | None, typer.Option(help="Of accuracy, such as 0.01; else by rule.")] = None,
    test_share: Annotated[float, typer.Option(help="Of all examples.")] = 0.2,
    validation_share: Annotated[float, typer.Option(help="Of all examples.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Of the split.")] = 0,
    title: Annotated[str | None, typer.Option(help="A few words.")] = None,
    license: Annotated[str, typer.Option(help="Of the data, such as CC-BY-4.0.")] = "not stated",
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of one of this name.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a task of your own table or arrays; a column `split` of train, validation, test is honoured."""
    from nirvana import tasks as catalogue

    output = Output(json, quiet)
    task = catalogue.add(
        path,
        name,
        label=label,
        drop=drop or [],
        kind=kind,
        margin=margin,
        test_share=test_share,
        validation_share=validation_share,
        seed=seed,
        title=title,
        license=license,
        replace=replace,
        say=output.say,
    )
    _show(task, output)


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
    ]

    def human() -> None:
        output.table(("field", "value"), rows)
        if counts:
            output.table(("class", *counts), zip(task.class_names, *counts.values(), strict=True))

    output.data(asdict(task) | {"counts": counts}, human)


def _class_counts(task: Task) -> dict[str, list[int]]:
    """By part; empty for a task that Nirvana comes with, whose data may have to be downloaded."""
    import numpy as np

    from nirvana import tasks as catalogue

    if task.name in catalogue.built_in_names():
        return {}
    arrays = catalogue.load(task)
    labels = {"train": arrays.train_y, "validation": arrays.validation_y, "test": arrays.test_y}
    return {part: np.bincount(y, minlength=task.classes).tolist() for part, y in labels.items()}


def _shape(task: Task) -> str:
    return "x".join(map(str, task.input_shape))


def _standardisation(task: Task) -> str:
    """Means and standard deviations of the training part, the first few where there are many."""

    def shown(part: float | tuple[float, ...]) -> str:
        if not isinstance(part, tuple):
            return f"{part:.4g}"
        return ", ".join(f"{number:.4g}" for number in part[:4]) + (" ..." if len(part) > 4 else "")

    mean, sd = task.normalisation
    return f"mean {shown(mean)}; standard deviation {shown(sd)}"


def methods(json: Json = False, quiet: Quiet = False) -> None:
    """List the methods that `nirvana find` knows, with their papers."""
    from dataclasses import asdict

    from nirvana.methods import METHODS

    output = Output(json, quiet)
    rows = [
        (name, "each level" if method.is_iterative else "one", method.summary, method.reference)
        for name, method in METHODS.items()
    ]
    items = [{"name": name} | asdict(method) for name, method in METHODS.items()]
    output.data({"items": items}, lambda: output.table(("method", "tickets", "what it does", "source"), rows))


def env(json: Json = False, quiet: Quiet = False) -> None:
    """Versions, folders and settings: what a bug report needs. No secret is shown."""
    found = _environment()
    output = Output(json, quiet)
    output.data(found, lambda: output.table(("what", "value"), list(found.items())))


def _environment() -> dict[str, Any]:
    import platform

    from nirvana import __version__, environment

    packages = ("numpy", "torch", "scipy", "numba", "fastapi", "sqlalchemy", "dbos", "httpx", "typer", "rich")
    return {
        "nirvana": __version__,
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
