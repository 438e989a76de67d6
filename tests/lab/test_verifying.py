"""Whole verifications: looks, the cache, gate 0 first, and the laws that no verdict may break."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import Invalid, InvalidArchitecture, InvalidRecipe
from nirvana.lab import RunCache, find, judge, run_arm, verify
from nirvana.lab.verification.evaluation import refuse
from nirvana.lab.verification.gate import check_gate
from nirvana.lab.verification.rates import plan_looks
from nirvana.lab.verification.verifying import next_look
from nirvana.protocol import ARMS, CONTROLS
from nirvana.ticket import Ticket
from tests.factories import make_masks, make_ticket
from tests.lab.small import SMALL, digits, network, values_of
from tests.lab.test_evaluation import arms
from tests.lab.test_gate import stored_ticket

BRIEF = SMALL.override({"steps": 20})


def brief_ticket(density: float = 0.2, **fields: Any) -> Ticket:
    return make_ticket(density=density, recipe=BRIEF.to_dict(), **fields)


def without_cost(found: dict[str, Any]) -> dict[str, Any]:
    """What must be the same when a verification is run again."""
    changing = ("cost", "cached", "badges")
    return {name: value for name, value in found.items() if name not in changing}


def test_looks_go_on_while_the_verdict_is_open_and_add_to_the_same_replicates() -> None:
    ticket = brief_ticket(0.9)
    found = verify(ticket, replicates=2, max_replicates=8, margin=0.002, cache=None)
    looks = found.measurements["looks"]
    sizes = [look["n"] for look in looks]
    assert sizes == [2, 4, 8][: len(sizes)]
    assert len(sizes) > 1, "two replicates leave it open"
    assert [look["alpha"] for look in looks] == [0.02, 0.015, 0.015][: len(sizes)]
    assert all(look["verdict"] in ("INCONCLUSIVE", "MATCHING_UNRESOLVED") for look in looks[:-1])
    assert (looks[-1]["n"], looks[-1]["verdict"]) == (found.replicates, found.verdict)
    whole = run_arm(ticket, "shuffle", digits(), replicates=found.replicates)
    assert found.measurements["arms"]["shuffle"] == whole.accuracies
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_clear_verdict_stops_at_the_first_look() -> None:
    found = verify(brief_ticket(0.5), replicates=2, max_replicates=8, margin=0.01, cache=None)
    assert found.verdict == "NOT_MATCHING"
    assert found.measurements["looks"] == [{"n": 2, "alpha": 0.02, "verdict": "NOT_MATCHING"}]


def test_a_fixed_design_has_one_look_at_five_percent() -> None:
    found = verify(brief_ticket(), replicates=2, cache=None)
    assert [(look["n"], look["alpha"]) for look in found.measurements["looks"]] == [(2, 0.05)]
    assert found.measurements["alpha"] == 0.05


def test_those_who_run_looks_elsewhere_are_told_the_next_one() -> None:
    looks = plan_looks(5, 20)
    open_ = judge(make_ticket(), arms(reinit=[0.99, 0.93, 0.97, 0.94, 0.96]), 0.01)
    closed = judge(make_ticket(), arms(), 0.01)
    following = next_look(looks, open_)
    assert following is not None
    assert following.n == 10
    assert next_look(looks, closed) is None
    assert next_look(plan_looks(5), open_) is None


def test_verifying_again_with_cached_arms_changes_nothing_and_costs_the_ticket_arm_alone(
    tmp_path: Path,
) -> None:
    cache, ticket = RunCache(tmp_path), brief_ticket(0.1)
    first, again = (verify(ticket, replicates=3, cache=cache).to_dict() for _ in range(2))
    assert without_cost(first) == without_cost(again)
    assert first["cost"]["trainings"] == 21
    assert again["cost"]["trainings"] == 3
    assert again["cached"] == {arm: 0 if arm == "ticket" else 3 for arm in ARMS}
    assert again["badges"]["BYTE-REPRODUCIBLE"] is True
    assert first["badges"]["BYTE-REPRODUCIBLE"] is None


def test_a_standard_verification_of_a_tenth_costs_at_most_twelve_dense_trainings_and_then_six(
    tmp_path: Path,
) -> None:
    ticket, cache = brief_ticket(0.1), RunCache(tmp_path)
    first, again = (verify(ticket, replicates=5, cache=cache).to_dict()["cost"] for _ in range(2))
    assert first["dense_trainings"]["by_flops"] == pytest.approx(5 + 6 * 5 * 0.1, abs=0.1)
    assert again["dense_trainings"]["by_flops"] == pytest.approx(5 * 0.1, abs=0.05)
    assert again["dense_trainings"]["by_seconds"] > 0


def test_what_gate_0_refuses_is_not_trained() -> None:
    trained = {name: 3 * v for name, v in values_of(network("mlp-100")).items()}
    events = list[dict[str, Any]]()
    found = verify(stored_ticket(trained), replicates=2, cache=None, progress=events.append)
    assert found.verdict == "INVALID"
    assert (found.replicates, found.measurements["arms"], events) == (0, {}, [])
    assert found.measurements["gate"]["law"]["fc1.weight"] < 1e-6
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(Invalid, match="nothing against"):
        refuse(make_ticket(), check_gate(make_ticket()), 0.01)


def test_a_task_of_another_shape_or_other_classes_is_refused_and_both_are_named() -> None:
    with pytest.raises(InvalidArchitecture, match=r"\[1, 8, 8\], but the task's are \[1, 28, 28\]"):
        verify(make_ticket(), "mnist", cache=None)
    fewer = dataclasses.replace(tasks.get("digits"), classes=7)
    with pytest.raises(InvalidArchitecture, match=r"shape \[10\], but the task has 7 classes"):
        verify(make_ticket(), fewer, cache=None)


def test_a_recipe_that_leaves_no_ticket_is_refused() -> None:
    held = BRIEF.override({"pruning": {"mask_0_action": "freeze"}})
    with pytest.raises(InvalidRecipe, match="mask_0_action"):
        verify(make_ticket(recipe=held.to_dict()), cache=None)


def test_caps_out_of_range_are_refused_before_anything_is_trained() -> None:
    for cap in (4, 21):
        with pytest.raises(Invalid, match="max_replicates"):
            verify(make_ticket(), replicates=5, max_replicates=cap, cache=None)


def test_stability_is_measured_when_it_is_asked_for() -> None:
    ticket = brief_ticket()
    assert verify(ticket, replicates=2, cache=None).measurements["badges"]["STABLE"] is None
    found = verify(ticket, replicates=2, cache=None, stability=True).measurements
    assert found["badges"]["STABLE"] == found["stability"]["stable"]
    assert found["cost"]["flops_sparse"] > sum(c["flops_sparse"] for c in found["cost"]["arms"].values())


def test_training_that_leaves_the_numbers_counts_at_chance_and_never_wins() -> None:
    found = verify(
        make_ticket(recipe=SMALL.override({"learning_rate": 1e30}).to_dict()), replicates=2, cache=None
    )
    assert found.measurements["failed"]["ticket"] == [True, True]
    assert found.measurements["arms"]["dense"] == [0.1, 0.1]
    assert found.verdict == "INCONCLUSIVE", "without a baseline there is nothing to match"
    assert "2 of 2 dense trainings" in found.reason
    assert found.measurements["trainability"]["count"] == 0


@pytest.fixture(scope="module")
def winner() -> Ticket:
    """A ticket of IMP that does better than its controls on the small recipe."""
    return find("digits", "mlp-100", density=0.05, recipe={"steps": 100}, seed=1).tickets[-1]


def other_masks(ticket: Ticket, masks: dict[str, Any]) -> Ticket:
    return Ticket.create(
        ticket.architecture,
        masks,
        task=ticket.task,
        recipe=ticket.recipe,
        laws=ticket.start.laws,
        seed=ticket.start.seed,
    )


def test_an_inverted_mask_never_wins(winner: Ticket) -> None:
    """Twice: all that was pruned, and as many of it as the ticket keeps, where values are smallest."""
    inverted = {name: ~mask for name, mask in winner.masks.items()}
    assert verify(other_masks(winner, inverted), replicates=3, cache=None).verdict != "WINNING"
    values, smallest = winner.dense_initial_values() or {}, {}
    for name, mask in winner.masks.items():
        order = np.argsort(np.where(mask, np.inf, np.abs(values[name])), axis=None)
        chosen = np.isin(np.arange(mask.size), order[: mask.sum()])
        smallest[name] = chosen.reshape(mask.shape)
    assert verify(other_masks(winner, smallest), replicates=3, cache=None).verdict != "WINNING"


def test_constant_initial_values_never_win() -> None:
    architecture = network("mlp-100")
    values = {name: np.full_like(v, 0.05 * v.any()) for name, v in values_of(architecture).items()}
    assert verify(stored_ticket(values), replicates=3, cache=None).verdict == "INVALID"
    late = Ticket.create(
        architecture,
        make_masks(architecture),
        task="digits",
        recipe=BRIEF.to_dict(),
        laws=make_ticket("mlp-100").start.laws,
        stored=values,
        rewind_step=1,
    )
    assert verify(late, replicates=3, cache=None).verdict not in ("WINNING", "MATCHING")


def test_the_controls_are_arms_and_every_arm_is_run() -> None:
    assert set(CONTROLS) < set(ARMS)
    found = verify(brief_ticket(), replicates=2, cache=None).measurements
    assert list(found["arms"]) == list(ARMS)
    assert len(found["data"]) == 64
