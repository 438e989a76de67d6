"""Tasks of your own: made of a table, arrays or images, and kept on this machine.

    NIRVANA_HOME/tasks/<name>/task.json    the task, canonical JSON, with the sha256 of its data
    NIRVANA_HOME/tasks/<name>/data.npz     x as it was read, y (class indices), part (0 train, 1 validation,
                                           2 test); stored without compression, the same bytes for the same
                                           arrays
    NIRVANA_HOME/tasks/<name>/sealed.npz   x and y of the rows that only a verification reads, where the task
                                           has a seal; for its owner's eyes

A task of a registry, `owner/name`, lies in the folder `owner@name` once it was pulled. NIRVANA_TASKS names a
further folder of such folders, which is looked at first.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rfc8785

from nirvana import environment
from nirvana.errors import Conflict, DataDamaged, DataMissing, Invalid, InvalidName, NotFound
from nirvana.files import write_atomically
from nirvana.tasks.catalogue import TASKS
from nirvana.tasks.examples import Examples, refuse
from nirvana.tasks.files import file_checksum
from nirvana.tasks.images import read_images
from nirvana.tasks.making import SEALED, NewTask, OnWarning, Shares, make_task
from nirvana.tasks.npz import KINDS, read_npz
from nirvana.tasks.tables import read_csv, read_parquet
from nirvana.tasks.task import PARTS, Array, Seal, Task, task_from_json, task_to_json

FORMAT = "nirvana.task/1"
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,58}[a-z0-9])?")
SHARED_NAME = re.compile(rf"[a-z0-9-]{{1,39}}/{NAME.pattern}")  # of a registry's task: owner/name
SUFFIXES = (".npz", ".csv", ".tsv", ".parquet", ".zip")
FILES = ("task.json", "data.npz", "sealed.npz")


@dataclass(frozen=True)
class Reading:
    """How a file becomes examples.

    Attributes:
        label: the labels' column (default: the last) or array (default: y or labels).
        drop: columns to leave out.
        kind: "images", "signals" or "table": what an .npz holds; None: by name, type and shape.
        image_size: height and width that images of a .zip are resampled to; None: they are of one size.
    """

    label: str | None = None
    drop: Sequence[str] = ()
    kind: str | None = None
    image_size: int | None = None


def _ignore(warning: str) -> None:
    pass


def add(
    path: str | Path,
    name: str,
    *,
    label: str | None = None,
    drop: Sequence[str] = (),
    kind: str | None = None,
    image_size: int | None = None,
    margin: float | None = None,
    test_share: float = 0.2,
    validation_share: float = 0.2,
    sealed_share: float = 0.0,
    seed: int = 0,
    title: str | None = None,
    license: str = "not stated",
    replace: bool = False,
    say: OnWarning = _ignore,
) -> Task:
    """Make a task of a file and keep it in NIRVANA_HOME/tasks/<name>/.

    Args:
        path: an .npz of arrays, a .csv, .tsv or .parquet table of numbers with a column of labels, or a .zip
            of images in a folder for each class.
        label, drop, kind, image_size: as `Reading` has them.
        margin: of accuracy, a fraction; None: by the size of the test set.
        test_share, validation_share: of all examples; drawn within each class, unless the file has a split.
        sealed_share: of all examples, likewise: test rows that only verifications read, so that no mask can
            have been searched on them. A registry that takes tickets of others seals a fifth.
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
    if name in own_names() and not replace:
        raise Conflict(f"there is a task {name!r} of your own already; replace it with --replace")
    shares = Shares(test_share, validation_share, seed, sealed_share)
    try:
        examples = read_examples(path, Reading(label, drop, kind, image_size))
        source = f"{path.name}, {file_checksum(path, 'sha256')}"
        new = NewTask(name, title or name, license, source, margin, shares)
        task, arrays = make_task(examples, new, say)
    except Invalid as error:
        raise type(error)(f"{path}: {error.detail}", errors=error.errors) from error
    return write_task(task, arrays, replace=replace)


