"""Every test of the command line has a home of its own and no network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import Run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    monkeypatch.delenv("NIRVANA_TOKEN", raising=False)
    return tmp_path / "home"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)
