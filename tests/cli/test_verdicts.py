"""nirvana verify: its options, and how an evaluation is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nirvana.cli import main
from nirvana.cli.output import Output
from nirvana.cli.verify import print_verdict
from nirvana.verification.protocol import ARMS
from tests.factories import make_ticket
from tests.lab.small import SMALL


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")


@pytest.fixture
def ticket(tmp_path: Path) -> str:
    make_ticket().write(tmp_path / "a.ticket")
    return str(tmp_path / "a.ticket")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["verify", *arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def kept_runs(tmp_path: Path) -> int:
    return len(list((tmp_path / "home").glob("runs/??/*.json")))


def test_runs_are_kept_in_the_users_home_and_taken_from_there(
    capsys: pytest.CaptureFixture[str], ticket: str, tmp_path: Path
) -> None:
    first = json.loads(run(capsys, ticket, "--replicates", "2", "--json", "-q")[1])
    assert kept_runs(tmp_path) == 2 * (len(ARMS) - 2) + 2 * 4
    seed = str(first["seed"])
    again = json.loads(run(capsys, ticket, "--replicates", "2", "--seed", seed, "--json", "-q")[1])
    assert (first["cost"]["trainings"], again["cost"]["trainings"]) == (2 * (len(ARMS) - 2) + 2 * 4, 2)
    assert again["arms"] == first["arms"]


def test_no_cache_keeps_no_run(capsys: pytest.CaptureFixture[str], ticket: str, tmp_path: Path) -> None:
    assert run(capsys, ticket, "--replicates", "2", "--no-cache", "-q")[0] in (0, 6)
    assert kept_runs(tmp_path) == 0


def test_the_table_shows_every_arm_and_what_it_cost(capsys: pytest.CaptureFixture[str], ticket: str) -> None:
    _, out, _ = run(capsys, ticket, "--replicates", "2", "--max-replicates", "4", "--stability", "-q")
    for arm in ARMS:
        assert f" {arm} " in out
    assert "cost: " in out
    assert "dense ones" in out
    assert "early stop, dense / ticket" in out


def test_failed_replicates_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    failing = make_ticket(recipe=SMALL.override({"learning_rate": 1e30}).to_dict())
    failing.write(tmp_path / "failing.ticket")
    _, out, _ = run(capsys, str(tmp_path / "failing.ticket"), "--replicates", "2", "-q")
    row = next(line for line in out.splitlines() if line.strip().startswith("ticket"))
    assert row.split()[-3:] == ["2", "2", "0"], "replicates, failed, cached"
    assert "10.00 +- 0.00 %" in row


@pytest.mark.parametrize("option", [["--stability"], ["--no-cache"]])
def test_what_only_happens_here_is_refused_for_the_service(
    capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    code, _, err = run(capsys, "ada/first", *option)
    assert code == 2
    assert "need --local" in err


def test_a_cap_out_of_range_is_said_in_one_line(capsys: pytest.CaptureFixture[str], ticket: str) -> None:
    code, _, err = run(capsys, ticket, "--replicates", "5", "--max-replicates", "50")
    assert code == 2
    assert "max_replicates is 50, expected 5 to 20" in err


def test_what_gate_0_refuses_is_shown_without_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    empty: dict[str, Any] = {"verdict": "INVALID", "reason": "trained weights", "margin": 0.01, "arms": {}}
    print_verdict(Output(), empty | {"badges": {}, "tracks": {}, "cost": {}})
    assert capsys.readouterr().out == "INVALID: trained weights (margin 1.0 %)\n"


def test_evaluations_of_protocol_1_are_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    arms = {"dense": [0.97, 0.98], "ticket": [0.97, 0.96]}
    old = {"verdict": "WINNING", "reason": "it wins", "margin": 0.01, "arms": arms}
    print_verdict(Output(), old | {"cost": {"seconds": 3.0}})
    out = capsys.readouterr().out
    assert "97.50 +- 0.71 %" in out
    assert out.splitlines()[-1] == "WINNING: it wins (margin 1.0 %)"


def test_looks_tracks_and_badges_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    looks = [
        {"n": 5, "alpha": 0.03, "verdict": "INCONCLUSIVE"},
        {"n": 10, "alpha": 0.02, "verdict": "WINNING"},
    ]
    said = {"verdict": "WINNING", "reason": "r", "margin": 0.01, "arms": {}, "looks": looks}
    badges = {"FAST": True, "STABLE": None, "TRAINABLE": False}
    track = {"supermask": {"verdict": "SUPERMASK", "reason": "it reaches its claim"}}
    print_verdict(Output(), said | {"badges": badges, "tracks": track})
    out = capsys.readouterr().out
    assert "looks: INCONCLUSIVE at 5 (alpha 0.03), WINNING at 10 (alpha 0.02)" in out
    assert "supermask: SUPERMASK: it reaches its claim" in out
    assert "badges: FAST\n" in out
