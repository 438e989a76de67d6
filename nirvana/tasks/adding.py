"""Your own table or arrays become a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nirvana.errors import Conflict, Invalid, NotFound
from nirvana.tasks.catalogue import TASKS
from nirvana.tasks.examples import Examples, refuse
from nirvana.tasks.files import file_checksum
from nirvana.tasks.making import Say, Shares, make_task
from nirvana.tasks.npz import KINDS, read_npz
from nirvana.tasks.stored import check_name, remove_task, stored_names, write_task
from nirvana.tasks.tables import read_csv, read_parquet
from nirvana.tasks.task import Task

SUFFIXES = (".npz", ".csv", ".tsv", ".parquet")


def _silent(line: str) -> None:
    pass


def add(
    path: str | Path,
    name: str,
    *,
    label: str | None = None,
    drop: Sequence[str] = (),
    kind: str | None = None,
    margin: float | None = None,
    test_share: float = 0.2,
    validation_share: float = 0.2,
    seed: int = 0,
    title: str | None = None,
    license: str = "not stated",
    replace: bool = False,
    say: Say = _silent,
) -> Task:
    """Make a task of a file and keep it in NIRVANA_HOME/tasks/<name>/.

    Args:
        path: an .npz of arrays, or a .csv, .tsv or .parquet table of numbers with a column of labels.
        label: the labels' column (default: the last) or array (default: y or labels).
        drop: columns to leave out.
        kind: "images", "signals" or "table": what an .npz holds; None: by name, type and shape.
        margin: of accuracy, a fraction; None: by the size of the test set.
        test_share, validation_share: of all examples; drawn within each class, unless the file has a split.
        seed: of that draw, 0 to 2^64 - 1.
        replace: take the place of a task of your own that has this name.
        say: called with a line for each thing that is odd and no error.

    Raises:
        Invalid: the file cannot become a task; each problem with its column, array or row.
        InvalidName: `name` cannot be a task's. Conflict: it is taken. NotFound: there is no such file.
        Unavailable: the file needs a package that is not installed.
    """
    path = Path(path)
    check_name(name)
    if name in TASKS:
        raise Conflict(f"{name!r} is the name of a task that Nirvana comes with, expected another")
    if name in stored_names() and not replace:
        raise Conflict(f"there is a task {name!r} of your own already; replace it with --replace")
    try:
        examples = _read(path, label, drop, kind)
        source = f"{path.name}, {file_checksum(path, 'sha256')}"
        said = {"title": title or name, "license": license, "source": source}
        task, arrays = make_task(
            examples, name, Shares(test_share, validation_share, seed), margin, said, say
        )
    except Invalid as error:
        raise type(error)(f"{path}: {error.detail}", errors=error.errors) from error
    return write_task(task, arrays, replace=replace)


def remove(name: str) -> None:
    """Forget a task of your own, and its data.

    Raises:
        Conflict: it is one that Nirvana comes with. NotFound: there is none of that name.
    """
    if name in TASKS and name not in stored_names():
        raise Conflict(f"{name!r} is a task that Nirvana comes with, expected one of your own")
    remove_task(name)


def _read(path: Path, label: str | None, drop: Sequence[str], kind: str | None) -> Examples:
    if not path.exists():
        raise NotFound(f"no such file: {path}")
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        found = "a folder" if path.is_dir() else f"the suffix {path.suffix!r}"
        raise refuse("", "format", f"found {found}, expected a file ending in {', '.join(SUFFIXES)}")
    if not path.stat().st_size:
        raise refuse("", "empty", "found an empty file")
    if kind is not None and kind not in KINDS:
        raise refuse("/kind", "kind", f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if path.suffix.lower() != ".npz":
        read = read_parquet if path.suffix.lower() == ".parquet" else read_csv
        return read(path, label, drop)
    if drop:
        raise refuse(
            "/drop", "drop", f"columns to drop ({', '.join(drop)}) are a table's, found an .npz file"
        )
    return read_npz(path, label, kind)
