"""Uploads checked in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from app.tickets.files.checking import MOST_THREADS, CheckedTicket, Checker, check_file
from nirvana.errors import InvalidTicket, Unavailable
from nirvana.format.reader import DEFAULT_LIMITS
from tests.factories import make_ticket, put_together, take_apart

DATA = make_ticket().to_bytes()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def checker() -> Iterator[Checker]:
    made = Checker(1, DEFAULT_LIMITS)
    yield made
    made.close()


def check(checker: Checker, data: bytes) -> CheckedTicket:
    return anyio.run(checker.check, data)


def children() -> list[int]:
    """The processes of the pool that check."""
    mine = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        parent = int(status.read_text().rpartition(")")[2].split()[1])
        if parent != os.getpid() and _parent(parent) == os.getpid():
            mine.append(int(status.parent.name))
    return mine


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_a_process_finds_what_a_thread_finds(checker: Checker) -> None:
    assert check(checker, DATA) == check_file(DATA, DEFAULT_LIMITS)


def test_a_bad_file_is_refused_with_its_pointers(checker: Checker) -> None:
    manifest, arrays = take_apart(DATA)
    name = next(iter(manifest["initial"]["sha256"]))
    manifest["initial"]["sha256"][name] = "0" * 64
    with pytest.raises(InvalidTicket) as refused:
        check(checker, put_together(manifest, arrays))
    assert [problem.pointer for problem in refused.value.errors] == [f"/initial/sha256/{name}"]


def test_a_process_that_died_is_said_and_another_takes_its_place(checker: Checker) -> None:
    check(checker, DATA)
    for child in children():
        os.kill(child, signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(Unavailable, match="died"):
        check(checker, DATA)
    assert check(checker, DATA).size_bytes == len(DATA)


def test_processes_are_replaced_after_their_files_and_nobody_waits_for_ever() -> None:
    checker = Checker(2, DEFAULT_LIMITS, files_of_a_process=2)
    seen, digests = set[int](), list[str]()

    async def send() -> None:
        digests.append((await checker.check(DATA)).file_digest)
        seen.update(children())

    async def crowd() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(send)

    anyio.run(crowd)
    checker.close()
    assert len(digests) == 20
    assert len(seen) >= 4


def test_a_crowd_before_a_check_is_refused_and_linting_says_what_checking_does() -> None:
    checker = Checker(0, DEFAULT_LIMITS, most_waiting=2)
    big, refused, reports = make_ticket("mlp-1200", density=0.9, stored=True).to_bytes(), [], []

    async def send() -> None:
        try:
            reports.append(await checker.lint(big))
        except Unavailable as error:
            refused.append(error.extra["retry_after_seconds"])

    async def crowd() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(send)

    anyio.run(crowd)
    assert len(refused) == 8 - MOST_THREADS - 2
    assert all(wait > 0 for wait in refused)
    assert {report.digest for report in reports} == {check_file(big, DEFAULT_LIMITS).fields["digest"]}


def test_its_processes_end_with_it() -> None:
    others = set(children())  # of services that other tests have not ended yet
    checker = Checker(1, DEFAULT_LIMITS)
    check(checker, DATA)
    own = set(children()) - others
    checker.close()
    assert own
    assert not set(children()) & own


OWNER = """
import sys, time, anyio
from app.tickets.files.checking import Checker
from nirvana.format.reader import DEFAULT_LIMITS

if __name__ == "__main__":
    checker = Checker(2, DEFAULT_LIMITS)
    anyio.run(checker.check, open(sys.argv[1], "rb").read())
    print("checked", flush=True)
    time.sleep(60)
"""


def test_its_processes_end_when_their_service_is_killed(tmp_path: Path) -> None:
    ticket, script = tmp_path / "x.ticket", tmp_path / "owner.py"
    ticket.write_bytes(DATA)
    script.write_text(OWNER)
    command = [sys.executable, str(script), str(ticket)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"checked\n"
        started = {pid for pid in _all_processes() if owner.pid in (_parent(pid), _parent(_parent(pid)))}
        owner.kill()
    assert len(started) >= 3  # the fork server, and what it forked
    patience = time.monotonic() + 20
    while started & _all_processes() and time.monotonic() < patience:
        time.sleep(0.1)
    assert not started & _all_processes()


def _all_processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").glob("[0-9]*")}
