"""Search of a registry with many listings: `python -m benchmarks.registry --listings 100000`.

Listings are generated, as searches of twelve levels give them, and inserted in bulk: no file lies behind one,
but every list, page and gauge reads what a published ticket would have. Then the service runs in a process of
its own, and each query of the published set is sent to it over loopback, one after the other.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
from sqlalchemy import Connection, create_engine, inspect, make_url, text

from app.__main__ import migrate_database
from app.db import make_engine
from app.settings import Settings
from nirvana.networks import zoo

POSTGRES = "NIRVANA_TEST_POSTGRES_URL"
SEED = 12
LEVELS = 12
AT_ONCE = 20_000
Row = dict[str, Any]

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
NETWORKS = ("lenet-300-100", "mlp-16", "mlp-64", "lenet-5", "conv-2", "conv-4")
FITTING = {task: NETWORKS[:3] if task == "digits" else NETWORKS for task in SHAPES}
PAIRS = [(task, name) for task, names in FITTING.items() for name in names]
GRAPHS = list(dict.fromkeys((SHAPES[task], name) for task, name in PAIRS))
METHODS = ("imp", "imp", "imp", "one-shot", "snip", "synflow")
VERDICTS = ("WINNING", "MATCHING", "NOT_MATCHING", "TRIVIAL", "INCONCLUSIVE")
WORDS = ("found", "on", "a", "laptop", "with", "the", "smallest", "rate", "that", "still", "converges")
FACETS = "facets=task,architecture,method,verdict"
MANY = "+".join(["lenet", "imp", "mnist", "the", *(f"w{number}" for number in range(32))])
QUERIES: dict[str, tuple[str, ...]] = {
    "newest": ("/api/v1/tickets",),
    "newest, page of 100": ("/api/v1/tickets?limit=100",),
    "page 1,000 of 25": ("/api/v1/tickets?cursor={deep}",),
    "by accuracy": ("/api/v1/tickets?sort=accuracy",),
    "task, density, by accuracy": tuple(
        f"/api/v1/tickets?task={task}&density=max:0.05&sort=accuracy" for task in SHAPES
    ),
    "smallest that reaches 98 %": (
        "/api/v1/tickets?task=mnist&accuracy=min:0.98&sort=kept",
        "/api/v1/tickets?task=mnist&accuracy=min:0.98&kept=max:20000&sort=kept",
    ),
    "three equal values": (
        "/api/v1/tickets?task=mnist&architecture=lenet-5&method=snip",
        "/api/v1/tickets?architecture=mlp-16&method=synflow&verdict=trivial&sort=density",
    ),
    "no hits": ("/api/v1/tickets?task=digits&architecture=conv-4", "/api/v1/tickets?method=none&sort=kept"),
    "range without hits": ("/api/v1/tickets?density=max:0.00001&sort=accuracy",),
    "four facets": (f"/api/v1/tickets?{FACETS}",),
    "four facets, filtered": (f"/api/v1/tickets?task=mnist&density=max:0.05&{FACETS}",),
    "owner": ("/api/v1/tickets?owner=user-7",),
    "owner without tickets": ("/api/v1/tickets?owner=nobody-yet", "/api/v1/tickets?owner=idle"),
    "tag": ("/api/v1/tickets?tag=small", "/api/v1/tickets?tag=rare"),
    "a rare word": ("/api/v1/tickets?q=unicorn", "/api/v1/tickets?q=unicorn+imp&sort=accuracy"),
    "a common word": ("/api/v1/tickets?q=lenet", "/api/v1/tickets?q=lenet&sort=accuracy"),
    "one letter": ("/api/v1/tickets?q=m", "/api/v1/tickets?q=l&sort=density"),
    "36 words": (f"/api/v1/tickets?q={MANY}",),
    "home page": ("/",),
    "task page": ("/tasks/mnist", "/tasks/mnist?brought_in=true"),
    "tasks": ("/api/v1/tasks",),
    "metrics": ("/metrics",),
}


@dataclass(frozen=True)
class Made:
    """A generated listing, and the words that it is found by."""

    row: Row
    tags: Sequence[str]


def generate(listings: int, owners: int) -> Iterator[Made]:
    """Yield listings: searches of LEVELS levels each, of random tasks, networks, methods and luck."""
    random, start = Random(SEED), datetime(2025, 1, 1, tzinfo=UTC)
    graphs = {pair: zoo.build(pair[1], SHAPES[pair[0]], 10) for pair in PAIRS}
    for number in range(1, listings + 1):
        level = (number - 1) % LEVELS
        if level == 0:
            (task, name), method = random.choice(PAIRS), random.choice(METHODS)
            best, owner = random.betavariate(30, 1.5), random.randrange(2, owners)
        density = 0.8 ** (2 * level + random.random())
        measured = random.random() < 0.3
        accuracy = (
            max(0.05, best - 0.02 / (density * 100 + 0.3) + random.gauss(0, 0.002)) if measured else None
        )
        graph = graphs[task, name]
        row = _row(number, graph.prunable_total, density, accuracy, random) | {
            "owner_id": owner,
            "architecture_id": 1 + GRAPHS.index((SHAPES[task], name)),
            "name": f"{name}-{task}-{number}",
            "task": task,
            "architecture_name": name,
            "family": graph.family,
            "method": method,
            "origin": "attested" if method == "imp" else "brought-in",
            "level": level,
            "job_id": f"job-{(number - 1) // LEVELS}",
            "created_at": start + timedelta(seconds=7 * number),
        }
        tags = [tag for tag, share in (("small", 0.05), ("rare", 0.0002)) if random.random() < share]
        yield Made(row | {"tags": tags}, tags)


def _row(number: int, total: int, density: float, accuracy: float | None, random: Random) -> Row:
    """Return what a listing's number, size and luck determine."""
    kept = max(1, round(total * density))
    verdict = random.choice(VERDICTS) if accuracy is not None else None
    words = [*random.sample(WORDS, 6), *(["unicorn"] if number % 20_011 == 7 else [])]
    gap = None if accuracy is None else random.gauss(0, 0.01)
    return {
        "id": number,
        "digest": "sha256:" + hashlib.sha256(b"%d" % number).hexdigest(),
        "exam_key": hashlib.sha256(b"exam %d" % number).hexdigest(),
        "visibility": "private" if random.random() < 0.01 else "public",
        "blob_id": number,
        "license": "CC-BY-4.0",
        "description": " ".join(words),
        "initial_kind": "seeded",
        "rewind_step": 0,
        "density": density,
        "density_band": _band(density),
        "kept": kept,
        "total": total,
        "kept_parameters": kept + 410,
        "parameters": total + 410,
        "flops": 2 * kept,
        "speedup": total / kept,
        "downloads": int(random.paretovariate(1.2)) - 1,
        "is_copy": False,
        "warnings": [],
        "version": 1,
        "yanked_at": datetime(2026, 1, 1, tzinfo=UTC) if random.random() < 0.01 else None,
        "verdict": verdict,
        "protocol": "nirvana-verify/7" if verdict else None,
        "accuracy": accuracy,
        "accuracy_gap": gap,
        "replicates": 5 if verdict else None,
        "evaluated_at": datetime(2026, 1, 1, tzinfo=UTC) if verdict else None,
        "sort_accuracy": -2.0 if accuracy is None else accuracy,
        "accuracy_band": -200 if accuracy is None else int(100 * accuracy),
        "sort_gap": -2.0 if gap is None else gap,
    }


