"""Tasks and the data sets behind them: those that Nirvana comes with, and your own."""

from __future__ import annotations

from nirvana.errors import NotFound
from nirvana.tasks.adding import add, remove
from nirvana.tasks.catalogue import TASKS
from nirvana.tasks.files import Progress
from nirvana.tasks.stored import read_task, stored_names
from nirvana.tasks.task import Task, TaskData

__all__ = ["Task", "TaskData", "add", "built_in_names", "get", "load", "names", "remove"]


def built_in_names() -> list[str]:
    """The names of the tasks that Nirvana comes with: the same everywhere."""
    return list(TASKS)


def names() -> list[str]:
    """Every known task's name: those that Nirvana comes with, then your own on this machine."""
    return [*TASKS, *(name for name in stored_names() if name not in TASKS)]


def get(name: str) -> Task:
    """The task called `name`.

    Raises:
        NotFound: there is none; says which there are.
        DataDamaged: it is one of your own and its task.json is damaged.
    """
    if name in TASKS:
        return TASKS[name]
    if name in stored_names():
        return read_task(name)
    raise NotFound(f"task {name!r} is unknown, expected one of {', '.join(names())}", known=names())


def load(task: Task | str, progress: Progress | None = None) -> TaskData:
    """A task's arrays, split and normalised; read once a process.

    Args:
        progress: called with {"kind": "download", "done", "total", "message"} while files are fetched.

    Raises:
        NotFound: the task is unknown.
        DataMissing: a file of its data set is nowhere on this machine and cannot be downloaded.
        DataDamaged: a file is not the published one, or not the one that was added.
    """
    from nirvana.tasks.arrays import load_arrays

    return load_arrays(get(task) if isinstance(task, str) else task, progress)
