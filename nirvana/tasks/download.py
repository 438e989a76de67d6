"""Downloading a data set's file: streamed to a temporary name, checked, renamed.

The standard library's client and not httpx, because `nirvana.lab` loads tasks and may not reach httpx.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from nirvana import __version__, environment
from nirvana.errors import DataDamaged, NetworkError
from nirvana.tasks.files import Progress, file_checksum

_CHUNK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 30.0


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
        found = file_checksum(partial, checksum.split(":")[0])
        if found != checksum:
            raise DataDamaged(f"{address}: found {found}, expected {checksum}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _stream(address: str, stream: IO[bytes], report: Progress) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": f"nirvana/{__version__}"})
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
def _reporter(progress: Progress | None) -> Iterator[Callable[[dict[str, Any]], None]]:
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
