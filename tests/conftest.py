"""What every ring of tests shares: migrated databases, and no silent skips under CI."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.registry import Templates

MAY_BE_MISSING = ("data set not here", "no CUDA device here")  # for these CI lets a test be skipped
_skipped: list[str] = []
os.environ.pop("COLUMNS", None)  # pytest-xdist says 80 to its processes; our tables are as wide as for a pipe


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Templates]:
    """Migrated databases of each kind, of which every test gets a copy."""
    made = Templates(tmp_path_factory.mktemp("template"))
    yield made
    made.drop()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what was skipped for another reason than a missing data set or GPU."""
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
    if report.skipped and not any(allowed in reason for allowed in MAY_BE_MISSING):
        _skipped.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI a test that should run and was skipped fails the run."""
    if os.environ.get("CI") == "true" and _skipped:
        print("\nskipped under CI:", *_skipped, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
