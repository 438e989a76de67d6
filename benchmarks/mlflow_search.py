"""Search beside MLflow's model registry: `python -m benchmarks.mlflow_search --models 100000`.

Both are asked over loopback for a page of 100 of one task and one method, on the same PostgreSQL server, in
turns. MLflow has an environment of its own, because it pins what we pin otherwise:

    python -m venv .mlflow-venv && .mlflow-venv/bin/pip install 'mlflow>=3,<4' psycopg2-binary

Its models are inserted by SQL, each with one version and the tags that our listings have as columns. A range
of numbers (`density=max:0.05`) is what it refuses: its tags are texts, and know `=` and `LIKE` alone.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import Connection, create_engine, inspect, make_url

from benchmarks.measuring import row, table
from benchmarks.registry import POSTGRES, Made, database, free_port, generate, memory_of, seed, serving

ROOT = Path(__file__).parents[1]
MLFLOW = ROOT / ".mlflow-venv" / "bin" / "mlflow"
OURS = "/api/v1/tickets?task=mnist&method=imp&limit=100"
THEIRS = (
    "/api/2.0/mlflow/registered-models/search?max_results=100&filter="
    "tags.task%20%3D%20%27mnist%27%20AND%20tags.method%20%3D%20%27imp%27"
)
RANGE = "/api/2.0/mlflow/registered-models/search?max_results=100&filter=tags.density%20%3C%200.05"
AT_ONCE, TURNS, LEAST_BYTES = 20_000, 3, 10_000


def seed_mlflow(url: str, models: int) -> None:
    """Fill an empty database: MLflow's own tables, then models with tags and a version each."""
    plain = make_url(url).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    environment = os.environ | {"MLFLOW_ENABLE_WORKSPACES": "false"}
    subprocess.run([MLFLOW, "db", "upgrade", plain], check=True, capture_output=True, env=environment)
    engine = create_engine(url)
    made = generate(models, max(10, models // 200))
    with engine.begin() as connection:
        while some := [one for _, one in zip(range(AT_ONCE), made, strict=False)]:
            _insert(connection, some)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()


def _insert(connection: Connection, some: Sequence[Made]) -> None:
    now = 1_750_000_000_000
    times = {"creation_time": now, "last_updated_time": now}
    models = [{"name": one.row["name"], "description": one.row["description"]} | times for one in some]
    _copy(connection, "registered_models", models)
    named = ("task", "method", "architecture_name", "density", "accuracy", "license")
    tags = [
        {"name": one.row["name"], "key": key, "value": str(one.row[key])} for one in some for key in named
    ]
    _copy(connection, "registered_model_tags", tags)
    version = {"version": 1, "current_stage": "None", "status": "READY", "source": "s3://x/y", "run_id": "r"}
    _copy(connection, "model_versions", [{"name": one.row["name"]} | times | version for one in some])


def _copy(connection: Connection, table_name: str, rows: Sequence[dict[str, object]]) -> None:
    """Insert rows; columns that a version of MLflow has and we do not know keep their defaults."""
    known = {column["name"] for column in inspect(connection).get_columns(table_name)}
    names = [name for name in rows[0] if name in known]
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor().copy(f"COPY {table_name} ({', '.join(names)}) FROM STDIN") as copy:
        for one in rows:
            copy.write_row([one[name] for name in names])


@contextmanager
def serving_mlflow(url: str, home: Path) -> Iterator[httpx.Client]:
    """Run MLflow's server, with one process, on a database."""
    port = free_port()
    plain = make_url(url).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    command = [
        str(MLFLOW),
        "server",
        "--backend-store-uri",
        plain,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--workers", "1", "--artifacts-destination", str(home)]
    environment = os.environ | {"PATH": f"{MLFLOW.parent}:{os.environ['PATH']}"}
    log = (home / "mlflow.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            client.headers["X-Pid"] = str(process.pid)
            _await(client)
            yield client
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _await(client: httpx.Client) -> None:
    for _ in range(600):
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit("MLflow's server did not start")


def _check(client: httpx.Client, path: str, items: str) -> None:
    """Ask once, and check that the page is whole."""
    answer = client.get(path)
    if answer.status_code != 200 or len(answer.json()[items]) != 100:
        raise SystemExit(f"{path}: {answer.status_code} {answer.text[:300]}")


def load(port: int, path: str, requests: int, clients: int) -> tuple[float, list[float]]:
    """Return requests a second, and the seconds of each. The standard library asks, because a client that
    reads what it gets would take as much of the two cores as a service."""
    numbers, took = iter(range(requests)), list[float]()

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for _ in numbers:
            began = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            size = len(answer.read())
            took.append(time.perf_counter() - began)
            if answer.status != 200 or size < LEAST_BYTES:
                raise SystemExit(f"{path}: {answer.status}, {size} bytes")
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return requests / (time.perf_counter() - began), took


def compare(models: int, clients: int, requests: int) -> float:
    """Print both registries' search, in turns; return how many times as many requests ours answers."""
    with tempfile.TemporaryDirectory() as folder, database("postgresql", Path(folder)) as url:
        seed(url, Path(folder), models)
        with database("postgresql", Path(folder), "mlflow") as other:
            seed_mlflow(other, models)
            with (
                serving(url, Path(folder), NIRVANA_LIMITS="off") as ours,
                serving_mlflow(other, Path(folder)) as theirs,
            ):
                return _print_table(ours, theirs, clients, requests)


def _print_table(ours: httpx.Client, theirs: httpx.Client, clients: int, requests: int) -> float:
    asked = {"Nirvana": (ours, OURS), "MLflow": (theirs, THEIRS)}
    counts = {"Nirvana": 10 * requests, "MLflow": requests}
    rates = {name: list[float]() for name in asked}
    times = {name: list[float]() for name in asked}
    _check(ours, OURS, "items")
    _check(theirs, THEIRS, "registered_models")
    for _ in range(TURNS):
        for name, (client, path) in asked.items():
            rate, took = load(client.base_url.port or 80, path, counts[name], clients)
            rates[name].append(rate)
            times[name] += took
    refused = theirs.get(RANGE)
    print(table(["registry", "requests a second (least to most)", "p50, ms", "p95, ms", "resident MiB"]))
    for name, (client, _) in asked.items():
        ordered = sorted(times[name])
        p50, p95 = (1000 * ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.95))
        middle, low, high = statistics.median(rates[name]), min(rates[name]), max(rates[name])
        cells = [name, f"{middle:.1f} ({low:.1f} to {high:.1f})", f"{p50:.1f}", f"{p95:.1f}"]
        print(row([*cells, f"{memory_of(int(client.headers['X-Pid'])):,.0f}"]))
    ratio = statistics.median(rates["Nirvana"]) / statistics.median(rates["MLflow"])
    turns = f"in turns of {counts['Nirvana']} and {requests} requests"
    print(f"\n{ratio:.0f} times as many; {clients} clients, {turns}.")
    print(f"A range of numbers is {refused.status_code} there ({refused.json().get('error_code', '')}).")
    return ratio


def main(arguments: Sequence[str] | None = None) -> None:
    """Seed both, measure, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.mlflow_search", description=__doc__)
    parser.add_argument("--models", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=40, help="to MLflow, each of three turns")
    args = parser.parse_args(arguments)
    if not MLFLOW.exists() or POSTGRES not in os.environ:
        raise SystemExit(f"This needs {MLFLOW} and {POSTGRES}; see the head of this file.")
    compare(args.models, args.clients, args.requests)


if __name__ == "__main__":
    main()
