"""What a connection may cost before and while a request comes, on the server as it is started."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from app.limits.service import Connections
from app.settings import Settings
from tests.http.test_processes import free_port, serve
from tests.registry import Templates, make_settings

Connect = Callable[[Settings], socket.socket]


@contextmanager
def running(templates: Templates, home: Path, **fields: object) -> Iterator[Settings]:
    """A service of one's own as a process, with these settings."""
    home.mkdir()
    with templates.copy("sqlite", home) as url, ExitStack() as stack:
        settings = make_settings(home, database_url=url, port=free_port())
        for name, value in fields.items():
            variable = f"NIRVANA_{name.upper()}"
            stack.callback(os.environ.pop, variable, None)
            os.environ[variable] = str(value)
        stack.enter_context(serve(settings, home / "log"))
        yield settings


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open a connection to a service; it is closed at the end."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(
            socket.create_connection(("127.0.0.1", settings.port), timeout=10)
        )


def read_all(sock: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    try:
        while chunk := sock.recv(65_536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_a_head_that_comes_drop_by_drop_is_cut_off_and_others_are_not(
    templates: Templates, tmp_path: Path, connect: Connect
) -> None:
    with running(templates, tmp_path / "home", header_seconds=1) as settings:
        silent, slow, second = connect(settings), connect(settings), connect(settings)
        began = time.monotonic()
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nX: ")
        dropped = False
        while not dropped and time.monotonic() - began < 8:
            try:
                slow.sendall(b"G" if time.monotonic() - began < 0.1 else b"E")
                time.sleep(0.2)
            except (BrokenPipeError, ConnectionResetError):
                dropped = True
        assert dropped, "a byte now and then kept the connection open"
        assert read_all(silent) == b""
        assert read_all(second).startswith(b"HTTP/1.1 200 OK")
        assert httpx.get(f"{settings.public_url}/healthz").status_code == 200


def test_a_head_over_the_bound_is_refused(templates: Templates, tmp_path: Path, connect: Connect) -> None:
    with running(templates, tmp_path / "home", max_header_bytes=2048) as settings:
        fits = httpx.get(f"{settings.public_url}/healthz", headers={"X-Long": "x" * 1500})
        assert fits.status_code == 200
        sock = connect(settings)
        sock.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * 4096)
        assert read_all(sock).startswith(b"HTTP/1.1 400")


def test_a_body_that_does_not_end_is_408(templates: Templates, tmp_path: Path, connect: Connect) -> None:
    with running(templates, tmp_path / "home", body_seconds=1) as settings:
        sock = connect(settings)
        head = b"POST /api/v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        sock.sendall(head + b"Content-Length: 100\r\nConnection: close\r\n\r\n{")
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 408"), answer
        assert b"application/problem+json" in answer


def test_an_address_has_only_so_many_connections_open(
    templates: Templates, tmp_path: Path, connect: Connect
) -> None:
    with running(templates, tmp_path / "home", max_connections_per_address=5) as settings:
        time.sleep(0.5)  # the one that asked whether it is ready is gone
        held = [connect(settings) for _ in range(5)]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{settings.public_url}/healthz")
        for one in held:
            one.close()
        time.sleep(0.5)
        assert httpx.get(f"{settings.public_url}/healthz").status_code == 200


def test_only_a_trusted_proxy_names_the_address_and_has_as_many_connections_as_it_likes(
    templates: Templates, tmp_path: Path, connect: Connect
) -> None:
    rates = '{"search": "1/hour"}'
    first, other = ({"X-Forwarded-For": address} for address in ("198.51.100.7", "198.51.100.8"))
    with running(templates, tmp_path / "open", rates=rates) as settings:
        url = f"{settings.public_url}/api/v1/tickets"
        assert [httpx.get(url, headers=one).status_code for one in (first, other)] == [200, 429]
    behind = {"rates": rates, "trusted_proxies": "127.0.0.0/8, ::1", "max_connections_per_address": 1}
    with running(templates, tmp_path / "behind", **behind) as settings:
        url = f"{settings.public_url}/api/v1/tickets"
        held = [connect(settings) for _ in range(3)]
        assert [httpx.get(url, headers=one).status_code for one in (first, other, first)] == [200, 200, 429]
        assert len(held) == 3


def test_connections_are_counted_by_address_and_forgotten(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, max_connections_per_address=1, trusted_proxies="10.0.0.0/8")
    connections = Connections(settings)
    assert [connections.enter("198.51.100.7") for _ in range(2)] == [True, False]
    assert [connections.enter("10.1.2.3") for _ in range(2)] == [True, True]
    connections.leave("198.51.100.7")
    connections.leave("198.51.100.7")
    assert connections.enter("198.51.100.7")
    assert connections.enter("")


def test_two_processes_share_rates_and_metrics_and_end_with_the_first(
    templates: Templates, tmp_path: Path
) -> None:
    home, rates = tmp_path / "home", '{"search": "20/hour"}'
    home.mkdir()
    with templates.copy("sqlite", home) as url:
        settings = make_settings(home, database_url=url, port=free_port())
        os.environ |= {"NIRVANA_WORKERS": "2", "NIRVANA_RATES": rates}
        try:
            with serve(settings, home / "log") as process:
                statuses = [httpx.get(f"{settings.public_url}/api/v1/tickets").status_code for _ in range(40)]
                text = httpx.get(f"{settings.public_url}/metrics").text
                children = children_of(process.pid)
                assert len(children) >= 2
                process.send_signal(signal.SIGKILL)
                process.wait()
                patience = time.monotonic() + 20
                while any(is_serving(pid) for pid in children) and time.monotonic() < patience:
                    time.sleep(0.1)
                assert not any(is_serving(pid) for pid in children), "a process outlived the first one"
        finally:
            for name in ("NIRVANA_WORKERS", "NIRVANA_RATES"):
                os.environ.pop(name)
    assert sorted(statuses) == [200] * 20 + [429] * 20
    for status in (200, 429):
        line = f'nirvana_requests_total{{method="GET",route="/api/v1/tickets",status="{status}"}} 20.0'
        assert line in text, text
    assert 'nirvana_jobs{state="queued"} 0.0' in text


def children_of(pid: int) -> list[int]:
    """The processes that a process has begun."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_serving(pid: int) -> bool:
    """Tell whether a process is there and answers requests."""
    try:
        return (
            "app.server" in Path(f"/proc/{pid}/cmdline").read_text()
            or "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
        )
    except OSError:
        return False
