"""The child process that makes a task of an uploaded file: `python -m app.tasks.making FOLDER MEMORY BYTES`.

It reads `request.json` in the folder, makes the task of the file that is named there, and leaves its files in
`out/`, and `answer.json`: the task and its warnings, or the error. It imports no database and no web
framework.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import signal
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from nirvana.environment import end_with_parent, is_out_of_memory
from nirvana.errors import JsonObject as Json
from nirvana.errors import NirvanaError
from nirvana.tasks.examples import refuse
from nirvana.tasks.files import file_checksum
from nirvana.tasks.making import NewTask, Shares, make_task
from nirvana.tasks.own import Reading, read_examples, write_files
from nirvana.tasks.task import Task, task_to_json

MOST_FEATURES = 20_000  # of one row of a table
MOST_NAME = 200  # characters of a class, a column or a file
MOST_DESCRIPTION = 4_000
MOST_WARNINGS = 20
OUT_OF_MEMORY, TOO_LARGE = 3, 4  # exit statuses


def main(arguments: Sequence[str]) -> int:
    """Make a task as a child: 0, OUT_OF_MEMORY or TOO_LARGE."""
    end_with_parent(signal.SIGKILL)
    folder, memory, most_bytes = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    request = json.loads((folder / "request.json").read_text())
    (folder / "out").mkdir()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then it is an error of the write
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        answer = _make_here(folder, request)
    except NirvanaError as error:
        answer = {"error": error.to_dict()}
    except Exception as error:
        if is_out_of_memory(error):
            return OUT_OF_MEMORY
        if isinstance(error, OSError):
            return TOO_LARGE
        raise
    (folder / "answer.json").write_text(json.dumps(answer))
    return 0


def _make_here(folder: Path, request: Json) -> Json:
    """Make the task of a request, as JSON, with its files in `out/`. Raises: Invalid, Unavailable."""
    fields, path = request["fields"], folder / request["file"]
    reading = Reading(**{name: fields[name] for name in ("label", "drop", "kind", "image_size")})
    examples = read_examples(path, reading)
    for what, text in (("title", fields["title"]), ("license", fields["license"])):
        _check_text(what, text)
    for column in (examples.label, *examples.columns):
        _check_text("column", column)
    if len(examples.columns) > MOST_FEATURES:
        detail = f"the table has {len(examples.columns):,} features, expected at most {MOST_FEATURES:,}"
        raise refuse("/columns", "too-many", detail)
    shares = Shares(*(fields[name] for name in ("test_share", "validation_share", "seed", "sealed_share")))
    source = f"{path.name}, {file_checksum(path, 'sha256')}"
    title, license, margin = (fields[name] for name in ("title", "license", "margin"))
    new = NewTask(request["name"], title, license, source, margin, shares)
    warnings: list[str] = []
    task, arrays = make_task(examples, new, warnings.append)
    for name in task.class_names:
        _check_text("class", name)
    task = write_files(folder / "out", _described(task, fields["description"]), arrays)
    return {"task": task_to_json(task), "warnings": [line[:500] for line in warnings[:MOST_WARNINGS]]}


def _described(task: Task, words: str | None) -> Task:
    """Return the task with its maker's description before the computed one."""
    description = f"{words}\n\n{task.description}" if words else task.description
    return dataclasses.replace(task, description=description[:MOST_DESCRIPTION])


def _check_text(what: str, text: str) -> None:
    """Refuse a name that no page can show. Raises: Invalid."""
    if len(text) > MOST_NAME:
        detail = f"a {what} has a name of {len(text):,} characters, expected at most {MOST_NAME}"
        raise refuse(f"/{what}", "too-long", detail)
    wrong = next((one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")), None)
    if wrong is not None:
        detail = f"a {what}'s name has the character U+{ord(wrong):04X}, expected text that can be read"
        raise refuse(f"/{what}", "characters", detail)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
