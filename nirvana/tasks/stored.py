"""Tasks of your own, kept on this machine.

    NIRVANA_HOME/tasks/<name>/task.json    the task, canonical JSON, with the sha256 of its data
    NIRVANA_HOME/tasks/<name>/data.npz     x as it was read, y (class indices), part (0 train, 1 validation,
                                           2 test); stored without compression, the same bytes for the same
                                           arrays

A task is written to a temporary folder that is renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rfc8785
from numpy.typing import NDArray

from nirvana import environment
from nirvana.errors import Conflict, DataDamaged, DataMissing, InvalidName, NotFound
from nirvana.files import write_atomically
from nirvana.tasks.examples import PARTS
from nirvana.tasks.files import file_checksum
from nirvana.tasks.task import Task, TaskData

FORMAT = "nirvana.task/1"
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,58}[a-z0-9])?")


def tasks_folder() -> Path:
    """Where tasks of your own are kept, one folder each."""
    return environment.home() / "tasks"


def check_name(name: str) -> None:
    """Raises: InvalidName: it cannot name a task."""
    if not NAME.fullmatch(name):
        raise InvalidName(
            f"task name is {name[:100]!r}, expected 1 to 60 lower-case letters, digits, '.', '_' or '-', "
            f"with a letter or digit at both ends"
        )


def stored_names() -> list[str]:
    """The names of the tasks that are kept here, sorted."""
    found = tasks_folder().glob("*/task.json")
    return sorted(path.parent.name for path in found if NAME.fullmatch(path.parent.name))


def read_task(name: str) -> Task:
    """A task that is kept here.

    Raises:
        NotFound: there is none of that name.
        DataDamaged: its task.json is not one.
    """
    path = tasks_folder() / name / "task.json"
    if not NAME.fullmatch(name) or not path.is_file():
        raise NotFound(f"there is no task {name[:100]!r} in {tasks_folder()}")
    try:
        fields = json.loads(path.read_bytes())
        if fields.pop("format") != FORMAT or fields["name"] != name:
            raise ValueError(f"its format or name is not {FORMAT} and {name}")
        task = task_from_json(fields)
        if task.data_sha256 is None:
            raise ValueError("its data have no digest")
        return task
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataDamaged(
            f"{path}: found another document ({error!r}), expected one that `nirvana tasks add` wrote; "
            f"add the task again with --replace"
        ) from error


def task_from_json(fields: dict[str, Any]) -> Task:
    """The task of `task_to_json`'s fields. Raises ValueError, TypeError or KeyError where it is none."""
    mean, sd = fields.pop("normalisation")
    pair = (tuple(mean), tuple(sd)) if isinstance(mean, list) else (float(mean), float(sd))
    shape = tuple(int(size) for size in fields["input_shape"])
    names = tuple(str(name) for name in fields["class_names"])
    sizes = {part: int(fields["sizes"][part]) for part in PARTS}
    found = {"input_shape": shape, "class_names": names, "sizes": sizes, "normalisation": pair}
    task = Task(**(fields | found | {"homes": ()}))
    entries = {np.shape(part) for part in pair}
    if entries not in ({()}, {task.input_shape[:1]}) or not all(np.all(np.isfinite(part)) for part in pair):
        raise ValueError("its normalisation does not fit its input shape")
    if len(task.class_names) != task.classes:
        raise ValueError("its class names do not fit its classes")
    if not 0 < task.margin <= 0.5 or not isinstance(task.data_sha256, str | None):
        raise ValueError("its margin or digest is none")
    return task


def task_to_json(task: Task) -> dict[str, Any]:
    """The task's fields, JSON-able; `task_from_json` reads them."""
    fields = dataclasses.asdict(task)
    del fields["homes"]
    return fields


def write_task(task: Task, arrays: Mapping[str, NDArray[Any]], *, replace: bool = False) -> Task:
    """Keep a task here; the same with the digest of its data.

    Raises:
        Conflict: there is one of its name, and `replace` does not ask for it to go.
    """
    target = tasks_folder() / task.name
    if target.exists() and not replace:
        raise Conflict(
            f"there is a task {task.name!r} of your own already ({target}); replace it with --replace"
        )
    with _temporary(task.name) as folder:
        _write_npz(folder / "data.npz", arrays)
        digest = file_checksum(folder / "data.npz", "sha256").removeprefix("sha256:")
        task = dataclasses.replace(task, data_sha256=digest)
        fields = {"format": FORMAT} | task_to_json(task)
        write_atomically(folder / "task.json", rfc8785.dumps(fields))
        if target.exists():
            _discard(target)
        try:
            os.rename(folder, target)
        except OSError as error:
            raise Conflict(f"{target} was written by somebody else at the same time: {error}") from error
    return task


def remove_task(name: str) -> None:
    """Forget a task that is kept here, and its data.

    Raises:
        NotFound: there is none of that name.
    """
    if not NAME.fullmatch(name) or not (tasks_folder() / name).is_dir():
        raise NotFound(f"there is no task {name[:100]!r} of your own in {tasks_folder()}")
    _discard(tasks_folder() / name)


def read_split(task: Task) -> TaskData:
    """The arrays of a task that is kept here, split and standardised.

    Raises:
        DataMissing: its data are gone.
        DataDamaged: they are not those that were added; with both digests.
    """
    a, b, c, d, e, f = read_raw_split(task)
    return TaskData(task.normalise(a), b, task.normalise(c), d, task.normalise(e), f)


def read_raw_split(task: Task) -> tuple[NDArray[Any], ...]:
    """x and y of the train, validation and test parts of a task that is kept here, x as it was read.

    Raises:
        DataMissing, DataDamaged: as `read_split`.
    """
    path = tasks_folder() / task.name / "data.npz"
    if not path.is_file():
        raise DataMissing(f"task {task.name!r}: {path} is gone; add the task again with --replace")
    found, expected = file_checksum(path, "sha256"), f"sha256:{task.data_sha256}"
    if found != expected:
        raise DataDamaged(
            f"{path}: found {found}, expected {expected}: the data of task {task.name!r} have changed; "
            f"add the task again with --replace"
        )
    with np.load(path, allow_pickle=False) as arrays:
        x, y, part = arrays["x"], arrays["y"], arrays["part"]
    if x.shape[1:] != task.input_shape or y.max() >= task.classes:
        raise DataDamaged(
            f"{path}: found examples of {list(x.shape[1:])} and {y.max() + 1} classes, expected "
            f"{list(task.input_shape)} and {task.classes} as task.json says"
        )
    return tuple(array[part == place] for place in range(3) for array in (x, y))


def _write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An .npz with a fixed date in it; arrays go to the disk one by one."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


@contextlib.contextmanager
def _temporary(name: str) -> Iterator[Path]:
    """A folder beside the tasks; whatever is left of it at the end is removed."""
    tasks_folder().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=tasks_folder(), prefix=f".{name}."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _discard(target: Path) -> None:
    """Take a task's folder away: out of sight at once, then off the disk."""
    with _temporary(target.name) as folder:
        os.rename(target, folder / target.name)
