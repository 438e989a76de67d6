"""The run cache: what was trained before is not trained again, but for the ticket itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from nirvana.format.ticket import Ticket
from nirvana.lab import ArmResult, RunCache, run_arm
from nirvana.verification.runs import find_cache
from tests.factories import make_ticket
from tests.lab.small import SMALL, digits, few


@pytest.fixture
def cache(tmp_path: Path) -> RunCache:
    return RunCache(tmp_path / "runs")


def files(cache: RunCache) -> list[Path]:
    return sorted(cache.folder.glob("??/*.json"))


def numbers(found: ArmResult) -> dict[str, Any]:
    """What was measured, without what it cost and where it came from."""
    return found.to_dict() | dict.fromkeys(("cost", "cached", "cached_cost", "repeated"))


def test_dense_and_control_runs_are_taken_from_the_cache_and_say_so(cache: RunCache) -> None:
    first = run_arm(make_ticket(), "dense", digits(), replicates=2, cache=cache)
    again = run_arm(make_ticket(), "dense", digits(), replicates=3, cache=cache)
    assert (first.cached, again.cached) == ([False, False], [True, True, False])
    assert again.accuracies[:2] == first.accuracies
    assert again.early_stop_steps[:2] == first.early_stop_steps
    assert again.cached_cost.images == first.cost.images == 2 * again.cost.images
    assert len(files(cache)) == 3
    assert all(path.parent.name == path.name[:2] for path in files(cache))


def test_a_cached_arm_is_the_arm_that_would_have_been_trained(cache: RunCache) -> None:
    for arm in ("reinit", "shuffle", "magnitude"):
        trained = run_arm(make_ticket(), arm, digits(), replicates=2)
        run_arm(make_ticket(), arm, digits(), replicates=2, cache=cache)
        cached = run_arm(make_ticket(), arm, digits(), replicates=2, cache=cache)
        assert cached.cached == [True, True]
        assert cached.cost.seconds == 0
        assert numbers(cached) == numbers(trained)


def test_the_ticket_arm_is_always_trained_and_says_whether_it_was_the_same(cache: RunCache) -> None:
    first, again = (run_arm(make_ticket(), "ticket", digits(), replicates=2, cache=cache) for _ in range(2))
    assert first.cached == again.cached == [False, False]
    assert (first.repeated, first.differing) == (0, 0)
    assert (again.repeated, again.differing) == (2, 0)
    change(files(cache)[0], lambda record: record["run"].update(accuracy=0.5))
    altered = run_arm(make_ticket(), "ticket", digits(), replicates=2, cache=cache)
    assert (altered.repeated, altered.differing) == (1, 1)


def change(path: Path, edit: Any) -> None:
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def test_tickets_that_share_their_initial_values_share_the_dense_runs(cache: RunCache) -> None:
    run_arm(make_ticket(density=0.2), "dense", digits(), replicates=1, cache=cache)
    other = make_ticket(density=0.1, stored=True)
    assert run_arm(other, "dense", digits(), replicates=1, cache=cache).cached == [True]
    later = dataclasses.replace(make_ticket(), recipe=pruned_otherwise())
    assert run_arm(later, "dense", digits(), replicates=1, cache=cache).cached == [True]


def pruned_otherwise() -> dict[str, Any]:
    recipe = dict(make_ticket().recipe)
    return recipe | {"pruning": {**recipe["pruning"], "rate": 0.5}}


CHANGES: dict[str, Any] = {
    "values": lambda ticket: make_ticket(seed=18),
    "recipe": lambda ticket: dataclasses.replace(ticket, recipe=SMALL.to_dict()),
    "architecture": lambda ticket: make_ticket("mlp-8"),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_another_training_is_another_run(cache: RunCache, changed: str) -> None:
    ticket: Ticket = make_ticket()
    run_arm(ticket, "random", digits(), replicates=1, cache=cache)
    found = run_arm(CHANGES[changed](ticket), "random", digits(), replicates=1, cache=cache)
    assert found.cached == [False]


def test_changed_data_other_masks_and_other_environments_are_other_runs(cache: RunCache) -> None:
    run_arm(make_ticket(), "reinit", digits(), replicates=1, cache=cache)
    for ticket, data in ((make_ticket(), few(digits(), 200)), (make_ticket(density=0.3), digits())):
        assert run_arm(ticket, "reinit", data, replicates=1, cache=cache).cached == [False]
    for path in files(cache):
        change(path, lambda record: record["environment"].update(torch="1.0"))
    assert run_arm(make_ticket(), "reinit", digits(), replicates=1, cache=cache).cached == [False]


BROKEN: dict[str, Any] = {
    "empty": lambda text: "",
    "cut off": lambda text: text[:-20],
    "no JSON": lambda text: "\x00\xff",
    "a list": lambda text: "[]",
    "deep": lambda text: "[" * 100_000,
    "NaN": lambda text: text.replace('"accuracy": ', '"accuracy": NaN, "x": '),
    "no share": lambda text: text.replace('"accuracy": 0', '"accuracy": 7'),
    "a word": lambda text: text.replace('"early_stop_step": ', '"early_stop_step": "x", "y": '),
    "another key": lambda text: text.replace('"key": "', '"key": "0'),
    "another format": lambda text: text.replace("nirvana-run/2", "nirvana-run/9"),
    "too long": lambda text: text + " " * 2**20,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_ignored_and_written_again(cache: RunCache, how: str) -> None:
    expected = run_arm(make_ticket(), "dense", digits(), replicates=1, cache=cache)
    (path,) = files(cache)
    text = path.read_text()
    path.write_text(BROKEN[how](text))
    found = run_arm(make_ticket(), "dense", digits(), replicates=1, cache=cache)
    assert found.cached == [False]
    assert found.accuracies == expected.accuracies
    assert run_arm(make_ticket(), "dense", digits(), replicates=1, cache=cache).cached == [True]


def test_a_folder_that_cannot_be_written_stops_no_verification(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    found = run_arm(make_ticket(), "dense", digits(), replicates=1, cache=RunCache(tmp_path / "runs"))
    assert found.cached == [False]


def test_a_failed_run_is_kept_as_failed(cache: RunCache) -> None:
    ticket = make_ticket(recipe=SMALL.override({"learning_rate": 1e30}).to_dict())
    for cached in (False, True):
        found = run_arm(ticket, "dense", digits(), replicates=1, cache=cache)
        assert (found.failed, found.accuracies, found.cached) == ([True], [0.1], [cached])


def test_the_cache_of_this_user_lies_in_its_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path))
    assert find_cache("home") == RunCache(tmp_path / "runs")
    assert find_cache(None) is None
