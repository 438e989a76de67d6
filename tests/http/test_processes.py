"""The service as a process of its own: killed, on a full disk, and what it logs."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from app.db import make_database
from app.settings import Settings
from app.tickets.models import Listing
from tests.factories import make_ticket
from tests.registry import EACH, TICKET_TYPE, Templates, make_settings, problem

ROOT = Path(__file__).parents[2]
WRITERS = 6  # so that some are committed together


@contextmanager
def serve(settings: Settings, log: Path, file_bytes: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m app serve` with these settings; no file of it may grow past `file_bytes`."""
    fields = ("home", "database_url", "blob_url", "host", "port")
    environment = {f"NIRVANA_{name.upper()}": str(getattr(settings, name)) for name in fields}

    def limit() -> None:
        if file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    with log.open("ab") as stderr:
        command = [sys.executable, "-m", "app", "serve"]
        process = subprocess.Popen(
            command, env=os.environ | environment, cwd=ROOT, stderr=stderr, preexec_fn=limit
        )
    try:
        wait_until_ready(settings.public_url, process)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    patience = time.monotonic() + 30
    while time.monotonic() < patience:
        assert process.poll() is None, "the service ended"
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the service did not start")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(params=EACH)
def settings(request: pytest.FixtureRequest, templates: Templates, tmp_path: Path) -> Iterator[Settings]:
    home = tmp_path / "home"
    home.mkdir()
    with templates.copy(request.param, home) as url:
        yield make_settings(home, database_url=url, port=free_port())


def make_token(settings: Settings) -> str:
    environment = {"NIRVANA_HOME": str(settings.home), "NIRVANA_DATABASE_URL": settings.database_url}
    command = [sys.executable, "-m", "app", "token", "--account", "ada"]
    made = subprocess.run(command, env=os.environ | environment, cwd=ROOT, check=True, capture_output=True)
    return made.stdout.decode().strip()


def publish(url: str, token: str, data: bytes, name: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": TICKET_TYPE}
    return httpx.post(f"{url}/api/v1/tickets", params={"name": name}, content=data, headers=headers)


def count_tickets(settings: Settings) -> int:
    database = make_database(settings)
    with database.read() as session:
        found = session.scalar(select(func.count()).select_from(Listing))
    database.dispose()
    return found or 0


def test_nothing_that_was_answered_is_lost_when_the_service_is_killed(
    settings: Settings, tmp_path: Path
) -> None:
    token, url, log = make_token(settings), settings.public_url, tmp_path / "log"
    data = [make_ticket(seed=seed).to_bytes() for seed in range(300)]
    answered: list[int] = []

    def publish_all(first: int) -> None:
        for number in range(first, len(data), WRITERS):
            try:
                if publish(url, token, data[number], f"t{number}").status_code == 201:
                    answered.append(number)
            except httpx.TransportError:
                return

    with serve(settings, log) as process:
        writers = [threading.Thread(target=publish_all, args=(first,)) for first in range(WRITERS)]
        for writer in writers:
            writer.start()
        patience = time.monotonic() + 20
        while len(answered) < 20 and time.monotonic() < patience:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        for writer in writers:
            writer.join()
    assert 20 <= len(answered) < len(data)
    with serve(settings, log):
        for number in answered:
            file = httpx.get(f"{url}/api/v1/tickets/ada/t{number}/file")
            assert file.content == data[number]
        for number in range(len(answered) + 4):  # those that were not answered can be sent again
            assert publish(url, token, data[number], f"t{number}").status_code in (200, 201)


@pytest.fixture
def sqlite_settings(templates: Templates, tmp_path: Path) -> Iterator[Settings]:
    home = tmp_path / "home"
    home.mkdir()
    with templates.copy("sqlite", home) as url:
        yield make_settings(home, database_url=url, port=free_port())


def test_a_full_disk_while_publishing_is_said_and_leaves_nothing_half_written(
    sqlite_settings: Settings, tmp_path: Path
) -> None:
    """The kernel refuses to let any file of the service grow past the size of the database as it is."""
    settings, log = sqlite_settings, tmp_path / "log"
    token = make_token(settings)
    data = make_ticket("mlp-1200", density=0.9, stored=True).to_bytes()
    room = 200_000
    assert len(data) > room
    with serve(settings, log, file_bytes=room):
        problem(publish(settings.public_url, token, data, "big"), 507, "storage-full")
        shown = httpx.get(f"{settings.public_url}/api/v1/tickets/ada/big")
        problem(shown, 404, "not-found")
    assert count_tickets(settings) == 0
    assert not [path for path in (settings.home / "blobs").rglob("*") if path.is_file()]
    with serve(settings, log):
        assert publish(settings.public_url, token, data, "big").status_code == 201


def test_logs_are_lines_of_json_without_tokens_or_queries(sqlite_settings: Settings, tmp_path: Path) -> None:
    settings, log = sqlite_settings, tmp_path / "log"
    token = make_token(settings)
    with serve(settings, log) as process:
        headers = {"Authorization": f"Bearer {token}"}
        httpx.get(f"{settings.public_url}/api/v1/tickets?q=needle", headers=headers)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    asked = next(line for line in lines if line.get("path") == "/api/v1/tickets")
    assert (asked["status"], asked["method"]) == (200, "GET")
    assert token not in log.read_text()
    assert "needle" not in log.read_text()


def test_the_service_starts_without_heavy_packages_in_150_megabytes(
    sqlite_settings: Settings, tmp_path: Path
) -> None:
    """Its seconds are measured by `python -m benchmarks startup`."""
    probe = "import sys, json, app.main; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = json.loads(ran.stdout)
    assert "app.main" in loaded
    assert not {"torch", "scipy", "numba", "dbos", "alembic", "pandas", "markdown_it"} & set(loaded)
    with serve(sqlite_settings, tmp_path / "log") as process:
        status = Path(f"/proc/{process.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident < 150 * 1024


def test_a_database_that_was_not_migrated_is_said_in_one_line(tmp_path: Path) -> None:
    environment = os.environ | {"NIRVANA_HOME": str(tmp_path), "NIRVANA_DATABASE_URL": ""}
    command = [sys.executable, "-m", "app", "serve", "--port", "1"]
    ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 4
    assert "python -m app migrate" in ran.stderr
    assert "Traceback" not in ran.stderr
