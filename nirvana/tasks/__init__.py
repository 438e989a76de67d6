"""Tasks and the data sets behind them: those that Nirvana comes with, and your own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, NotFound
from nirvana.tasks.adding import add, remove
from nirvana.tasks.catalogue import TASKS
from nirvana.tasks.files import Progress
from nirvana.tasks.stored import read_task, stored_names
from nirvana.tasks.task import ByteData, Task, TaskData

__all__ = [
    "ByteData",
    "Task",
    "TaskData",
    "add",
    "built_in_names",
    "get",
    "load",
    "load_bytes",
    "load_raw",
    "names",
    "remove",
]


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


def load_bytes(task: Task | str, progress: Progress | None = None) -> ByteData | None:
    """A task's arrays as the bytes that were published, split; None where its raw values are no bytes.

    They are read anew at each call, and take a quarter of the memory of what `load` gives.

    Args:
        progress: as `load`.

    Raises:
        NotFound, DataMissing, DataDamaged: as `load`.
    """
    from nirvana.tasks.arrays import load_byte_arrays

    return load_byte_arrays(get(task) if isinstance(task, str) else task, progress)


def load_raw(
    task: Task | str, split: str, progress: Progress | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """A split's examples as published: x, (n, *input_shape), not standardised, and y, (n,).

    Args:
        split: train, validation or test. progress: as `load`.

    Raises:
        Invalid: no such split. NotFound, DataMissing, DataDamaged: as `load`.
    """
    from nirvana.tasks.arrays import SPLITS, load_raw_split

    if split not in SPLITS:
        raise Invalid(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    return load_raw_split(get(task) if isinstance(task, str) else task, split, progress)
