"""The command line in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nirvana.cli import main


class Run:
    """Runs a verb; exit code, stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    def json(self, *arguments: str | Path) -> Any:
        """What it prints with --json; it must end well."""
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)
