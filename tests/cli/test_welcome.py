"""The first job's choices, and what `nirvana up` does before anything runs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from nirvana.cli import up
from nirvana.cli.children import Child, run, source_folder
from nirvana.cli.output import Output, mean_and_sd
from nirvana.cli.welcome import choose_level, is_won
from nirvana.errors import Conflict, TrainingFailed, Unavailable


def level(number: int, density: float, validation: float) -> dict[str, Any]:
    return {"level": number, "density": density, "early_stop_validation_accuracy": validation}


def test_the_sparsest_level_that_validates_as_well_as_dense_is_verified() -> None:
    levels = [level(0, 1, 0.98), level(1, 0.09, 0.985), level(2, 0.07, 0.972), level(3, 0.05, 0.96)]
    assert choose_level(levels, margin=0.01)["level"] == 2


def test_where_no_level_does_as_well_the_densest_sparse_one_is_verified() -> None:
    levels = [level(0, 1, 0.98), level(1, 0.5, 0.98), level(2, 0.09, 0.9), level(3, 0.05, 0.8)]
    assert choose_level(levels, margin=0.01)["level"] == 2


def test_too_few_levels_are_said_to_be_too_few() -> None:
    with pytest.raises(TrainingFailed, match=r"no level has a density of at most 0\.1: 2 levels are too few"):
        choose_level([level(0, 1, 0.98), level(1, 0.5, 0.98)], margin=0.01)


@pytest.mark.parametrize(
    ("verdict", "density", "won"),
    [("WINNING", 0.1, True), ("WINNING", 0.11, False), ("MATCHING", 0.05, False), ("TRIVIAL", 0.05, False)],
)
def test_the_demo_succeeds_only_with_a_sparse_winning_ticket(verdict: str, density: float, won: bool) -> None:
    outcome = {"evaluation": {"verdict": verdict}, "verified": {"density": density}}
    assert is_won(outcome) is won


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
