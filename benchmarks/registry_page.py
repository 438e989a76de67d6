"""docs/registry-performance.md: `make bench-registry` (ARGS="--sizes 1000000 --parts lists": a part of it).

Each part starts services of its own, on empty databases, and prints a table; nothing of the page is typed in.
PostgreSQL's parts need NIRVANA_TEST_POSTGRES_URL of a server that waits for its disk; MLflow's part needs the
environment that `benchmarks/mlflow_search.py` describes, and the export's part needs nginx.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import httpx
from sqlalchemy import create_engine, text

from benchmarks import mlflow_search, registry, serving
from benchmarks.machine import describe
from benchmarks.measuring import row, table
from nirvana.client.rest import TICKET_MEDIA_TYPE
from nirvana.files import write_atomically
from tests.factories import make_ticket

TITLE = "# The registry's performance\n\nWritten by `make bench-registry`; nothing here was typed in."
SEARCH = "/api/v1/tickets?task=mnist&density=max:0.05&sort=accuracy"
LARGE = "mlp-5000-5000"  # on digits: 25 million weights
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
HOSTILE, LINTERS, SIGN_UPS = 1000, 100, 50
GOALS = {"sqlite": 100.0, "postgresql": 50.0}  # p95 of a list, ms


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Attributes:
        sizes: listings. repeats: of each query. publishes: tickets.
    """

    sizes: tuple[int, ...] = (10_000, 100_000)
    repeats: int = 30
    publishes: int = 400
    databases: tuple[str, ...] = ("sqlite", "postgresql")


def lists(asked: Asked) -> None:
    """Every list query of the published set, at each size on each database."""
    times: dict[str, dict[str, tuple[float, float]]] = {}
    for size in asked.sizes:
        with ExitStack() as stack:
            folders = {kind: tempfile.TemporaryDirectory() for kind in asked.databases}
            homes = {kind: Path(stack.enter_context(folder)) for kind, folder in folders.items()}
            urls = {kind: stack.enter_context(registry.database(kind, home)) for kind, home in homes.items()}
            _seed_side_by_side(urls, homes, size)
            for kind in asked.databases:
                with registry.serving(urls[kind], homes[kind], NIRVANA_LIMITS="off") as client:
                    name = f"{kind}, {size:,}"
                    times[name] = registry.measure(client, size, asked.repeats)
                    print(f"{name}: {_resident(client):.0f} MiB resident afterwards.  ")
    print(f"p50 / p95 in ms, one client, {asked.repeats} requests of each; **bold**: over the goal.\n")
    print(table(["query", *times]))
    for query in registry.QUERIES:
        cells = []
        for name, one in times.items():
            p50, p95 = one[query]
            mark = "**" if p95 > GOALS[name.partition(",")[0]] else ""
            cells.append(f"{p50:.1f} / {mark}{p95:.1f}{mark}")
        print(row([query, *cells]))
    print("\nGoals for p95: " + ", ".join(f"{kind} {goal:.0f} ms" for kind, goal in GOALS.items()) + ".")


def _seed_side_by_side(urls: Mapping[str, str], homes: Mapping[str, Path], size: int) -> None:
    with ProcessPoolExecutor(len(urls), multiprocessing.get_context("spawn")) as pool:
        for seeding in [pool.submit(registry.seed, urls[kind], homes[kind], size) for kind in urls]:
            seeding.result()


def _resident(client: httpx.Client) -> float:
    return registry.memory_of(int(client.headers["X-Pid"]))


