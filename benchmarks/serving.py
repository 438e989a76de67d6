"""Publishes and downloads a second: one service process, its database and its clients on the same cores.

PostgreSQL's part needs NIRVANA_TEST_POSTGRES_URL (`scripts/with-postgres python -m benchmarks publishing`);
the table says whether that server waits for its disk. NIRVANA_BENCH_CHECKOUT names another checkout (such as
`git archive` of an older commit), whose service is measured in the same run.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from app.__main__ import migrate_database
from app.accounts.service import FIRST_SCOPES, create_account, create_token, find_account
from app.db import Database, make_engine
from app.settings import Settings
from benchmarks.machine import ALL_CORES, pinned
from benchmarks.measuring import row, table
from nirvana.client.rest import TICKET_MEDIA_TYPE
from tests.factories import make_ticket
from tests.registry import POSTGRES

ROOT, OTHER = Path(__file__).parents[1], "NIRVANA_BENCH_CHECKOUT"
CLIENTS = 8
TICKETS = 200
DOWNLOADS = 2000
DENSITY = 0.35  # of lenet-300-100 on digits: files of 10 kB


@dataclass(frozen=True)
class Service:
    """A running service process.

    Attributes:
        token: of an account that may publish.
    """

    settings: Settings
    token: str
    pid: int


def publishing() -> None:
    """Print how many tickets of 10 kB a second each database takes, each after its bytes are on the disk."""
    with pinned(ALL_CORES):
        files = [make_ticket("lenet-300-100", density=DENSITY, seed=n).to_bytes() for n in range(TICKETS)]
        size = round(statistics.fmean(map(len, files)))
        print(
            f"{TICKETS} tickets of {size:,} bytes, {CLIENTS} clients, {len(ALL_CORES)} cores for all of it;"
        )
        print(f"this disk does {_fsyncs_a_second():,.0f} fsyncs of 10 kB files a second.\n")
        print(table(["database", "publishes a second", "p50, ms", "p95, ms", "service's processor, ms each"]))
        for name, service in services():
            print(row([name, *publish(service, files)]), flush=True)


def downloads() -> None:
    """Print how many small files, ranges and 304 a second one process hands out, by name and by digest."""
    with pinned(ALL_CORES):
        ticket = make_ticket("lenet-300-100", density=DENSITY, seed=1)
        data = ticket.to_bytes()
        print(f"a file of {len(data):,} bytes, {DOWNLOADS} requests, {CLIENTS} clients on the same cores\n")
        print(table(["database", "request", "requests a second", "p50, ms", "p95, ms"]))
        for name, service in services():
            publish(service, [data])
            for what, seconds, took in _download(service, ticket.digest):
                cells = [f"{len(took) / seconds:,.0f}", *_quantiles(took)]
                print(row([name, what, *cells]), flush=True)


def publish(service: Service, files: Sequence[bytes]) -> list[str]:
    headers = {"Authorization": f"Bearer {service.token}", "Content-Type": TICKET_MEDIA_TYPE}

    def send(connection: http.client.HTTPConnection, number: int) -> int:
        path = f"/api/v1/tickets?name=t{number}-{uuid.uuid4().hex[:6]}"
        connection.request("POST", path, files[number], headers)
        return _status(connection)

    send(_connect(service), 0)  # what is made at the first request is made before
    before = _processor_seconds(service.pid)
    seconds, took = _load(service, send, len(files), 201)
    each = 1000 * (_processor_seconds(service.pid) - before) / len(files)
    return [f"{len(files) / seconds:.0f}", *_quantiles(took), f"{each:.1f}"]


def _download(service: Service, digest: str) -> Iterator[tuple[str, float, list[float]]]:
    connection = _connect(service)
    connection.request("GET", "/api/v1/tickets?limit=1")
    answer = connection.getresponse().read().decode()
    name = answer.split('"name":"')[1].split('"')[0]
    path = f"/api/v1/tickets/bench/{name}/file"
    connection.request("GET", path)
    opened = connection.getresponse()
    tag = str(opened.headers["ETag"])
    opened.read()
    requests = {
        "by name": (path, {}, 200),
        "by name, 304": (path, {"If-None-Match": tag}, 304),
        "by name, a range": (path, {"Range": "bytes=0-99"}, 206),
        "by digest": (f"/api/v1/tickets/{digest}/file", {}, 200),
        "/healthz, for comparison": ("/healthz", {}, 200),
    }
    for what, (target, headers, status) in requests.items():

        def send(
            connection: http.client.HTTPConnection,
            number: int,
            target: str = target,
            headers: dict[str, str] = headers,
        ) -> int:
            connection.request("GET", target, headers=headers)
            return _status(connection)

        yield what, *_load(service, send, DOWNLOADS, status)


def _status(connection: http.client.HTTPConnection) -> int:
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _load(
    service: Service,
    send: Callable[[http.client.HTTPConnection, int], int],
    requests: int,
    expected: int,
) -> tuple[float, list[float]]:
    """Send requests by CLIENTS at once; return the seconds of all, and those of each."""
    numbers, took, wrong = iter(range(requests)), list[float](), list[int]()

    def run() -> None:
        connection = _connect(service)
        for number in numbers:
            began = time.perf_counter()
            status = send(connection, number)
            took.append(time.perf_counter() - began)
            if status != expected:
                wrong.append(status)
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if wrong:
        raise RuntimeError(f"expected {expected}, and {len(wrong)} answers were {sorted(set(wrong))}")
    return seconds, took


def _connect(service: Service) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", service.settings.port, timeout=60)


def _quantiles(took: Sequence[float]) -> list[str]:
    ordered = sorted(took)
    return [f"{1000 * ordered[round(share * (len(ordered) - 1))]:.1f}" for share in (0.5, 0.95)]


def services(
    only: Sequence[str] = (), home: Path | None = None, **environment: str
) -> Iterator[tuple[str, Service]]:
    """Yield a service on each database, of another checkout first where one is named.

    Args:
        only: kinds of databases; none: all.
        home: a folder that stays; by default each service has one that goes.
        environment: settings.
    """
    checkouts = {"this": ROOT}
    if OTHER in os.environ:
        checkouts = {"other": Path(os.environ[OTHER])} | checkouts
    for checkout, root in checkouts.items():
        for name, url in _databases():
            if only and name.partition(",")[0] not in only:
                continue
            with _serve(url, root, home, environment) as service:
                yield f"{name} ({checkout} checkout)" if OTHER in os.environ else name, service


def _databases() -> Iterator[tuple[str, str]]:
    """Yield each kind of database with the URL of an empty one; SQLite's is ""."""
    yield "SQLite", ""
    if POSTGRES not in os.environ:
        print(f"({POSTGRES} is not set: no PostgreSQL)")
        return
    server = create_engine(os.environ[POSTGRES], isolation_level="AUTOCOMMIT")
    name = f"bench_{uuid.uuid4().hex[:8]}"
    with server.connect() as connection:
        fsync = connection.scalar(text("SHOW fsync"))
        connection.execute(text(f'CREATE DATABASE "{name}"'))
        url = make_url(os.environ[POSTGRES]).set(database=name)
        try:
            yield f"PostgreSQL, fsync {fsync}", url.render_as_string(hide_password=False)
        finally:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    server.dispose()


