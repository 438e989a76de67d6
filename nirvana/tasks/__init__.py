"""Tasks and the data sets behind them: digits (embedded), mnist, fashion-mnist and kmnist."""

from __future__ import annotations

from nirvana.errors import NotFound
from nirvana.tasks.catalogue import TASKS
from nirvana.tasks.files import Progress
from nirvana.tasks.task import Task, TaskData

__all__ = ["Task", "TaskData", "get", "load", "names"]


def names() -> list[str]:
    """Every known task's name."""
    return list(TASKS)


def get(name: str) -> Task:
    """The task called `name`.

    Raises:
        NotFound: there is none; says which there are.
    """
    if name not in TASKS:
        raise NotFound(f"task {name!r} is unknown, expected one of {', '.join(TASKS)}", known=names())
    return TASKS[name]


def load(task: Task | str, progress: Progress | None = None) -> TaskData:
    """A task's arrays, split and normalised; read once a process.

    Args:
        progress: called with {"kind": "download", "done", "total", "message"} while files are fetched.

    Raises:
        NotFound: the task is unknown.
        DataMissing: a file of its data set is nowhere on this machine and cannot be downloaded.
        DataDamaged: a file is not the published one.
    """
    from nirvana.tasks.arrays import load_arrays

    return load_arrays(get(task) if isinstance(task, str) else task, progress)