def publishes(asked: Asked) -> None:
    """Publishes a second, by clients at once."""
    files = [
        make_ticket("lenet-300-100", density=serving.DENSITY, seed=number).to_bytes()
        for number in range(asked.publishes)
    ]
    size = round(statistics.fmean(map(len, files)))
    print(f"{len(files)} tickets of {size:,} bytes, all on the same cores; the processor time is that of the")
    print("service with the processes that check files, without the database's.\n")
    print(table(["database", "clients", "publishes a second", "p50, ms", "p95, ms", "processor, ms each"]))
    for clients in (1, 8, 32):
        serving.CLIENTS = clients
        some = files if clients > 1 else files[: max(1, len(files) // 4)]
        for name, service in serving.services():
            print(row([name, clients, *serving.publish(service, some)]), flush=True)
    serving.CLIENTS = 8


def files(_asked: Asked) -> None:
    """Small files, ranges and 304 a second of one process."""
    serving.downloads()


def exports(_asked: Asked) -> None:
    """A large export that is there, beside nginx with the same file of the same disk."""
    data = make_ticket(LARGE, density=0.001).to_bytes()
    with tempfile.TemporaryDirectory() as folder, nginx_in(Path(folder)) as (front, start):
        environment = {"NIRVANA_ACCEL_PREFIX": "/_blobs", "NIRVANA_LIMITS": "off"}
        plain = serving.services(("SQLite",), home=Path(folder) / "home", NIRVANA_LIMITS="off")
        for _, service in plain:
            serving.publish(service, [data])
            path = _path_of(service, "export?format=safetensors")
            blob = _make_export(service, path)
            start(service.settings.port)
            rates = _race(
                {
                    "nginx, the file itself": f"http://127.0.0.1:{front}/files/{blob}",
                    "the service": f"http://127.0.0.1:{service.settings.port}{path}",
                }
            )
        for _, service in serving.services(("SQLite",), home=Path(folder) / "home", **environment):
            start(service.settings.port)
            rates |= _race(
                {
                    "nginx, the file itself, again": f"http://127.0.0.1:{front}/files/{blob}",
                    "nginx in front, by X-Accel-Redirect": f"http://127.0.0.1:{front}{path}",
                }
            )
    print(
        f"an export of {_size_of(rates):,} bytes, {RACES} downloads each in turns, medians (least to most)\n"
    )
    print(table(["from", "MB a second", "share of nginx"]))
    for name, (_, speeds) in rates.items():
        base = "nginx, the file itself" + (", again" if "front" in name or "again" in name else "")
        share = statistics.median(speeds) / statistics.median(rates[base][1])
        middle, low, high = statistics.median(speeds), min(speeds), max(speeds)
        print(row([name, f"{middle:,.0f} ({low:,.0f} to {high:,.0f})", f"{100 * share:.0f} %"]))


RACES = 9
Rates = dict[str, tuple[int, list[float]]]


def _size_of(rates: Rates) -> int:
    sizes = {size for size, _ in rates.values()}
    assert len(sizes) == 1, "the sides handed out different files"
    return sizes.pop()


def _race(addresses: dict[str, str]) -> Rates:
    """Download each address in turns; return the bytes and the MB a second of each time."""
    rates: Rates = {name: (0, []) for name in addresses}
    for number in range(-1, RACES):
        for name, address in addresses.items():
            command = ["curl", "-sf", "-o", os.devnull, "-w", "%{size_download} %{speed_download}", address]
            size, speed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            if number >= 0:  # the one before warms the page cache
                rates[name] = int(size), [*rates[name][1], float(speed) / 1e6]
    return rates


def _path_of(service: serving.Service, tail: str) -> str:
    listed = httpx.get(f"{_url(service)}/api/v1/tickets?limit=1").json()["items"][0]
    return f"/api/v1/tickets/{listed['owner']}/{listed['name']}/{tail}"


def _url(service: serving.Service) -> str:
    return f"http://127.0.0.1:{service.settings.port}"


def _make_export(service: serving.Service, path: str) -> str:
    """Have an export made; return its blob's key."""
    answer = httpx.get(f"{_url(service)}{path}", timeout=300)
    assert answer.status_code == 200, answer.text
    blobs = service.settings.home / "blobs"
    (made,) = (one for one in (blobs / "exports").rglob("*") if one.is_file())
    return str(made.relative_to(blobs))


@contextmanager
def nginx_in(folder: Path) -> Iterator[tuple[int, Callable[[int], None]]]:
    """An nginx with one worker: yield its port, and a function that (re)starts it before a service's port."""
    port, running = registry.free_port(), list[subprocess.Popen[bytes]]()
    folder.chmod(0o755)

    def start(service_port: int) -> None:
        stop()
        conf = folder / "nginx.conf"
        conf.write_text(
            f"user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ sendfile on; access_log off; server {{ listen 127.0.0.1:{port};\n"
            f"location /files/ {{ alias {folder}/home/blobs/; }}\n"
            f"location /_blobs/ {{ internal; alias {folder}/home/blobs/; }}\n"
            f"location /api/ {{ proxy_pass http://127.0.0.1:{service_port}; }} }} }}\n"
        )
        running.append(subprocess.Popen([NGINX, "-c", conf, "-p", folder, "-g", "daemon off;"]))
        time.sleep(1)

    def stop() -> None:
        while running:
            running[-1].terminate()
            running.pop().wait(10)

    try:
        yield port, start
    finally:
        stop()


def workers(asked: Asked) -> None:
    """Searches a second of one process and of two, and those of a client that asks two processes."""
    print(table(["processes", "searches a second (least to most)", "times"]))
    size, rates = min(asked.sizes), dict[int, list[float]]()
    with tempfile.TemporaryDirectory() as folder, registry.database(asked.databases[-1], Path(folder)) as url:
        registry.seed(url, Path(folder), size)
        for _ in range(3):
            for count in (1, 2):
                environment = {"NIRVANA_LIMITS": "off", "NIRVANA_WORKERS": str(count)}
                with registry.serving(url, Path(folder), **environment) as client:
                    port = client.base_url.port or 80
                    mlflow_search.load(port, SEARCH, 100, 8)
                    rates.setdefault(count, []).append(mlflow_search.load(port, SEARCH, 1000, 8)[0])
    for count, found in rates.items():
        times = statistics.median(found) / statistics.median(rates[1])
        spread = f"{statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"
        print(row([count, spread, f"{times:.2f}"]))
    print(
        f"\n{size:,} listings on {asked.databases[-1]}, `{SEARCH}`, 8 clients; the database and the clients"
    )
    print("use the same cores.")


def attack(asked: Asked) -> None:
    """An honest user's search, quiet and while others attack from addresses of their own."""
    print(table(["when", "search p50, ms", "search p95, ms", "times", "resident MiB"]))
    with tempfile.TemporaryDirectory() as folder, registry.database(asked.databases[-1], Path(folder)) as url:
        registry.seed(url, Path(folder), min(asked.sizes))
        with registry.serving(url, Path(folder), NIRVANA_CHECK_PROCESSES="1") as client:
            _start_all(client)
            quiet = _honest(client)
            before = _resident(client)
            with _attackers(client.base_url.port or 80) as counts:
                attacked = _honest(client)
                during = _resident(client)
            for when, times, memory in (("quiet", quiet, before), ("under attack", attacked, during)):
                ratio = times[1] / quiet[1]
                print(row([when, f"{times[0]:.1f}", f"{times[1]:.1f}", f"{ratio:.1f}", f"{memory:.0f}"]))
    print(
        f"\n{HOSTILE} connections that send a byte now and then, {LINTERS} clients that lint a file of 10 kB"
    )
    print(f"one after the other, {SIGN_UPS} sign-ups a second, each from many addresses of 127.0.0.0/8, in a")
    print(f"process of their own on the same cores; what they got: {counts()}.")


def _start_all(client: httpx.Client) -> None:
    """Send one request of each kind, so that every process that the service has is there."""
    ticket = make_ticket("lenet-300-100", density=serving.DENSITY, seed=1).to_bytes()
    lint = client.post("/api/v1/tickets:lint", content=ticket, headers={"Content-Type": TICKET_MEDIA_TYPE})
    made = client.post("/api/v1/accounts", json={"name": "honest-one", "password": "correct horse battery"})
    assert (lint.status_code, made.status_code) == (200, 201), (lint.text, made.text)


def _honest(client: httpx.Client, seconds: float = 20) -> tuple[float, float]:
    """Search four times a second; return p50 and p95 in ms."""
    took, until = list[float](), time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        answer = client.get(SEARCH)
        assert answer.status_code == 200, answer.text
        took.append(1000 * (time.perf_counter() - began))
        time.sleep(0.25)
    took.sort()
    return statistics.median(took), took[round(0.95 * (len(took) - 1))]


@contextmanager
def _attackers(port: int) -> Iterator[Callable[[], str]]:
    context = multiprocessing.get_context("spawn")
    counts, ready = context.Manager().dict(), context.Event()
    ticket = make_ticket("lenet-300-100", density=serving.DENSITY, seed=1).to_bytes()
    process = context.Process(target=_attack, args=(port, ticket, counts, ready), daemon=True)
    process.start()
    ready.wait(60)
    time.sleep(3)
    try:
        yield lambda: ", ".join(f"{number} of {what}" for what, number in sorted(counts.items()))
    finally:
        process.kill()
        process.join()


def _attack(
    port: int, ticket: bytes, counts: dict[str, int], ready: multiprocessing.synchronize.Event
) -> None:
    asyncio.run(_attack_all(port, ticket, counts, ready))


async def _attack_all(
    port: int, ticket: bytes, counts: dict[str, int], ready: multiprocessing.synchronize.Event
) -> None:
    lint = (
        b"POST /api/v1/tickets:lint HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.nirvana.ticket\r\n"
    )
    lint += b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(ticket), ticket)
    sent = [_drip(port, _address(1, number % 10)) for number in range(HOSTILE)]
    sent += [_repeat(port, _address(2, number), lint, counts, "lint") for number in range(LINTERS)]
    sent.append(_sign_up(port, counts))
    ready.set()
    await asyncio.gather(*sent, return_exceptions=True)


def _address(network: int, number: int) -> str:
    return f"127.{network}.{number // 200}.{1 + number % 200}"


async def _drip(port: int, address: str) -> None:
    """Hold a connection with half a request, and begin anew when it is cut off."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            writer.write(b"GET /api/v1/tickets HTTP/1.1\r\nX: ")
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(2)
            writer.close()
        await asyncio.sleep(1)


async def _repeat(port: int, address: str, request: bytes, counts: dict[str, int], what: str) -> None:
    """Send a request again and again, as fast as the answers come."""
    while True:
        with contextlib.suppress(OSError):
            await _send(port, address, request, counts, what)
        await asyncio.sleep(0.1)


async def _send(port: int, address: str, request: bytes, counts: dict[str, int], what: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    name = f"{what} {answer[9:12].decode()}"
    counts[name] = counts.get(name, 0) + 1


async def _sign_up(port: int, counts: dict[str, int]) -> None:
    running = set[asyncio.Task[None]]()
    for number in range(10**6):
        body = b'{"name": "user-%d", "password": "correct horse %d"}' % (number, number)
        head = b"POST /api/v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        request = head + b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        task = asyncio.create_task(_send(port, _address(3, number % 5000), request, counts, "sign-up"))
        running.add(task)
        task.add_done_callback(running.discard)
        await asyncio.sleep(1 / SIGN_UPS)


def mlflow(asked: Asked) -> None:
    """Search beside MLflow's registry."""
    mlflow_search.compare(max(asked.sizes), clients=4, requests=40)


PARTS: dict[str, tuple[str, Callable[[Asked], None]]] = {
    "lists": ("Lists", lists),
    "publishes": ("Publishing", publishes),
    "files": ("Small files", files),
    "exports": ("A large export", exports),
    "workers": ("Several processes", workers),
    "attack": ("Under attack", attack),
    "mlflow": ("Beside MLflow", mlflow),
}


def describe_machine() -> str:
    """Return the machine and the versions as a table."""
    known = describe("of the tables' generators").splitlines()
    lines = [line for line in known if not line.startswith(("| cores |", "| threads |"))]  # nothing is bound
    lines += [row(["cores", os.cpu_count()]), row(["versions of the service", _versions()])]
    if registry.POSTGRES in os.environ:
        with create_engine(os.environ[registry.POSTGRES]).connect() as connection:
            version, fsync = (connection.scalar(text(f"SHOW {one}")) for one in ("server_version", "fsync"))
        lines.append(row(["PostgreSQL", f"{version}, fsync {fsync}"]))
    return "\n".join(lines)


def _versions() -> str:
    names = ("fastapi", "uvicorn", "h11", "uvloop", "sqlalchemy", "psycopg")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, and write the page; a part that fails says so, and the others go on."""
    parser = argparse.ArgumentParser(prog="benchmarks.registry_page", description=__doc__)
    parser.add_argument("--sizes", default="10000,100000", help="listings, comma-separated")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=30, help="requests of each list query")
    parser.add_argument("--publishes", type=int, default=400)
    both = "sqlite,postgresql" if registry.POSTGRES in os.environ else "sqlite"
    parser.add_argument("--databases", default=both)
    parser.add_argument("--write", type=Path, help="the page; parts that are not run stay as they are")
    args = parser.parse_args(arguments)
    asked = replace(
        Asked(repeats=args.repeats, publishes=args.publishes),
        sizes=tuple(int(one) for one in args.sizes.split(",")),
        databases=tuple(args.databases.split(",")),
    )
    printed = {name: run_part(name, asked) for name in args.parts.split(",")}
    if args.write:
        before = args.write.read_text() if args.write.exists() else ""
        write_atomically(args.write, put_parts(before, printed).encode())
    return int(any("did not run" in part for part in printed.values()))


def run_part(name: str, asked: Asked) -> str:
    """Run a part, show it, and return it as the page has it."""
    title, part = PARTS[name]
    out, began = io.StringIO(), time.monotonic()
    try:
        with contextlib.redirect_stdout(out):
            part(asked)
    except (Exception, SystemExit) as error:
        print(f"\nIt did not run: {type(error).__name__}: {error}".splitlines()[1], file=out)
    about = describe_machine() + "\n" + row(["seconds", f"{time.monotonic() - began:.0f}"])
    details = f"<details><summary>measured on</summary>\n\n{about}\n\n</details>"
    whole = f"## {title}\n\n{out.getvalue().strip()}\n\n{details}\n"
    print(whole, flush=True)
    return whole


def put_parts(page: str, printed: dict[str, str]) -> str:
    """Return the page with some parts replaced."""
    old = {part.partition("\n")[0]: f"## {part.strip()}\n" for part in page.split("\n## ")[1:]}
    new = {name: PARTS[name][0] for name in PARTS}
    parts = [printed.get(name) or old.get(title) for name, title in new.items()]
    return "\n\n".join([TITLE, *(part.strip() for part in parts if part)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
