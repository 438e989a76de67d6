"""Tasks and the data sets behind them: those that Nirvana comes with, and your own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, NotFound
from nirvana.tasks.arrays import load_arrays, load_byte_arrays, load_raw_split, load_sealed_rows
from nirvana.tasks.catalogue import TASKS
from nirvana.tasks.files import Progress
from nirvana.tasks.own import SHARED_NAME, add, own_names, read_task, remove
from nirvana.tasks.task import PARTS, Array, Task
from nirvana.training.spec import ByteData, SealedRows, TaskData

__all__ = [
    "ByteData",
    "SealedRows",
    "Task",
    "TaskData",
    "add",
    "built_in_names",
    "get",
    "load",
    "load_bytes",
    "load_raw",
    "load_sealed",
    "names",
    "remove",
]


def built_in_names() -> list[str]:
    """List the tasks that Nirvana comes with: the same everywhere."""
    return list(TASKS)


def names() -> list[str]:
    """List every known task: those that Nirvana comes with, then your own on this machine."""
    return [*TASKS, *(name for name in own_names() if name not in TASKS)]


def get(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        NotFound: there is none; says which there are.
        DataDamaged: it is one of your own and its task.json is damaged.
    """
    if name in TASKS:
        return TASKS[name]
    if name in own_names():
        return read_task(name)
    hint = f"; `nirvana tasks pull {name}` gets it from a registry" if SHARED_NAME.fullmatch(name) else ""
    known = ", ".join(names())
    raise NotFound(f"task {name!r} is unknown, expected one of {known}{hint}", known=names())


def load(task: Task | str, progress: Progress | None = None) -> TaskData:
    """Return a task's arrays, split and normalised; read once a process.

    Args:
        progress: called with {"kind": "download", "done", "total", "message"} while files are fetched.

    Raises:
        NotFound: the task is unknown.
        DataMissing: a file of its data set is nowhere on this machine and cannot be downloaded.
        DataDamaged: a file is not the published one, or not the one that was added.
    """
    return load_arrays(get(task) if isinstance(task, str) else task, progress)


def load_bytes(task: Task | str, progress: Progress | None = None) -> ByteData | None:
    """Return a task's arrays as the bytes that were published, split; None where its raw values are no bytes.

    They are read anew at each call, and take a quarter of the memory of what `load` gives.

    Args:
        progress: as `load`.

    Raises:
        NotFound, DataMissing, DataDamaged: as `load`.
    """
    return load_byte_arrays(get(task) if isinstance(task, str) else task, progress)


def load_sealed(task: Task | str) -> SealedRows | None:
    """Return the rows of a task that only a verification reads, normalised; None where none are sealed.

    Raises:
        NotFound: the task is unknown.
        DataMissing: its sealed rows are not on this machine: only who holds them can judge.
        DataDamaged: they are not the ones that were sealed.
    """
    return load_sealed_rows(get(task) if isinstance(task, str) else task)


def load_raw(
    task: Task | str, split: str, progress: Progress | None = None
) -> tuple[Array, NDArray[np.int64]]:
    """Return a split's examples as published: x, (n, *input_shape), not standardised, and y, (n,).

    Args:
        split: train, validation or test. progress: as `load`.

    Raises:
        Invalid: no such split. NotFound, DataMissing, DataDamaged: as `load`.
    """
    if split not in PARTS:
        raise Invalid(f"split is {split!r}, expected one of {', '.join(PARTS)}")
    return load_raw_split(get(task) if isinstance(task, str) else task, split, progress)
