"""The same seed gives the same bytes as at the commit that `golden.json` names.

The file holds digests for the processors and library versions that it was written on; elsewhere that
commit's library is taken out of the repository and asked. After a change that is meant to change bits:
commit it, then `make golden`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.golden import cases

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    text = json.loads((HERE / "golden.json").read_text())
    assert isinstance(text, dict)
    return text


def test_masks_that_need_no_training_are_the_same_everywhere(golden: dict[str, Any]) -> None:
    assert cases.compute(cases.PORTABLE) == golden["portable"]


@pytest.mark.timeout(900)
def test_tickets_and_evaluations_are_the_same_byte_for_byte(golden: dict[str, Any], tmp_path: Path) -> None:
    expected = golden["machines"].get(cases.machine()) or _ask(golden["commit"], tmp_path)
    assert cases.compute(cases.TRAINING) == expected


def _ask(commit: str, folder: Path) -> dict[str, str]:
    """Return what the library of a commit gives on this machine."""
    archive = folder / "old.tar"
    command = ["git", "-C", str(ROOT), "archive", "-o", str(archive), commit, "nirvana"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"commit {commit} is not in this clone, and golden.json does not know this processor")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    environment = os.environ | {"PYTHONPATH": str(folder)}
    run = subprocess.run(
        [sys.executable, str(HERE / "cases.py")],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        cwd=folder,
    )
    digests: dict[str, str] = json.loads(run.stdout)["training"]
    return digests
