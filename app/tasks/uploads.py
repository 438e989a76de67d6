"""Uploads of tasks: received to a temporary file, then read in a child process (`app.tasks.making`) with caps
on its memory, its time and what it writes. Whatever a decoder does with a hostile file, it does there.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import anyio
from fastapi import Request

from app.db import Json
from app.dependencies import TASK_PARTS
from app.settings import Settings
from app.tasks.making import MOST_NAME, OUT_OF_MEMORY, TOO_LARGE
from app.tasks.schemas import NewTask
from app.tasks.service import MadeTask
from app.tickets.files.serving import FORM, open_form
from nirvana.errors import (
    DataDamaged,
    Invalid,
    InvalidName,
    Malformed,
    NirvanaError,
    Problem,
    StorageFull,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
    error_classes,
)
from nirvana.tasks import own
from nirvana.tasks.task import task_from_json

log = logging.getLogger("nirvana.app")
MIB = 2**20
MOST_DETAIL, MOST_PROBLEMS = 1_000, 50  # of an error: characters of a text, and how many
MOST_FIELDS = 200  # of a form: `drop` may be repeated
_PLAIN_FILE = re.compile(r"[^A-Za-z0-9 ()._+-]+")


def check_name(owner: str, name: str) -> str:
    """Return the whole name of a task of an account, of `name` or `owner/name`. Raises: InvalidName."""
    tail = name.removeprefix(f"{owner}/")
    if not own.NAME.fullmatch(tail):
        detail = f"{name[:100]!r} is not a task's name: 1 to 60 of a-z, 0-9, '.', '_', '-'"
        raise InvalidName(f"name: {detail}.", errors=[Problem("/name", "pattern", detail)])
    if tail in TASK_PARTS:
        detail = f"{tail!r} is no task's name: the registry's own paths end so"
        raise InvalidName(f"name: {detail}.", errors=[Problem("/name", "reserved", detail)])
    return f"{owner}/{tail}"


async def receive(request: Request, settings: Settings, folder: Path) -> tuple[Path, Json]:
    """Receive the form of a task into a folder; return its file, and the fields as JSON.

    Raises:
        UnsupportedMedia: no form. TooLarge: over the cap. Malformed: a broken form, or one that takes too
        long. StorageFull: no room for the file. Invalid: no file, or a field twice.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise UnsupportedMedia(f"{kind or 'no media type'}: expected {FORM}.")
    try:
        with anyio.fail_after(settings.upload_seconds):
            async with open_form(request, settings.max_task_bytes, max_fields=MOST_FIELDS) as (file, items):
                path = folder / plain_name(file.filename or "")
                with path.open("wb") as target:
                    while chunk := await file.read(MIB):
                        target.write(chunk)
                return path, _fields(items)
    except TimeoutError:
        raise Malformed(f"The upload took more than {settings.upload_seconds:g} s.") from None
    except OSError as error:
        raise StorageFull("There is no room for the upload; nothing was stored.") from error


def plain_name(name: str) -> str:
    """Return the last part of a file's name, in plain characters. Raises: Invalid: its suffix."""
    last = PurePosixPath(_PLAIN_FILE.sub("_", name.replace("\\", "/").rpartition("/")[2])).name
    suffix = Path(last).suffix.lower()
    if suffix not in own.SUFFIXES:
        detail = f"the file is named {name[:100]!r}, expected a name ending in {', '.join(own.SUFFIXES)}"
        raise Invalid(f"file: {detail}.", errors=[Problem("/file", "format", detail)])
    return f"{Path(last).stem[: MOST_NAME - 10].lstrip('.') or 'file'}{suffix}"


def _fields(items: Iterable[tuple[str, str]]) -> Json:
    """Return a form's fields, `drop` as a list. Raises: Invalid: another one twice."""
    fields: Json = {}
    for name, value in items:
        if name == "drop":
            fields.setdefault(name, []).append(value)
        elif name in fields:
            detail = f"{name[:100]!r} is given twice, expected once"
            raise Invalid(f"{detail}.", errors=[Problem(f"/{name[:100]}", "given-twice", detail)])
        else:
            fields[name] = value
    return fields


def make(settings: Settings, path: Path, name: str, fields: NewTask) -> MadeTask:
    """Make a task of a file, in a child process; its files are in the file's folder.

    Args:
        name: the whole one, `owner/name`.

    Raises:
        Invalid: the file cannot become a task; each problem with its column, array, file or row.
        TooLarge: it takes too much memory, time or room.
        Unavailable: a package is not installed here, or the child died.
    """
    folder = path.parent
    request = {"file": path.name, "name": name, "fields": fields.model_dump()}
    (folder / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "app.tasks.making", str(folder)]
    try:
        done = subprocess.run(
            [*command, str(settings.task_memory_bytes), str(settings.max_task_data_bytes)],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=settings.task_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TooLarge(f"Making the task takes more than {settings.task_seconds:g} s.") from None
    if done.returncode:
        raise _child_error(settings, done.returncode, done.stderr[-2_000:])
    answer = json.loads((folder / "answer.json").read_text())
    if "error" in answer:
        raise _file_error(answer["error"])
    return _made(settings, folder / "out", answer)


def _file_error(error: Json) -> NirvanaError:
    """Return the child's error, whatever long names the file has cut short."""
    cut = [
        {name: text[:MOST_DETAIL] for name, text in one.items()} for one in error["errors"][:MOST_PROBLEMS]
    ]
    kind = error_classes()[error["code"]]
    return kind(error["detail"][:MOST_DETAIL], errors=[Problem(**one) for one in cut])


def _made(settings: Settings, out: Path, answer: Json) -> MadeTask:
    """Return what the child left. Raises: TooLarge."""
    sealed = out / "sealed.npz"
    task = task_from_json(answer["task"])
    made = MadeTask(task, out / "data.npz", sealed if sealed.is_file() else None, tuple(answer["warnings"]))
    if made.stored_bytes > settings.max_task_data_bytes:
        raise _too_large(settings)
    return made


def _too_large(settings: Settings) -> TooLarge:
    most = settings.max_task_data_bytes
    return TooLarge(f"The task would take more than {most} bytes as it is kept.", limit_bytes=most)


def _child_error(settings: Settings, status: int, last_words: bytes) -> NirvanaError:
    memory = settings.task_memory_bytes
    if status == OUT_OF_MEMORY:
        return TooLarge(f"Making the task takes more than {memory // MIB} MiB.", limit_bytes=memory)
    if status == TOO_LARGE:
        return _too_large(settings)
    log.warning("making a task failed with status %d: %s", status, last_words.decode(errors="replace"))
    if status < 0:  # a decoder that crashed on the file: another try crashes, too
        return DataDamaged(f"The process that read the file was killed by signal {-status}.")
    return Unavailable(f"The process that reads the file ended with status {status}; try again.")


def _environment(folder: Path) -> dict[str, str]:
    """Return the child's environment: no address and no secret of ours."""
    paths = os.pathsep.join(path for path in sys.path if path) or os.getcwd()
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
    own_paths = {name: str(folder) for name in ("HOME", "NIRVANA_HOME", "TMPDIR")}
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    pool = {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # else it reserves more than it uses
    return kept | own_paths | threads | pool | {"PYTHONPATH": paths}
