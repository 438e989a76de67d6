"""The first job's choices, and what `nirvana up` does before anything runs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from nirvana.cli import up
from nirvana.cli.output import Output, mean_and_sd
from nirvana.cli.processes import Child, run, source_folder
from nirvana.cli.welcome import is_won, levels_to_verify
from nirvana.errors import Conflict, TrainingFailed, Unavailable


def level(number: int, density: float) -> dict[str, Any]:
    return {"level": number, "density": density, "name": f"me/level-{number}"}


def test_the_levels_to_verify_follow_from_their_densities_and_the_tenth_comes_first() -> None:
    levels = [level(n, d) for n, d in enumerate((1, 0.6, 0.45, 0.2, 0.1, 0.07))]
    assert [found["level"] for found in levels_to_verify(levels)] == [4, 2]


def test_too_few_levels_are_said_to_be_too_few() -> None:
    with pytest.raises(TrainingFailed, match=r"no level has a density of at most 0\.1: 2 are too few"):
        levels_to_verify([level(0, 1), level(1, 0.5)])


@pytest.mark.parametrize(
    ("first", "other", "won"), [("WINNING", "TRIVIAL", True), ("MATCHING", "WINNING", False)]
)
def test_the_demo_succeeds_only_when_the_level_at_a_tenth_wins(first: str, other: str, won: bool) -> None:
    levels = [level(0, 1), level(1, 0.5), level(2, 0.09), level(3, 0.04)]
    verdicts = {"me/level-1": other, "me/level-2": first, "me/level-3": other}
    evaluations = {name: {"verdict": verdict} for name, verdict in verdicts.items()}
    assert is_won({"levels": levels, "evaluations": evaluations}) is won


def test_accuracies_are_printed_as_mean_and_sd() -> None:
    assert mean_and_sd([0.97, 0.98]) == "97.50 +- 0.71 %"
    assert mean_and_sd([0.97]) == "97.00 %"
    assert mean_and_sd([]) == ""


def test_a_busy_port_is_said_and_another_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as busy:
        busy.bind((up.HOST, 0))
        busy.listen()
        port = busy.getsockname()[1]
        taken = up._free_port(port, Output())
    assert taken != port
    assert f"port {port} is busy, so that the service takes {taken}" in capsys.readouterr().err


def test_a_home_holds_one_registry_at_a_time(tmp_path: Path) -> None:
    with up._only_one(tmp_path), pytest.raises(Conflict, match="another `nirvana up` runs in"):
        up._only_one(tmp_path).__enter__()
    with up._only_one(tmp_path):
        pass


def test_an_account_is_named_after_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "Ada.Lovelace_1815-")
    assert up._account_name() == "ada-lovelace-1815"
    monkeypatch.setenv("LOGNAME", "---")
    assert up._account_name() == "me"


def test_a_command_that_fails_is_said_with_its_last_words() -> None:
    with pytest.raises(Unavailable, match=r"python -m json\.tool .* ended with exit code 2.*no-such-option"):
        run("json.tool", ["--no-such-option"], {})


def test_a_child_is_stopped_and_leaves_its_log(tmp_path: Path) -> None:
    child = Child("server", "http.server", ("--bind", "127.0.0.1", "0"), {}, tmp_path / "server.log")
    assert not child.has_ended
    child.stop(5)
    assert child.has_ended


def test_a_child_that_fails_gives_its_last_words(tmp_path: Path) -> None:
    child = Child("service", "no_such_module_anywhere", (), {}, tmp_path / "service.log")
    child._process.wait(10)
    assert child.has_ended
    assert "the service ended with exit code 1" in child.last_words()
    assert "No module named no_such_module_anywhere" in child.last_words()


def test_the_service_is_found_beside_the_library() -> None:
    assert (source_folder() / "app" / "settings.py").is_file()
