"""Files of data sets: found on this machine, or downloaded from the data set's own home.

A file is looked for in NIRVANA_DATA/<task>/, then in NIRVANA_DATA itself, then among the earlier downloads in
NIRVANA_HOME/data/<task>/. Whatever is found must have the published checksum. Some data sets have no home to
be downloaded from. A download is streamed to a temporary name, checked, and renamed; it takes the standard
library's client and not httpx, which trainings may not reach.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nirvana import environment
from nirvana.errors import DataDamaged, DataMissing, JsonObject, NetworkError, Unavailable

Progress = Callable[[JsonObject], None]

_CHUNK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 30.0


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
    """Return `kind:<hex>` of a file's bytes; `kind` is sha256 or md5."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return f"{kind}:{digest.hexdigest()}"


def missing_extra(error: ModuleNotFoundError, what: str) -> Unavailable:
    """Return the error to raise where `what` needs a package that is not installed."""
    return Unavailable(f"{what} needs {error.name}, not installed here: pip install 'nirvana-tickets[data]'")


def obtain(
    task: str,
    source: SourceFile,
    homes: Sequence[str],
    progress: Progress | None = None,
    folders: Sequence[str] = (),
) -> Path:
    """Return the path of a data set's file, downloaded first where it is nowhere on this machine.

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
    """Return the folders of a data set alone: in NIRVANA_DATA, by each name, and among the downloads."""
    data = environment.data_folder()
    return [data / name for name in names if data] + [environment.downloads_folder() / names[0]]


def _find_here(names: Sequence[str], source: SourceFile, looked: list[str]) -> Path | None:
    data, named = environment.data_folder(), named_folders(names)
    for folder in [*named[:-1], data, named[-1]] if data else named:
        path = folder / source.name
        if not path.is_file():
            looked.append(f"{path} (no such file{_look_alike(folder, source)})")
            continue
        checksum = file_checksum(path, source.checksum.split(":")[0])
        if checksum == source.checksum:
            return path
        if folder in named:
            raise DataDamaged(f"{path}: found {checksum}, expected {source.checksum}; remove it or mend it")
        looked.append(f"{path} (another file: {checksum}, expected {source.checksum})")
    return None


def _look_alike(folder: Path, source: SourceFile) -> str:
    """Name a file in the folder, or in one named like it, that might be mistaken for this one."""
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
    sentence = (
        f"data set {task!r}: {source.name} not found. Looked at: {'; '.join(looked)}. "
        f"NIRVANA_DATA ({folder or 'not set'}) names the folder that holds data sets: put the file at "
        f"NIRVANA_DATA/{task}/{source.name}"
    )
    if not homes:
        return f"{sentence}; it has no home to be downloaded from."
    way = "unset NIRVANA_OFFLINE" if environment.is_offline() else "mend the connection"
    return (
        f"{sentence} (get it from {homes[0]}/{source.name}), or {way} "
        f"and let it be downloaded to {environment.downloads_folder() / task}."
    )


def download(address: str, target: Path, checksum: str, progress: Progress | None = None) -> None:
    """Fetch `address` to `target`; nothing is left behind when it fails.

    Args:
        checksum: `sha256:<hex>` or `md5:<hex>` of what must arrive.
        progress: called with done and total in bytes; None shows a bar where stderr is a terminal.

    Raises:
        NetworkError: the address cannot be reached or answers with an error.
        DataDamaged: what arrived has another checksum.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream, _reporter(progress) as report:
            _stream(address, stream, report)
        arrived = file_checksum(partial, checksum.split(":")[0])
        if arrived != checksum:
            raise DataDamaged(f"{address}: found {arrived}, expected {checksum}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _stream(address: str, stream: IO[bytes], report: Progress) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": f"nirvana/{environment.VERSION}"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            while chunk := answer.read(_CHUNK_BYTES):
                stream.write(chunk)
                done += len(chunk)
                report({"kind": "download", "done": done, "total": total, "message": address})
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise NetworkError(f"{address}: {error}") from error
    if total and done != total:
        raise NetworkError(f"{address}: found {done} bytes, expected {total}")


@contextlib.contextmanager
def _reporter(progress: Progress | None) -> Iterator[Progress]:
    if progress is not None:
        yield progress
    elif environment.are_bars_disabled() or not sys.stderr.isatty():
        yield lambda event: None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Bars(*columns, console=Console(stderr=True)) as bars:
            bar = bars.add_task("download", total=None)
            yield lambda event: bars.update(
                bar, completed=event["done"], total=event["total"] or None, description=event["message"]
            )
