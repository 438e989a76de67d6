"""tasks and env: what this installation knows."""

from __future__ import annotations

from typing import Any

from nirvana.cli.output import Json, Output, Quiet, percent


def tasks(json: Json = False, quiet: Quiet = False) -> None:
    """List the tasks: data set, split, metric, margin."""
    from dataclasses import asdict

    from nirvana import tasks as catalogue

    known = [catalogue.get(name) for name in catalogue.names()]
    output = Output(json, quiet)
    columns = ("task", "title", "input", "classes", "train", "validation", "test", "margin", "licence")
    rows = [
        (
            task.name,
            task.title,
            "x".join(map(str, task.input_shape)),
            task.classes,
            *task.sizes.values(),
            percent(task.margin, 1),
            task.license,
        )
        for task in known
    ]
    output.data({"items": [asdict(task) for task in known]}, lambda: output.table(columns, rows))


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