def read_examples(path: Path, reading: Reading) -> Examples:
    """Read the examples of a file, by its suffix.

    Raises:
        Invalid: it cannot be read as such a file; each problem with its column, array or row.
        NotFound: there is no such file. Unavailable: it needs a package that is not installed.
    """
    label, drop, kind = reading.label, reading.drop, reading.kind
    if not path.exists():
        raise NotFound(f"no such file: {path}")
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in SUFFIXES:
        what = "a folder" if path.is_dir() else f"the suffix {path.suffix!r}"
        raise refuse("", "format", f"found {what}, expected a file ending in {', '.join(SUFFIXES)}")
    if not path.stat().st_size:
        raise refuse("", "empty", "found an empty file")
    if kind is not None and kind not in KINDS:
        raise refuse("/kind", "kind", f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if drop and suffix in (".npz", ".zip"):
        found = "an .npz file" if suffix == ".npz" else "a .zip file"
        detail = f"columns to drop ({', '.join(drop)}) are a table's, found {found}"
        raise refuse("/drop", "drop", detail)
    try:
        if suffix == ".zip":
            return read_images(path, reading.image_size)
        if suffix == ".npz":
            return read_npz(path, label, kind)
        return (read_parquet if suffix == ".parquet" else read_csv)(path, label, drop)
    except (
        ValueError,
        RuntimeError,
        LookupError,
    ) as error:  # of decoders, on damage that they did not expect
        if environment.is_out_of_memory(error):
            raise
        detail = f"the file cannot be read as {suffix} ({str(error)[:200]})"
        raise refuse("", "unreadable", detail) from error


def remove(name: str) -> None:
    """Forget a task of your own, and its data.

    Raises:
        Conflict: it is one that Nirvana comes with. NotFound: there is none of that name.
    """
    if name in TASKS and name not in own_names():
        raise Conflict(f"{name!r} is a task that Nirvana comes with, expected one of your own")
    if not is_own_name(name) or not (tasks_folder() / _folder_name(name)).is_dir():
        raise NotFound(f"there is no task {name[:100]!r} of your own in {tasks_folder()}")
    _discard(tasks_folder() / _folder_name(name))


def tasks_folder() -> Path:
    """Return the folder of your own tasks, which have one folder each."""
    return environment.home() / "tasks"


def check_name(name: str) -> None:
    """Refuse what cannot name a task.

    Raises:
        InvalidName: says what is expected.
    """
    if not NAME.fullmatch(name):
        raise InvalidName(
            f"task name is {name[:100]!r}, expected 1 to 60 lower-case letters, digits, '.', '_' or '-', "
            f"with a letter or digit at both ends"
        )


def is_own_name(name: str) -> bool:
    """Tell whether a task that is kept here may have this name: a plain one, or a registry's `owner/name`."""
    return bool(NAME.fullmatch(name) or SHARED_NAME.fullmatch(name))


def own_names() -> list[str]:
    """List the names of the tasks that are kept here, sorted."""
    paths = [path for folder in _folders() for path in folder.glob("*/task.json")]
    names = {path.parent.name.replace("@", "/", 1) for path in paths}
    return sorted(name for name in names if is_own_name(name))


def _folders() -> list[Path]:
    further = environment.tasks_folder()
    return [further, tasks_folder()] if further else [tasks_folder()]


def _folder_name(name: str) -> str:
    return name.replace("/", "@")


def _find_folder(name: str) -> Path:
    """Return the folder of a task that is kept here; where there is none, the one that it would have."""
    folders = [folder / _folder_name(name) for folder in _folders()]
    return next((folder for folder in folders if (folder / "task.json").is_file()), folders[-1])


def read_task(name: str) -> Task:
    """Read a task that is kept here.

    Raises:
        NotFound: there is none of that name.
        DataDamaged: its task.json is not one.
    """
    path = _find_folder(name) / "task.json"
    if not is_own_name(name) or not path.is_file():
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
            f"{_again(name)}"
        ) from error


def _again(name: str) -> str:
    """Say how the files of a task come back."""
    return f"`nirvana tasks pull {name}`" if "/" in name else "add the task again with --replace"


def write_task(task: Task, arrays: Mapping[str, Array], *, replace: bool = False) -> Task:
    """Keep a task here, and return it with the digest of its data.

    Raises:
        Conflict: there is one of its name, and `replace` does not ask for it to go.
    """
    target = tasks_folder() / _folder_name(task.name)
    if target.exists() and not replace:
        raise Conflict(
            f"there is a task {task.name!r} of your own already ({target}); replace it with --replace"
        )
    with _temporary(target.name) as folder:
        task = write_files(folder, task, arrays)
        _put_in_place(folder, target)
    return task