def _band(density: float) -> int:
    return min(60, math.floor(-2 * math.log2(density)))


def seed(url: str, home: Path, listings: int) -> None:
    """Fill a database of that URL: migrated, with that many listings and the statistics of its planner."""
    migrate_database(Settings(home=home, database_url=url))
    engine = make_engine(url)
    with engine.begin() as connection:
        indexes = _drop_indexes(connection)
        owners = max(10, listings // 200)
        _seed_few(connection, owners)
        _seed_many(connection, generate(listings, owners))
        _count(connection)
        _go_on_counting(connection)
        for statement in indexes:
            connection.exec_driver_sql(statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE" if engine.dialect.name == "sqlite" else "VACUUM ANALYZE")
    engine.dispose()


def _drop_indexes(connection: Connection) -> list[str]:
    """Drop the indexes of tickets, and the triggers; return the statements that make the indexes again."""
    is_sqlite = connection.dialect.name == "sqlite"
    query = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'ticket' AND sql IS NOT NULL"
    )
    if not is_sqlite:
        query = (
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('ticket', 'ticket_text') "
            "AND indexname LIKE 'ix%%'"
        )
    indexes = connection.exec_driver_sql(query).all()
    for name, _ in indexes:
        connection.exec_driver_sql(f"DROP INDEX {name}")
    if not is_sqlite:
        connection.exec_driver_sql("SET session_replication_role = replica")
    else:
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in connection.exec_driver_sql(triggers).all():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
    return [statement for _, statement in indexes]


def _go_on_counting(connection: Connection) -> None:
    """Let new rows have numbers after those that were inserted with theirs."""
    if connection.dialect.name == "postgresql":
        for name in ("account", "architecture", "blob", "ticket"):
            last = f"(SELECT max(id) FROM {name})"
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), {last})")


