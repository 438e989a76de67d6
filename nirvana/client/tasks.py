"""Tasks of a registry: pushed from this machine, and pulled to it without the rows that are sealed there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nirvana.client.rest import Client
from nirvana.errors import DataDamaged, Gone, Invalid
from nirvana.errors import JsonObject as Json
from nirvana.tasks.making import SEALED
from nirvana.tasks.own import SHARED_NAME, keep, read_own, read_own_seal, read_task
from nirvana.tasks.task import PARTS, Task, task_from_json

_KINDS = {1: "table", 2: "signals", 3: "images"}
_FIELDS = ("name", "title", "description", "input_shape", "classes", "class_names", "metric", "margin")
_MORE = ("margin_reason", "pixel_max", "normalisation", "sizes", "split", "license", "source", "data_sha256")


def push_task(client: Client, name: str, file: Path | None = None, **fields: Any) -> Json:
    """Make a task of a registry, under your account there; return what it shows of it.

    Args:
        name: that it gets there; without a file that of a task of your own here, too.
        file: a table, arrays or a zip file of images; None: what `nirvana tasks add` kept under that name,
            with its split and its sealed rows.
        fields: of the form, such as title, license, label and sealed_share; None is left out.

    Raises:
        NotFound: there is neither such a file nor such a task. Invalid: no licence is stated.
        NameTaken: the name names another task there. Others: as the service refuses.
    """
    if file is not None:
        return client.create_task(file, {"title": name} | fields | {"name": name})
    task = read_task(name)
    own = {"title": task.title, "license": task.license, "kind": _KINDS[len(task.input_shape)]}
    chosen = own | {field: value for field, value in fields.items() if value is not None}
    if chosen["license"] == "not stated":
        raise Invalid(f"task {name!r} states no licence of its data, expected one: --license CC-BY-4.0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.npz"
        _pack(task, path)
        return client.create_task(path, chosen | {"name": name})


def _pack(task: Task, path: Path) -> None:
    """Write a task of your own as an .npz file with its classes and its split in words."""
    arrays = read_own(task)
    parts = [(arrays[2 * place], arrays[2 * place + 1], part) for place, part in enumerate(PARTS)]
    if task.seal is not None:
        parts.append((*read_own_seal(task), (*PARTS, "sealed")[SEALED]))
    labels = np.array(task.class_names)
    np.savez_compressed(
        path,
        x=np.concatenate([x for x, _, _ in parts]),
        y=np.concatenate([labels[y] for _, y, _ in parts]),
        split=np.concatenate([np.full(len(y), part, "U10") for _, y, part in parts]),
    )


def pull_task(client: Client, name: str) -> Task:
    """Keep a registry's task here, under the same `owner/name`: all but its sealed rows.

    Raises:
        Invalid: the name has no owner. NotFound: there is no such task. Gone: its data were removed.
        DataDamaged: the registry sent other data than it says.
    """
    if not SHARED_NAME.fullmatch(name):
        raise Invalid(f"task name is {name[:100]!r}, expected owner/name of a task that somebody made there")
    shown = client.task(name)
    if shown["removed_at"] is not None:
        raise Gone(
            f"the data of the task {name} were removed from {client.endpoint} on {shown['removed_at']}"
        )
    try:
        task = task_from_json({field: shown[field] for field in (*_FIELDS, *_MORE, "seal")})
    except (KeyError, TypeError, ValueError) as error:
        raise DataDamaged(f"{client.endpoint} describes the task {name} as no task is ({error})") from error
    if task.name != name:
        raise DataDamaged(f"{client.endpoint} sent the task {task.name[:100]!r}, expected {name!r}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        path.write_bytes(client.download_task(name))
        keep(task, path)
    return task