def write_files(folder: Path, task: Task, arrays: Mapping[str, Array]) -> Task:
    """Write the files of a task into a folder, sealed rows apart; return it with the digests of its data."""
    is_sealed = arrays["part"] == SEALED
    if is_sealed.any():
        _write_npz(folder / "sealed.npz", {name: arrays[name][is_sealed] for name in ("x", "y")})
        (folder / "sealed.npz").chmod(0o600)
        sealed_sha256 = file_checksum(folder / "sealed.npz", "sha256").removeprefix("sha256:")
        task = dataclasses.replace(task, seal=Seal(int(is_sealed.sum()), sealed_sha256))
        arrays = {name: array[~is_sealed] for name, array in arrays.items()}
    _write_npz(folder / "data.npz", arrays)
    digest = file_checksum(folder / "data.npz", "sha256").removeprefix("sha256:")
    task = dataclasses.replace(task, data_sha256=digest)
    write_description(folder, task)
    return task


def write_description(folder: Path, task: Task) -> None:
    """Write the task.json of a task into a folder."""
    write_atomically(folder / "task.json", rfc8785.dumps({"format": FORMAT} | task_to_json(task)))


def keep(task: Task, data: Path) -> None:
    """Keep a registry's task here, in the place of an older copy.

    Args:
        data: its data.npz, which is moved.

    Raises:
        DataDamaged: the file is not the task's.
    """
    checksum, expected = file_checksum(data, "sha256"), f"sha256:{task.data_sha256}"
    if checksum != expected:
        raise DataDamaged(f"the data of task {task.name!r}: found {checksum}, expected {expected}")
    target = tasks_folder() / _folder_name(task.name)
    with _temporary(target.name) as folder:
        shutil.move(data, folder / "data.npz")
        write_description(folder, task)
        _put_in_place(folder, target)


def _put_in_place(folder: Path, target: Path) -> None:
    if target.exists():
        _discard(target)
    try:
        os.rename(folder, target)
    except OSError as error:
        raise Conflict(f"{target} was written by somebody else at the same time: {error}") from error


def read_own(task: Task) -> tuple[Array, ...]:
    """Read x and y of the train, validation and test parts of a task that is kept here, x as it was added.

    Raises:
        DataMissing: its data are gone.
        DataDamaged: they are not those that were added; with both digests.
    """
    path = _find_folder(task.name) / "data.npz"
    if not path.is_file():
        raise DataMissing(f"task {task.name!r}: {path} is gone; {_again(task.name)}")
    x, y, part = _read_npz(path, task, task.data_sha256, ("x", "y", "part"))
    return tuple(array[part == place] for place in range(len(PARTS)) for array in (x, y))


def read_own_seal(task: Task) -> tuple[Array, Array]:
    """Read x and y of the sealed rows of a task that is kept here.

    Raises:
        DataMissing: they are not here, as on every machine but the one where the task was sealed.
        DataDamaged: they are not those that were sealed; with both digests.
    """
    path = _find_folder(task.name) / "sealed.npz"
    assert task.seal is not None
    if not path.is_file():
        raise DataMissing(
            f"task {task.name!r} is judged on {task.seal.rows:,} sealed rows, and {path} is not there: only "
            f"a registry that holds them (sha256 {task.seal.sha256[:12]}...) can verify its tickets; if that "
            f"is this one, put the file back from a backup"
            + ("" if "/" in task.name else ", or add the task again with --replace")
        )
    x, y = _read_npz(path, task, task.seal.sha256, ("x", "y"))
    return x, y


def _read_npz(path: Path, task: Task, sha256: str | None, names: Sequence[str]) -> tuple[Array, ...]:
    """Read arrays of a task's file, x and y first. Raises: DataDamaged."""
    checksum, expected = file_checksum(path, "sha256"), f"sha256:{sha256}"
    if checksum != expected:
        raise DataDamaged(
            f"{path}: found {checksum}, expected {expected}: the data of task {task.name!r} have changed; "
            f"{_again(task.name)}"
        )
    with np.load(path, allow_pickle=False) as arrays:
        read = tuple(arrays[name] for name in names)
    shape, classes = read[0].shape[1:], int(read[1].max()) + 1
    if shape != task.input_shape or classes > task.classes:
        raise DataDamaged(
            f"{path}: found examples of {list(shape)} and {classes} classes, expected "
            f"{list(task.input_shape)} and {task.classes} as task.json says"
        )
    return read


def _write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an .npz with a fixed date in it; arrays go to the disk one by one."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


@contextlib.contextmanager
def _temporary(name: str) -> Iterator[Path]:
    """Open a folder beside the tasks; what is left of it at the end is removed."""
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
