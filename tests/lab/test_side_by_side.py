"""Replicates side by side: the same numbers on any number of threads, and nobody left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nirvana.environment import _count_cores, count_threads
from nirvana.errors import Cancelled, Invalid
from nirvana.format.initial import default_laws
from nirvana.format.ticket import Ticket
from nirvana.lab import ARMS, ArmResult, RunCache, run_arm, verify
from nirvana.networks.architecture import Architecture
from nirvana.training.events import OnProgress, Reporter, ShouldStop
from nirvana.training.recipe import Recipe
from nirvana.verification import batches, running
from nirvana.verification.arms import ArmConfig
from nirvana.verification.running import Work, arm_keys, work_off
from tests.factories import make_masks, make_ticket
from tests.lab.small import SMALL, digits, network

GELU_RECIPE = SMALL.override({"steps": 10, "evaluate_every": 5})


def train_arms(
    ticket: Ticket,
    arms: Sequence[str],
    replicates: int,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    **options: Any,
) -> dict[str, ArmResult]:
    """Arms of a ticket of digits by its own recipe."""
    config = ArmConfig(ticket, "ticket", digits(), Recipe.from_dict(dict(ticket.recipe)))
    return running.run_arms(config, arms, range(replicates), Reporter(progress, should_stop), **options)


def numbers(found: dict[str, ArmResult]) -> dict[str, Any]:
    """What must not depend on threads."""
    return {arm: {**result.to_dict(), "cost": 0, "cached_cost": 0} for arm, result in found.items()}


def gelu_ticket() -> Ticket:
    """One that the sparse engine cannot train and whose replicates stack."""
    nodes = [dict(node) | ({"op": "gelu"} if node["op"] == "relu" else {}) for node in network().nodes]
    architecture = Architecture.make("gelu", (1, 8, 8), nodes)
    return Ticket.create(
        architecture,
        make_masks(architecture),
        task="digits",
        recipe=GELU_RECIPE.to_dict(),
        laws=default_laws(architecture),
        seed=3,
    )


@pytest.mark.parametrize("cached", [False, True])
def test_any_number_of_threads_measures_the_same(tmp_path: Path, cached: bool) -> None:
    ticket, results = make_ticket(density=0.1), list[dict[str, Any]]()
    for threads in (1, 2, 5):
        cache = RunCache(tmp_path / str(threads)) if cached else None
        for _ in range(1 + cached):
            found = train_arms(ticket, ARMS, 3, cache=cache, threads=threads)
            results.append(numbers(found))
    assert all(result == results[cached] for result in results[cached :: 1 + cached])
    assert results[0] == results[1 + cached]


def test_a_ticket_that_keeps_all_finds_its_own_runs_as_in_a_row(tmp_path: Path) -> None:
    """The ticket and the masked controls follow from the same things there, and so share keys."""
    ticket = make_ticket(density=1.0)
    results = [
        numbers(train_arms(ticket, ARMS, 2, cache=RunCache(tmp_path / str(n)), threads=n)) for n in (1, 4)
    ]
    assert results[0] == results[1]
    assert results[0]["shuffle"]["cached"] == [True, True]
    assert results[0]["random"]["cached"] == [True, True]


def test_a_verification_measures_the_same_and_counts_replicates_over_all_arms() -> None:
    ticket, seen = make_ticket(density=0.1), list[Any]()
    baselines = {"dense": range(1000, 1004), "reference": range(4)}
    for threads in (1, 3):
        events = list[dict[str, Any]]()
        found = verify(ticket, replicates=2, seed=0, cache=None, threads=threads, progress=events.append)
        told = [event for event in events if event["kind"] == "arm"]
        assert [event["done"] for event in told] == list(range(1, 23))
        assert {event["total"] for event in told} == {22}
        expected = {(arm, j) for arm in ARMS for j in baselines.get(arm, range(2))}
        assert {(event["arm"], event["replicate"]) for event in told} == expected
        seen.append({**found.to_dict(), "cost": 0})
    assert seen[0] == seen[1]


def test_progress_is_called_by_one_thread_at_a_time() -> None:
    inside, most = [0], [0]

    def progress(event: dict[str, Any]) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        np.random.default_rng(0).normal(size=20_000).sort()
        inside[0] -= 1

    train_arms(make_ticket(), ARMS, 2, progress=progress, threads=6)
    assert most == [1]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_stop_reaches_every_thread(threads: int) -> None:
    asked, lock = [0], threading.Lock()

    def should_stop() -> bool:
        with lock:
            asked[0] += 1
            return asked[0] > 50

    before = threading.active_count()
    with pytest.raises(Cancelled):
        train_arms(make_ticket(), ARMS, 5, should_stop=should_stop, threads=threads)
    assert asked[0] < 60
    assert threading.active_count() == before


def test_an_exception_in_one_training_stops_the_others_and_is_the_one_raised() -> None:
    long = make_ticket(recipe=SMALL.override({"steps": 20_000, "evaluate_every": 100}).to_dict())

    def progress(event: dict[str, Any]) -> None:
        if (event["arm"], event["replicate"]) == ("reinit", 1):
            raise ZeroDivisionError("of a caller's")

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="of a caller's"):
        train_arms(long, ["ticket", "reinit", "shuffle"], 2, progress=progress, threads=4)
    assert threading.active_count() == before


def test_an_arm_of_five_on_the_dense_engine_is_stacked_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = list[Any]()
    plain = batches.run_batch

    def watched(batch: batches.Batch, *arguments: Any) -> Any:
        engines.append((batch.engine, *batch.seeds))
        return plain(batch, *arguments)

    monkeypatch.setattr(running, "run_batch", watched)
    ticket, cache, events = gelu_ticket(), RunCache(tmp_path), list[dict[str, Any]]()
    first = run_arm(ticket, "dense", digits(), replicates=range(4, 11), cache=cache, progress=events.append)
    assert engines == [("dense", 4), ("stacked", 5, 6, 7, 8, 9), ("dense", 10)]
    assert {event["replicate"] for event in events if event["kind"] == "point"} == set(range(4, 11))
    alone = run_arm(ticket, "dense", digits(), replicates=range(6, 8))
    assert first.accuracies[2:4] == pytest.approx(alone.accuracies, abs=0.01)
    again = run_arm(ticket, "dense", digits(), replicates=range(5, 10), cache=cache)
    assert again.cached == [True] * 5
    assert again.accuracies == first.accuracies[1:6]
    assert run_arm(ticket, "dense", digits(), replicates=range(6, 7), cache=cache).cached == [False]
    keys = arm_keys(ArmConfig(ticket, "dense", digits(), GELU_RECIPE), range(5, 10))
    assert all(cache.path(key).exists() for key in keys)


def test_a_stack_that_the_cache_has_in_part_is_trained_again_and_is_the_same(tmp_path: Path) -> None:
    ticket, cache = gelu_ticket(), RunCache(tmp_path)
    first = run_arm(ticket, "ticket", digits(), replicates=5, cache=cache)
    cache.path(arm_keys(ArmConfig(ticket, "ticket", digits(), GELU_RECIPE), range(5))[2]).unlink()
    again = run_arm(ticket, "ticket", digits(), replicates=5, cache=cache)
    assert (again.repeated, again.differing, again.cached) == (4, 0, [False] * 5)
    assert again.accuracies == first.accuracies


def test_threads_come_from_the_caller_or_the_environment_or_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NIRVANA_THREADS", raising=False)
    assert count_threads() >= 1
    assert count_threads(3) == 3
    monkeypatch.setenv("NIRVANA_THREADS", "7")
    assert count_threads() == 7
    assert count_threads(3) == 3
    for wrong in ("many", "-1", "1.5"):
        monkeypatch.setenv("NIRVANA_THREADS", wrong)
        with pytest.raises(Invalid, match="NIRVANA_THREADS is '"):
            count_threads()
    monkeypatch.setenv("NIRVANA_THREADS", "0")
    with pytest.raises(Invalid, match="threads is 0"):
        count_threads()
    with pytest.raises(Invalid, match="threads is -2, expected at least 1"):
        verify(make_ticket(), replicates=1, cache=None, threads=-2)


def test_a_containers_quota_of_processor_time_counts(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    cores = _count_cores(quota)
    for text, most in (
        ("max 100000", cores),
        ("50000 100000", 1),
        ("150000 100000", min(2, cores)),
        ("", cores),
    ):
        quota.write_text(text)
        assert _count_cores(quota) == most


def test_work_for_this_thread_stays_on_it_and_the_rest_is_shared() -> None:
    here, anywhere = list[int](), list[int]()
    meeting = threading.Barrier(2, timeout=10)

    def own(stop: threading.Event) -> None:
        here.append(threading.get_ident())
        meeting.wait()  # passed only if another thread works meanwhile

    def shared(stop: threading.Event) -> None:
        anywhere.append(threading.get_ident())
        if len(anywhere) == 1:
            meeting.wait()

    work_off([(True, shared)] * 3 + [(False, own)], 2)
    assert here == [threading.get_ident()]
    assert len(anywhere) == 3
    assert len(set(anywhere)) <= 2


def test_work_begins_while_the_rest_is_planned_and_a_broken_plan_ends_it() -> None:
    begun = threading.Event()

    def planned() -> Iterator[tuple[bool, Work]]:
        yield True, lambda stop: begun.set()
        assert begun.wait(10), "another thread works meanwhile"
        raise ZeroDivisionError("of the plan's")

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="of the plan's"):
        work_off(planned(), 2)
    assert threading.active_count() == before
