"""The child process of a job: `python -m worker.child PARENT MEMORY_BYTES NICENESS`, a JSON request a line.

It dies with its worker, cannot use more memory than it was given, prints progress as JSON lines on the
standard output that it was started with (whatever a library prints goes to standard error), and leaves each
result, written under another name and then renamed, in the attempt's folder. An attempt that fails ends it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from nirvana.environment import end_with_parent, is_out_of_memory
from nirvana.errors import NirvanaError, Unavailable
from worker import Json

Progress = Callable[[Json], None]


def main(parent: int, memory_bytes: int, niceness: int) -> None:
    """Do one request after another until one fails or there are no more."""
    _die_with(parent)
    _cap_memory(memory_bytes)
    os.nice(niceness)
    progress = _progress_line()
    for line in sys.stdin:
        request = json.loads(line)
        result = _run(request, progress)
        _leave(Path(request["folder"]), result)
        progress({"kind": "end"})
        if "error" in result:
            break
    sys.stderr.flush()
    os._exit(0)  # torch takes most of a second to say goodbye


def _run(request: Json, progress: Progress) -> Json:
    try:
        from worker.kinds import find_kind

        progress({"kind": "begun"})
        return find_kind(request["kind"]).ROUNDS[request["round"]](request, progress)
    except Exception as error:
        traceback.print_exc()
        return {"error": _as_json(error)}


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its worker dies, also when that has happened already."""
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _cap_memory(memory_bytes: int) -> None:
    """Cap writable memory. The address space would be the wrong measure: torch maps gigabytes that it never
    touches."""
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _progress_line() -> Progress:
    """Keep the pipe for progress alone: what any library prints goes to standard error."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def progress(event: Json) -> None:
        pipe.write(json.dumps(event) + "\n")

    return progress


def _as_json(error: Exception) -> Json:
    """The reason that a job shows, and whether another attempt may end differently.

    A typed error is the request's own fault and comes back however often it is tried; a lack of memory or
    of a service may pass.
    """
    if isinstance(error, NirvanaError):
        return {"code": error.code, "detail": error.detail, "retry": isinstance(error, Unavailable)}
    text = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        cap = resource.getrlimit(resource.RLIMIT_DATA)[0]
        detail = f"The round needed more memory than its cap of {cap / 2**20:.0f} MiB."
        return {"code": "out-of-memory", "detail": detail, "retry": True}
    return {"code": "crash", "detail": text[:2_000], "retry": True}


def _leave(folder: Path, result: Json) -> None:
    """Write the result under a name of its own, then rename it: a half-written result never counts."""
    unfinished = folder / "result.json.part"
    unfinished.write_text(json.dumps(result))
    unfinished.rename(folder / "result.json")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
