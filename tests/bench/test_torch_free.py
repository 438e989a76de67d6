"""The torch-free benchmark: what it counts and how it starts processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import torch_free


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder in the shape of a virtual environment, with this process's Python."""
    packages = tmp_path / "venv" / "lib" / "python3.99" / "site-packages" / "one"
    packages.mkdir(parents=True)
    (packages / "code.so").write_bytes(b"x" * 100_000)
    (tmp_path / "venv" / "bin").mkdir()
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path / "venv"


def test_disk_counts_whole_blocks(environment: Path) -> None:
    assert 100_000 <= torch_free.disk_bytes(environment) < 110_000


@pytest.mark.skipif(sys.platform != "linux", reason="binds a process to a core")
def test_a_processs_peak_is_its_own_and_not_this_ones(environment: Path, tmp_path: Path) -> None:
    here = bytearray(300_000_000)
    here[::4096] = b"x" * len(here[::4096])
    code = "import os; x = b'x' * 100_000_000; print('{\"cores\":', len(os.sched_getaffinity(0)), '}')"
    found = torch_free.measure(environment, [sys.executable, "-c", code], tmp_path)
    assert 100e6 < found.peak_bytes < 200e6
    assert found.answer == {"cores": 1}
    assert found.processor > 0
    assert len(here)


def test_a_command_that_fails_says_what_it_said(environment: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="the reason"):
        torch_free.measure(environment, [sys.executable, "-c", "raise SystemExit('the reason')"], tmp_path)