def _count(connection: Connection) -> None:
    """Bring the kept counts in line with what was inserted."""
    try:
        from app.tickets.search.counts import install_triggers, recount
    except ImportError:  # a version without them, which this measures as well
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET session_replication_role = origin")
    else:
        install_triggers(connection)
    recount(connection)


def _seed_few(connection: Connection, owners: int) -> None:
    now = datetime(2025, 1, 1, tzinfo=UTC)
    accounts = [{"id": 1 + n, "name": "idle" if n == 0 else f"user-{n}"} for n in range(owners)]
    insert_rows(connection, "account", (row | {"created_at": now, "is_admin": False} for row in accounts))
    graphs = [zoo.build(name, shape, 10) for shape, name in GRAPHS]
    insert_rows(connection, "architecture", (
        {
            "id": number,
            "digest": graph.digest,
            "name": graph.name,
            "family": graph.family,
            "input_shape": list(graph.input),
            "parameters": graph.parameter_count,
            "prunable": graph.prunable_total,
            "flops": graph.flops(),
            "graph": graph.to_manifest(),
            "created_at": now,
        }
        for number, graph in enumerate(graphs, 1)
    ))  # fmt: skip


def _seed_many(connection: Connection, made: Iterator[Made]) -> None:
    """Insert listings, their blobs, tags and words, some at a time."""
    manifest = {"format": "nirvana.ticket/1", "claims": [], "filler": "0123456789abcdef" * 120}
    layers = [{"name": "fc1.weight", "shape": [300, 784], "kept": 1, "total": 235200, "density": 0.1}] * 4
    wide = {"manifest": manifest, "layers": layers}
    tables = set(inspect(connection).get_table_names())
    while some := [one for _, one in zip(range(AT_ONCE), made, strict=False)]:
        blobs = [
            {"id": one.row["id"], "digest": one.row["digest"], "size_bytes": 9000, "media_type": "x"}
            | {"created_at": one.row["created_at"]}
            for one in some
        ]
        insert_rows(connection, "blob", blobs)
        insert_rows(connection, "ticket", (one.row | wide for one in some))
        tags = ({"tag": tag, "ticket_id": one.row["id"]} for one in some for tag in one.tags)
        insert_rows(connection, "ticket_tag", tags)
        insert_rows(connection, *_words(connection, some, "ticket_term" in tables))


def _words(connection: Connection, some: Iterable[Made], as_terms: bool) -> tuple[str, Iterator[Row]]:
    """Return the table of words, and its rows."""
    if as_terms:
        listed = ((term, one.row["id"]) for one in some for term in dict.fromkeys(_terms(one.row, 3)))
        return "ticket_term", ({"term": term, "ticket_id": number} for term, number in listed)
    is_sqlite = connection.dialect.name == "sqlite"
    key, pattern = ("rowid", "{}") if is_sqlite else ("ticket_id", "'{}'")
    return "ticket_text", (
        {
            key: one.row["id"],
            "words": " ".join(
                pattern.format(f"{rank}{term}")
                for rank in (1, 2, 3)
                for term in dict.fromkeys(_terms(one.row, rank))
            ),
        }
        for one in some
    )


def _terms(row: Row, rank: int) -> list[str]:
    about = f"{row['architecture_name']} {row['task']} {row['method']} user {row['owner_id'] - 1}"
    parts = [row["name"], about, row["description"]]
    return " ".join(parts[:rank]).replace("-", " ").split()


def insert_rows(connection: Connection, table: str, rows: Iterable[Row]) -> None:
    """Insert rows in bulk, by the columns that the table has."""
    names = ["rowid", "words"] if table == "ticket_text" else None
    if names is None or connection.dialect.name == "postgresql":
        names = [column["name"] for column in inspect(connection).get_columns(table)]
    listed, driver = list(rows), connection.connection.driver_connection
    assert driver is not None
    if not listed:
        return
    names = [name for name in names if name in listed[0]]
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" for _ in names)
        statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"
        driver.executemany(statement, ([_for_sqlite(row[name]) for name in names] for row in listed))
        return
    with driver.cursor().copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
        for row in listed:
            copy.write_row(
                [json.dumps(v) if isinstance(v := row[name], dict | list) else v for name in names]
            )


def _for_sqlite(value: object) -> object:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    return json.dumps(value) if isinstance(value, dict | list) else value


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def memory_of(pid: int) -> float:
    """Resident MiB of a process and all below it."""
    own = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()
    threads = Path(f"/proc/{pid}/task").glob("*/children")  # each names the processes that it began
    below = [child for thread in threads for child in thread.read_text().split()]
    return (int(own[0]) / 1024 if own else 0.0) + sum(memory_of(int(child)) for child in below)


