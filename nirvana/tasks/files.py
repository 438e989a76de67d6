"""Where a data set's files lie: found on this machine, or downloaded from the data set's own home.

A file is looked for in NIRVANA_DATA/<task>/, then in NIRVANA_DATA itself, then among the earlier downloads in
NIRVANA_HOME/data/<task>/. Whatever is found must have the published checksum. Some data sets have no home to
be downloaded from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nirvana import environment
from nirvana.errors import DataDamaged, DataMissing, NetworkError, Unavailable

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class SourceFile:
    """One published file.

    Attributes:
        name: its file name.
        checksum: `sha256:<hex>` or, where only that was ever published, `md5:<hex>`.
        shape: the shape of the array in it.
    """

    name: str
    checksum: str
    shape: tuple[int, ...]


def file_checksum(path: Path, kind: str) -> str:
    """`kind:<hex>` of a file's bytes; `kind` is sha256 or md5."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return f"{kind}:{digest.hexdigest()}"


def missing_extra(error: ModuleNotFoundError, what: str) -> Unavailable:
    """What to say where `what` needs a package that is not installed."""
    return Unavailable(f"{what} needs {error.name}, not installed here: pip install 'nirvana-tickets[data]'")


def obtain(
    task: str,
    source: SourceFile,
    homes: Sequence[str],
    progress: Progress | None = None,
    folders: Sequence[str] = (),
) -> Path:
    """The path of a data set's file, downloaded first where it is nowhere on this machine.

    Args:
        task: the task's name, which names the folder.
        homes: addresses of folders that publish the file, tried in turn; none: it cannot be downloaded.
        progress: called with {"kind": "download", "done", "total", "message"}, in bytes.
        folders: other names that the folder in NIRVANA_DATA may have.

    Raises:
        DataMissing: it is not here and cannot be downloaded; says where it was looked for.
        DataDamaged: a file of its name, in a folder of the task's name, has another checksum.
    """
    looked: list[str] = []
    path = _find_here([task, *folders], source, looked)
    if path is None:
        path = _download(task, source, homes, looked, progress)
    if path is None:
        raise DataMissing(_missing_sentence(task, source, homes, looked), looked=looked, file=source.name)
    return path


def named_folders(names: Sequence[str]) -> list[Path]:
    """The folders that belong to a data set alone: in NIRVANA_DATA, by each name, and among the downloads."""
    data = environment.data_folder()
    return [data / name for name in names if data] + [environment.downloads_folder() / names[0]]


def _find_here(names: Sequence[str], source: SourceFile, looked: list[str]) -> Path | None:
    data, named = environment.data_folder(), named_folders(names)
    for folder in [*named[:-1], data, named[-1]] if data else named:
        path = folder / source.name
        if not path.is_file():
            looked.append(f"{path} (no such file{_look_alike(folder, source)})")
            continue
        found = file_checksum(path, source.checksum.split(":")[0])
        if found == source.checksum:
            return path
        if folder in named:
            raise DataDamaged(f"{path}: found {found}, expected {source.checksum}; remove it or mend it")
        looked.append(f"{path} (another file: {found}, expected {source.checksum})")
    return None


def _look_alike(folder: Path, source: SourceFile) -> str:
    """Says so when a folder, or one named like it, holds a file that might be mistaken for this one."""
    start, dash, rest = source.name.partition("-")
    if not dash:
        return ""
    for place in [folder, *sorted(folder.parent.glob(f"{folder.name}-*"))]:
        for other in sorted(place.glob(f"{start}*-{rest}")):
            if other.name != source.name:
                return f"; {other.parent.name}/{other.name} is there, which is not the whole file"
    return ""


def _download(
    task: str, source: SourceFile, homes: Sequence[str], looked: list[str], progress: Progress | None
) -> Path | None:
    if not homes:
        return None
    if environment.is_offline():
        looked.append("no download, because NIRVANA_OFFLINE is set")
        return None
    from nirvana.tasks.download import download

    target = environment.downloads_folder() / task / source.name
    for address in homes:
        try:
            download(f"{address}/{source.name}", target, source.checksum, progress)
        except (NetworkError, DataDamaged) as error:
            looked.append(error.detail)
        else:
            return target
    return None


def _missing_sentence(task: str, source: SourceFile, homes: Sequence[str], looked: list[str]) -> str:
    folder = environment.data_folder()
    said = (
        f"data set {task!r}: {source.name} not found. Looked at: {'; '.join(looked)}. "
        f"NIRVANA_DATA ({folder or 'not set'}) names the folder that holds data sets: put the file at "
        f"NIRVANA_DATA/{task}/{source.name}"
    )
    if not homes:
        return f"{said}; it has no home to be downloaded from."
    way = "unset NIRVANA_OFFLINE" if environment.is_offline() else "mend the connection"
    return (
        f"{said} (get it from {homes[0]}/{source.name}), or {way} "
        f"and let it be downloaded to {environment.downloads_folder() / task}."
    )
