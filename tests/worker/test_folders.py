"""The folders of rounds: a worker that was killed leaves one, and the next worker removes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.registry import EACH, Templates
from tests.worker.arena import ROOT, open_arena
from worker.folders import PREFIX, RoundsFolder, remove_stale_folders

HOLD = """
import time
from worker.folders import RoundsFolder
held = RoundsFolder()
(held.path / "round-1").mkdir()
(held.path / "round-1" / "level.ticket").write_bytes(b"x")
print(held.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_stays_as_long_as_its_worker_lives_and_goes_once_it_is_killed(temporary: Path) -> None:
    environment = os.environ | {"TMPDIR": str(temporary)}
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert remove_stale_folders() == 0
        assert (folder / "round-1" / "level.ticket").exists()
        process.kill()
    assert remove_stale_folders() == 1
    assert not folder.exists()


def test_what_is_no_workers_folder_stays(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary / f"{PREFIX}no-lock").mkdir()
    held = RoundsFolder()
    assert remove_stale_folders() == 0
    held.remove()
    assert sorted(path.name for path in temporary.iterdir()) == [
        "elsewhere",
        f"{PREFIX}link",
        f"{PREFIX}no-lock",
    ]


@pytest.mark.parametrize("kind", EACH[:1])
def test_a_worker_that_starts_after_one_was_killed_in_a_round_clears_up(
    templates: Templates, tmp_path: Path, kind: str
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    with open_arena(templates, kind, home) as arena:
        worker = arena.run(TMPDIR=str(temporary))
        job = arena.submit(recipe={"steps": 10**7, "evaluate_every": 100})
        arena.wait_for_point(job, level=0)
        (killed,) = temporary.glob(f"{PREFIX}*")
        assert list(killed.glob("round-*"))
        worker.kill()
        worker.wait(10)
        assert killed.exists()
        arena.run(TMPDIR=str(temporary))
        arena.wait_for(lambda: not killed.exists())
