"""up: one command from nothing to a registry that serves, with a verified first ticket."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from nirvana import environment
from nirvana.cli import processes
from nirvana.cli.output import Json, Output, Quiet
from nirvana.cli.processes import Child
from nirvana.errors import Conflict, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from nirvana.client.rest import Client

HOST = "127.0.0.1"
SCOPES = "read,publish,yank,job,admin"
_READY_SECONDS = 60.0
_DRAIN_SECONDS = 15.0
_MOST_RESTARTS = 5


def up(
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1; a free one if it is busy.")] = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", "--once", help="In a throw-away home; do the first job, then stop. 0 if it won."
        ),
    ] = False,
    from_mirror: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Serve a mirror there, read only, without a worker.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a registry on this machine; on an empty database, find and verify a first ticket."""
    output = Output(json, quiet)
    if from_mirror is not None:
        free = str(_free_port(8000 if port is None else port, output))
        processes.become("app", "serve", "--from-mirror", str(from_mirror), "--port", free)
    if demo:
        raise typer.Exit(run_demo(output))
    run_up(output, 8000 if port is None else port)


def run_up(output: Output, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM; find the first ticket when there is none yet."""
    from nirvana.cli.welcome import welcome

    with _stopping_on_sigterm(), start_registry(output, port) as registry:
        welcome(registry.client, output, registry.watch_children)
        output.say(f"\nNirvana is at {registry.client.endpoint} -- Ctrl-C stops it")
        with contextlib.suppress(KeyboardInterrupt):
            registry.keep_running(output)
    output.say("stopped; the data stay in " + str(environment.home()))


def run_demo(output: Output) -> int:
    """Do the first job in a throw-away home; return 0 when its verified ticket won, 6 when it did not."""
    from nirvana.cli.welcome import find_and_verify, is_won, print_outcome

    with tempfile.TemporaryDirectory(prefix="nirvana-demo-") as folder, _stopping_on_sigterm():
        os.environ["NIRVANA_HOME"] = folder
        for name in ("NIRVANA_TOKEN", "NIRVANA_DATABASE_URL", "NIRVANA_BLOB_URL", "NIRVANA_CACHE"):
            os.environ.pop(name, None)
        with start_registry(output, port=0) as registry:
            started = time.monotonic()
            outcome = find_and_verify(registry.client, output, registry.watch_children)
            outcome["seconds"] = round(time.monotonic() - started, 1)
            print_outcome(outcome, output)
    return 0 if is_won(outcome) else 6


class Registry:
    """A running service and worker, and a client who is signed in."""

    def __init__(self, client: Client, service: Child, worker: Child) -> None:
        self.client, self.service, self.worker = client, service, worker
        self._restarts = 0

    def watch_children(self) -> None:
        """Start a worker that died again.

        Raises:
            Unavailable: the service died, or the worker again and again.
        """
        if self.service.has_ended:
            raise Unavailable(self.service.last_words())
        if self.worker.has_ended:
            self._restarts += 1
            if self._restarts > _MOST_RESTARTS:
                raise Unavailable(self.worker.last_words())
            self.worker.restart()

    def keep_running(self, output: Output) -> None:
        """Watch the processes until interrupted."""
        while True:
            time.sleep(1)
            before = self._restarts
            self.watch_children()
            if self._restarts > before:
                output.say(f"the worker had died and was started again; its log: {self.worker.log}")


@contextlib.contextmanager
def start_registry(output: Output, port: int) -> Iterator[Registry]:
    """Migrate, sign in, start both processes and wait until they are ready; stop them at the end."""
    home = environment.home()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    logs = home / "logs"
    logs.mkdir(exist_ok=True)
    with _only_one(home), contextlib.ExitStack() as stack:
        port = _free_port(port, output)
        settings = {"NIRVANA_HOME": str(home), "NIRVANA_HOST": HOST, "NIRVANA_PORT": str(port)}
        output.say(f"home: {home}; bringing the database up to date")
        processes.run("app", ["migrate"], settings)
        listen = ("--host", HOST, "--port", str(port))
        service = Child("service", "app", ("serve", *listen), settings, logs / "service.log")
        stack.callback(service.stop, _DRAIN_SECONDS)
        worker = Child("worker", "worker", (), settings, logs / "worker.log")
        stack.callback(worker.stop, _DRAIN_SECONDS)
        endpoint = f"http://{HOST}:{port}"
        _wait_until_ready(endpoint, service, worker)
        client = stack.enter_context(_signed_in(endpoint, settings))
        yield Registry(client, service, worker)


def _wait_until_ready(endpoint: str, service: Child, worker: Child) -> None:
    from nirvana.client.rest import Client

    with Client(endpoint, token="") as client:
        conditions = (client.is_ready, lambda: service.has_ended, lambda: worker.has_ended)
        is_decided = processes.wait_until(lambda: any(is_true() for is_true in conditions), _READY_SECONDS)
    for child in (service, worker):
        if child.has_ended:
            raise Unavailable(child.last_words())
    if not is_decided:
        raise Unavailable(f"the service was not ready after {_READY_SECONDS:.0f} s; its log: {service.log}")


def _signed_in(endpoint: str, settings: dict[str, str]) -> Client:
    """Return a client with the kept token, or with a new one where there is none that the service knows."""
    from nirvana.client.rest import Client

    if environment.token():
        client = Client(endpoint)
        try:
            client.whoami()
        except Unauthenticated:
            client.close()
        else:
            return client
    return Client(endpoint, token=_make_token(settings))


def _make_token(settings: dict[str, str]) -> str:
    """Make a token of this user's account and keep it under NIRVANA_HOME with mode 0600."""
    from nirvana.files import write_atomically

    arguments = ["token", "--account", _account_name(), "--scopes", SCOPES]
    secret = processes.run("app", arguments, settings).strip().splitlines()[-1]
    write_atomically(environment.token_file(), secret.encode(), mode=0o600)
    return secret


def _account_name() -> str:
    """Return this user's name as an account's: a-z, 0-9 and -."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    return re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:39].strip("-") or "me"


def _free_port(wanted: int, output: Output) -> int:
    """Return `wanted`, or another port that is free; 0 takes any."""
    for port in (wanted, *range(wanted + 1, wanted + 20), 0) if wanted else (0,):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            free = int(probe.getsockname()[1])
            if wanted and free != wanted:
                output.say(f"port {wanted} is busy, so that the service takes {free}")
            return free
    raise Conflict("no port on 127.0.0.1 is free")


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the home's lock.

    Raises:
        Conflict: another `nirvana up` runs in it.
    """
    import fcntl  # Unix alone has it, and every other verb works without

    with (home / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"another `nirvana up` runs in {home}; set NIRVANA_HOME for a second one"
            ) from error
        yield


@contextlib.contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: stop the children and go."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