@contextmanager
def _serve(
    url: str, root: Path, home: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Run `python -m app serve` on a database in a folder of its own, or in one that stays."""
    with contextlib.nullcontext(home) if home else tempfile.TemporaryDirectory() as folder:
        port = 18_000 + os.getpid() % 1000
        settings = Settings(home=Path(folder), database_url=url, port=port, log_level="warning")
        migrate_database(settings)
        database = Database(make_engine(settings.database_url))
        with database.write() as session:
            account = find_account(session, "bench") or create_account(session, "bench")
            token = create_token(session, account, name="b", scopes=FIRST_SCOPES)[1]
        database.dispose()
        fields = ("home", "database_url", "blob_url", "port", "log_level")
        chosen = {f"NIRVANA_{name.upper()}": str(getattr(settings, name)) for name in fields}
        chosen |= {"NIRVANA_RATES": '{"publish": "off", "read": "off"}'} | dict(environment or {})
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"],
            env=os.environ | chosen,
            cwd=root,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(settings, process)
            yield Service(settings, token, process.pid)
        finally:
            process.terminate()
            process.wait(30)


def _wait(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError("the service ended")


def _processor_seconds(pid: int) -> float:
    """Return the processor seconds of a process and its living children."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if pid in (int(stat.parent.name), int(fields[1])) or _is_below(int(fields[1]), pid):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _is_below(child: int, pid: int) -> bool:
    try:
        return int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1]) == pid
    except OSError:
        return False


def _fsyncs_a_second(times: int = 100) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for number in range(times):
            with open(Path(folder) / str(number), "wb") as file:
                file.write(b"x" * 10_000)
                file.flush()
                os.fsync(file.fileno())
        return times / (time.perf_counter() - began)