@contextmanager
def serving(url: str, home: Path, **settings: str) -> Iterator[httpx.Client]:
    """Run the service on a database in a process of its own, whose id is the client's header X-Pid."""
    port = free_port()
    environment = os.environ | {"NIRVANA_DATABASE_URL": url, "NIRVANA_HOME": str(home)} | settings
    command = [sys.executable, "-m", "app", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            client.headers["X-Pid"] = str(process.pid)
            _await(client)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _await(client: httpx.Client) -> None:
    for _ in range(300):
        try:
            client.get("/healthz")
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the service did not start")


def measure(client: httpx.Client, listings: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Return median and 95th percentile of each query, in milliseconds."""
    deep = _deep_cursor(client, listings)
    times: dict[str, tuple[float, float]] = {}
    for name, addresses in QUERIES.items():
        taken = []
        for number in range(-len(addresses), repeats):
            address = addresses[number % len(addresses)].replace("{deep}", deep)
            start = time.perf_counter()
            answer = client.get(address)
            if number >= 0:  # those before warm the caches
                taken.append(1000 * (time.perf_counter() - start))
            if answer.status_code != 200:
                raise SystemExit(f"{address}: {answer.status_code} {answer.text[:300]}")
        taken.sort()
        times[name] = statistics.median(taken), taken[round(0.95 * (len(taken) - 1))]
    return times


def _deep_cursor(client: httpx.Client, listings: int) -> str:
    """Return the cursor of the newest listings that goes on after 1,000 pages, or half of the table."""
    first = client.get("/api/v1/tickets").json()["next_cursor"]
    values = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    number = max(listings - 25_000, listings // 2)
    values[-2:] = [(datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=7 * number)).isoformat(), number]
    return base64.urlsafe_b64encode(json.dumps(values, separators=(",", ":")).encode()).decode().rstrip("=")


@contextmanager
def database(kind: str, home: Path, suffix: str = "") -> Iterator[str]:
    """The URL of an empty database, gone afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{home / 'nirvana.db'}"
        return
    server = make_url(os.environ[POSTGRES])
    name = f"nirvana_bench_{os.getpid()}{suffix}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    admin.dispose()


def print_table(times: Mapping[str, Mapping[str, tuple[float, float]]], listings: int) -> None:
    """Print a row a query, with median and 95th percentile on each database."""
    print(f"{listings:,} listings; p50 / p95 in ms\n")
    print("| query | " + " | ".join(times) + " |\n|---|" + "---|" * len(times))
    for name in QUERIES:
        cells = (f"{one[name][0]:.1f} / {one[name][1]:.1f}" for one in times.values())
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_ratios(
    before: Mapping[str, Mapping[str, Sequence[float]]], after: Mapping[str, Mapping[str, Sequence[float]]]
) -> None:
    """Print a row a query: how many times faster the median is than that of an earlier run."""
    kinds = [kind for kind in after if kind in before]
    print("\n| query, times faster | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    for name in QUERIES:
        ratios = (before[kind][name][0] / after[kind][name][0] for kind in kinds)
        print(f"| {name} | " + " | ".join(f"{ratio:.1f}" for ratio in ratios) + " |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Seed, measure and print; with --save the figures are written down, and with --before compared."""
    parser = argparse.ArgumentParser(prog="benchmarks.registry", description=__doc__)
    parser.add_argument("--listings", type=int, default=100_000)
    both = "sqlite,postgresql" if POSTGRES in os.environ else "sqlite"
    parser.add_argument("--databases", default=both)
    parser.add_argument("--repeats", type=int, default=30, help="requests of each query")
    parser.add_argument("--before", type=Path, help="the figures of an earlier run, by --save")
    parser.add_argument("--save", type=Path, help="a JSON file for the figures")
    args = parser.parse_args(arguments)
    times: dict[str, dict[str, tuple[float, float]]] = {}
    for kind in args.databases.split(","):
        with tempfile.TemporaryDirectory() as folder, database(kind, Path(folder)) as url:
            start = time.monotonic()
            seed(url, Path(folder), args.listings)
            print(f"{kind}: seeded in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            with serving(url, Path(folder)) as client:
                times[kind] = measure(client, args.listings, args.repeats)
    print_table(times, args.listings)
    if args.before:
        print_ratios(json.loads(args.before.read_text())["times"], times)
    if args.save:
        args.save.write_text(json.dumps({"listings": args.listings, "times": times}, indent=1))


if __name__ == "__main__":
    main()
