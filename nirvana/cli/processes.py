"""serve, worker, migrate: the service's processes, and the same as children of `nirvana up`.

The library never imports `app` or `worker` (they are not in the wheel): it starts them with this same Python,
from the folder that holds them. A child dies with its parent, and what it prints goes to a log file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from nirvana.cli.output import Json
from nirvana.environment import end_with_parent
from nirvana.errors import NotFound, Unavailable


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that answer requests.")] = None,
    from_mirror: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Serve what `nirvana mirror` copied there, read only.")
    ] = None,
) -> None:
    """Run the service."""
    options = [("--host", host), ("--port", port), ("--workers", workers), ("--from-mirror", from_mirror)]
    arguments = [str(part) for option in options if option[1] is not None for part in option]
    become("app", "serve", *arguments)


def worker() -> None:
    """Run a worker, which does the service's jobs."""
    become("worker")


def migrate() -> None:
    """Bring the database to this version."""
    become("app", "migrate")


def dump(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder; default: the blob store, where /dumps shows it."),
    ] = None,
) -> None:
    """Write everything that is public here, as files: tickets, verdicts, hashes of all ticket files."""
    become("app", "dump", *(() if out is None else ("--out", str(out))))


def reverify(
    task: Annotated[str | None, typer.Option(help="Of this task alone.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most verifications to enqueue.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, and enqueue nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure headlines of older protocols again: one job an exam, behind everybody's; safe to repeat."""
    options = [("--task", task), ("--limit", limit)]
    arguments = [str(part) for option in options if option[1] is not None for part in option]
    flags = [flag for flag, is_on in (("--dry-run", dry_run), ("--json", json)) if is_on]
    become("app", "reverify", *arguments, *flags)


admin_app = typer.Typer(help="For who runs a registry, on its machine.", no_args_is_help=True)
admin_app.command()(reverify)


def source_folder() -> Path:
    """Return the folder that holds app/ and worker/.

    Raises:
        NotFound: this is the library alone.
    """
    import nirvana

    beside_library = Path(nirvana.__file__).resolve().parent.parent
    for folder in (beside_library, Path.cwd()):
        if (folder / "app" / "settings.py").is_file() and (folder / "worker" / "__init__.py").is_file():
            return folder
    raise NotFound(
        "the service (packages app and worker) is not installed here: found neither "
        f"{beside_library / 'app'} nor {Path.cwd() / 'app'}. The wheel holds the library alone; "
        "run this in a clone of the repository, or use its container image"
    )


def child_environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment in which `python -m app` and `python -m worker` find themselves."""
    paths = [str(source_folder()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)} | dict(settings or {})


def become(module: str, *arguments: str) -> None:
    """Turn this process into `python -m module`, which so gets its signals and gives its exit code."""
    environment = child_environment()
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


def run(module: str, arguments: Sequence[str], settings: Mapping[str, str]) -> str:
    """Run `python -m module` to its end and return what it printed.

    Raises:
        Unavailable: it failed; with its last words.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=child_environment(settings), capture_output=True, text=True)
    if done.returncode != 0:
        reason = _last_line(done.stderr or done.stdout)
        raise Unavailable(
            f"python -m {module} {arguments[0]} ended with exit code {done.returncode}: {reason}"
        )
    return done.stdout


class Child:
    """A running `python -m module`.

    Args:
        name: in messages, such as `service`.
        log: the file to which its output is appended.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], settings: Mapping[str, str], log: Path
    ) -> None:
        self.name, self.log = name, log
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = child_environment(settings)
        self._start()

    def _start(self) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def restart(self) -> None:
        self._process.wait()
        self._start()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def last_words(self) -> str:
        """Return the exit code and the log's last line, in one sentence."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            reason = _last_line(log.read().decode(errors="replace"))
        return f"the {self.name} ended with exit code {self._process.poll()} (log: {self.log}): {reason}"

    def stop(self, seconds: float) -> None:
        """Ask it to drain; kill it after `seconds`."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _last_line(text: str) -> str:
    """Return the last line that is not blank, in which a traceback names the error."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:1_000] if lines else "it said nothing"


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Wait until `condition()` is true; return whether it became so within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(pause)
    return False
