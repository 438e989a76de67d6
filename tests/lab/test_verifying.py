"""Whole verifications: looks, the cache, gate 0 first, and the laws that no verdict may break."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import Invalid, InvalidArchitecture, InvalidRecipe
from nirvana.format.initial import default_laws
from nirvana.format.ticket import Ticket
from nirvana.lab import ArmResult, Evaluation, RunCache, find, judge, run_arm, verify
from nirvana.verification.evaluation import refuse
from nirvana.verification.gate import check_gate
from nirvana.verification.plan import CheckGate, Done, Judge, Pool, Progress, Step, TrainArms, next_step
from nirvana.verification.protocol import (
    ARMS,
    BASELINES,
    CONTROLS,
    OPEN_VERDICTS,
    Look,
    count_steps,
    plan_looks,
)
from nirvana.verification.verify import judge_look
from tests.factories import make_masks, make_ticket
from tests.lab.small import SMALL, digits, network, values_of
from tests.lab.test_evaluation import WINNING, arm, arms
from tests.lab.test_gate import stored_ticket

BRIEF = SMALL.override({"steps": 20})
Train = Callable[[str, Look], ArmResult]


def brief_ticket(density: float = 0.2, **fields: Any) -> Ticket:
    return make_ticket(density=density, recipe=BRIEF.to_dict(), **fields)


def without_cost(found: dict[str, Any]) -> dict[str, Any]:
    """What must be the same when a verification is run again."""
    changing = ("cost", "cached", "badges")
    return {name: value for name, value in found.items() if name not in changing}


@pytest.mark.usefixtures("brief_reference")
def test_looks_go_on_while_the_verdict_is_open_and_add_to_the_same_replicates() -> None:
    ticket = brief_ticket(0.8)
    found = verify(ticket, replicates=2, max_replicates=8, seed=0, margin=0.002, cache=None)
    looks = found.measurements["looks"]
    sizes = [look["n"] for look in looks]
    assert sizes == [2, 4, 8][: len(sizes)]
    assert len(sizes) > 1, "two replicates leave it open"
    assert [look["alpha"] for look in looks] == [0.02, 0.015, 0.0075][: len(sizes)]
    assert all(look["verdict"] in ("INCONCLUSIVE", "MATCHING_UNRESOLVED") for look in looks[:-1])
    assert (looks[-1]["n"], looks[-1]["verdict"]) == (found.replicates, found.verdict)
    sealed = tasks.load_sealed("digits")
    whole = run_arm(ticket, "shuffle", digits(), replicates=found.replicates, sealed=sealed)
    assert found.measurements["arms"]["shuffle"] == whole.accuracies
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_clear_verdict_stops_at_the_first_look() -> None:
    found = verify(brief_ticket(0.5), replicates=2, max_replicates=8, seed=0, margin=0.01, cache=None)
    assert found.verdict == "NOT_MATCHING"
    assert found.measurements["looks"] == [{"n": 2, "alpha": 0.02, "verdict": "NOT_MATCHING"}]


def test_a_single_look_leaves_most_of_alpha_to_later_verifications() -> None:
    found = verify(brief_ticket(), replicates=2, cache=None)
    assert [(look["n"], look["alpha"]) for look in found.measurements["looks"]] == [(2, 0.02)]
    assert found.measurements["alpha"] == 0.02


def test_seeds_are_drawn_and_the_same_seed_gives_the_same_numbers() -> None:
    ticket = brief_ticket()
    one, other = (verify(ticket, replicates=2, cache=None).measurements for _ in range(2))
    again = verify(ticket, replicates=2, cache=None, seed=one["seed"]).measurements
    assert one["seed"] != other["seed"]
    assert one["seeds"]["replicates"] == [one["seed"], one["seed"] + 1]
    assert (one["arms"], one["early_stop"]) == (again["arms"], again["early_stop"])
    assert (one["arms"], one["early_stop"]) != (other["arms"], other["early_stop"])


def test_those_who_run_looks_elsewhere_are_told_the_next_one() -> None:
    looks = tuple(plan_looks(5, 20))
    of_one_look = {result.arm: (result,) for result in arms()}
    open_ = judge(make_ticket(), arms(reinit=[0.99, 0.93, 0.97, 0.94, 0.96]), 0.01)
    closed = judge(make_ticket(), arms(), 0.01)
    progress = Progress(0, looks, 0, check_gate(make_ticket()), of_one_look, open_)
    assert looks[1].n == 10
    assert next_step(progress) == TrainArms(looks[1], ARMS)
    assert next_step(dataclasses.replace(progress, evaluation=closed)) == Done(closed)
    assert next_step(dataclasses.replace(progress, looks=tuple(plan_looks(5)))) == Done(open_)


def conduct(
    ticket: Ticket,
    looks: tuple[Look, ...],
    margin: float,
    train: Train,
    *,
    passes_through_json: bool,
    pools: dict[str, Pool] | None = None,
) -> tuple[list[Step], Evaluation]:
    """Verify as a durable workflow does: one arm at a time; only progress passes from step to step.

    Args:
        passes_through_json: whether each step is another process's.
    """
    progress, steps = Progress(0, looks), list[Step]()
    progress = dataclasses.replace(progress, pools=pools or progress.pools)
    while True:
        if passes_through_json:
            progress = Progress.from_dict(json.loads(json.dumps(progress.to_dict(), allow_nan=False)))
        step = next_step(progress)
        steps.append(step)
        if isinstance(step, CheckGate):
            progress = dataclasses.replace(progress, gate=check_gate(ticket))
        elif isinstance(step, TrainArms):
            progress = progress.with_arms({step.arms[0]: train(step.arms[0], step.look)})
        elif isinstance(step, Judge):
            evaluation = judge_look(ticket, progress, step.look, margin)
            progress = dataclasses.replace(progress, evaluation=evaluation)
        else:
            return steps, step.evaluation


def undecided(name: str, look: Look) -> ArmResult:
    """Measurements that leave a verdict open: new values now better and now worse than the ticket's."""
    accuracies = [0.97 + 0.001 * (j % 3) for j in look.replicates]
    if name == "reinit":
        accuracies = [0.99 if j % 2 else 0.93 for j in look.replicates]
    elif name not in ("dense", "ticket"):
        accuracies = [0.9 + 0.002 * (j % 4) for j in look.replicates]
    return dataclasses.replace(arm(name, accuracies), seeds=list(look.replicates))


def test_an_open_verdict_takes_three_looks_and_may_be_resumed_between_any_two_steps() -> None:
    looks, ticket = tuple(plan_looks(5, 20)), make_ticket()
    steps, evaluation = conduct(ticket, looks, 0.01, undecided, passes_through_json=False)
    expected: list[Step] = [CheckGate()]
    for look in looks:
        expected += [TrainArms(look, ARMS[done:]) for done in range(len(ARMS))] + [Judge(look)]
    assert steps == [*expected, Done(evaluation)]
    assert len(steps) - 1 == count_steps(list(looks))
    assert evaluation.replicates == 20
    assert [look["n"] for look in evaluation.measurements["looks"]] == [5, 10, 20]
    assert all(look["verdict"] in OPEN_VERDICTS for look in evaluation.measurements["looks"][:2])
    again, resumed = conduct(ticket, looks, 0.01, undecided, passes_through_json=True)
    assert again[:-1] == steps[:-1]
    assert json.dumps(resumed.to_dict(), sort_keys=True) == json.dumps(evaluation.to_dict(), sort_keys=True)


def test_a_decided_verdict_and_a_refused_ticket_are_done_at_once() -> None:
    def clear(name: str, look: Look) -> ArmResult:
        return dataclasses.replace(arm(name, WINNING[name]), seeds=list(look.replicates))

    looks = tuple(plan_looks(5, 20))
    steps, evaluation = conduct(make_ticket(), looks, 0.01, clear, passes_through_json=True)
    assert (evaluation.verdict, len(steps)) == ("WINNING", 1 + len(ARMS) + 1 + 1)
    broken = stored_ticket({name: 3 * v for name, v in values_of(network("mlp-100")).items()})
    gate = check_gate(broken)
    refused = Progress(0, looks, 0, gate, evaluation=refuse(broken, gate, 0.01))
    assert isinstance(next_step(refused), Done)


def looked_at(progress: Progress, name: str, measured: Callable[[str, Look], ArmResult]) -> Progress:
    """Go on with one more verification of a single look, whose arms measure what `name` says."""
    progress = dataclasses.replace(progress.with_looks(5, 5), gate=check_gate(make_ticket()))
    look = progress.looks[-1]
    progress = progress.with_arms({arm: measured(arm, look) for arm in ARMS})
    evaluation = judge_look(make_ticket(), progress, look, 0.01)
    assert evaluation.measurements["looks"][-1]["verdict"] == name
    return dataclasses.replace(progress, evaluation=evaluation)


def wins(name: str, look: Look) -> ArmResult:
    return dataclasses.replace(arm(name, WINNING[name]), seeds=list(look.replicates))


def loses(name: str, look: Look) -> ArmResult:
    return dataclasses.replace(
        arm(name, [0.5] * 5 if name == "ticket" else WINNING[name]), seeds=list(look.replicates)
    )


def test_a_settled_verdict_stands_while_later_looks_are_open_and_gives_way_to_a_settled_one() -> None:
    first = looked_at(Progress(0, ()), "WINNING", wins)
    assert first.evaluation is not None
    opened = looked_at(first, "MATCHING_UNRESOLVED", undecided)
    twice = looked_at(opened, "MATCHING_UNRESOLVED", undecided)
    for later, n in ((opened, 10), (twice, 15)):
        assert later.evaluation is not None
        assert (later.evaluation.verdict, later.evaluation.replicates) == ("WINNING", n)
        assert later.evaluation.reason == first.evaluation.reason
    lost = twice
    still = looked_at(twice, "INCONCLUSIVE", loses)
    assert still.evaluation is not None
    assert still.evaluation.verdict == "WINNING"
    lost = looked_at(still, "NOT_MATCHING", loses)
    assert lost.evaluation is not None
    assert lost.evaluation.verdict == "NOT_MATCHING"


def test_replicates_on_other_data_than_the_task_has_now_are_left_behind() -> None:
    pools = {"dense": Pool(7, 8), "reference": Pool(9, 4)}
    before = dataclasses.replace(looked_at(Progress(3000, ()), "WINNING", wins), pools=pools)
    fresh = before.with_looks(5, 20).restarted()
    assert (fresh.arms, fresh.evaluation, fresh.earlier) == ({}, None, 0)
    assert fresh == Progress(3000, (), pools=pools).with_looks(5, 20)


def test_a_look_adds_to_the_pool_until_it_is_full() -> None:
    pools = {"dense": Pool(2000), "reference": Pool(1000, 10)}
    progress = Progress(0, (), pools=pools).with_looks(5, 20)
    assert [progress.baselines(look) for look in progress.looks] == [
        {"dense": range(2000, 2000 + own), "reference": range(1000, 1000 + runs)}
        for own, runs in ((4, 14), (8, 18), (12, 20))
    ]


def test_one_arm_at_a_time_in_processes_of_their_own_gives_what_a_whole_verification_gives() -> None:
    ticket = brief_ticket(0.9)

    def train(name: str, look: Look) -> ArmResult:
        runs, starts = 4 * (1 + look.first // 2), {"dense": 1000, "reference": 0}
        replicates = range(starts[name], starts[name] + runs) if name in starts else look.replicates
        return run_arm(ticket, name, digits(), replicates=replicates, sealed=tasks.load_sealed("digits"))

    whole = verify(ticket, replicates=2, max_replicates=8, seed=0, margin=0.002, cache=None)
    pools = {"dense": Pool(1000), "reference": Pool(0)}
    looks = tuple(plan_looks(2, 8))
    _, evaluation = conduct(ticket, looks, 0.002, train, passes_through_json=True, pools=pools)
    expected = json.loads(json.dumps(without_cost(whole.to_dict())))
    assert json.loads(json.dumps(without_cost(evaluation.to_dict()))) == expected


def test_verifying_again_with_cached_arms_changes_nothing_and_costs_the_ticket_arm_alone(
    tmp_path: Path,
) -> None:
    cache, ticket = RunCache(tmp_path), brief_ticket(0.1)
    first, again = (verify(ticket, replicates=3, seed=7, cache=cache).to_dict() for _ in range(2))
    assert without_cost(first) == without_cost(again)
    assert first["cost"]["trainings"] == 3 * (len(ARMS) - 2) + 2 * 4
    assert again["cost"]["trainings"] == 3
    assert again["cached"] == dict.fromkeys(ARMS, 3) | {"ticket": 0, "dense": 4, "reference": 4}
    assert again["badges"]["BYTE-REPRODUCIBLE"] is True
    assert first["badges"]["BYTE-REPRODUCIBLE"] is None


@pytest.mark.parametrize("changed", [{}, {"learning_rate": 0.001}])
def test_a_verification_of_a_tenth_costs_at_most_twelve_dense_trainings_and_with_full_pools_at_most_six(
    changed: dict[str, float], tmp_path: Path
) -> None:
    recipe = tasks.get("digits").default_recipe("mlp-16").override(changed)
    laws = default_laws(network("mlp-16"), recipe.initial_law)
    ticket = make_ticket(density=0.1, recipe=recipe.to_dict(), laws=laws)
    cache = RunCache(tmp_path)
    controls = (len(ARMS) - len(BASELINES)) * 5 * 0.1
    costs = [verify(ticket, replicates=5, seed=seed, cache=cache).to_dict()["cost"] for seed in (0, 0, 1000)]
    first, again, other = (cost["dense_trainings"]["by_flops"] for cost in costs)
    assert first == pytest.approx(8 + controls, abs=0.1)
    assert first <= 12
    assert again == pytest.approx(5 * 0.1, abs=0.05)
    assert other == pytest.approx(controls, abs=0.1)
    assert other <= 6
    assert costs[1]["dense_trainings"]["by_seconds"] > 0


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
    assert found.measurements["arms"]["dense"] == [0.1] * 4, "the reference is another pool"
    assert found.verdict == "INCONCLUSIVE", "without a baseline there is nothing to match"
    assert "100 % of the dense trainings" in found.reason
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
    assert verify(other_masks(winner, inverted), replicates=3, seed=0, cache=None).verdict != "WINNING"
    values, smallest = winner.dense_initial_values() or {}, {}
    for name, mask in winner.masks.items():
        order = np.argsort(np.where(mask, np.inf, np.abs(values[name])), axis=None)
        chosen = np.isin(np.arange(mask.size), order[: mask.sum()])
        smallest[name] = chosen.reshape(mask.shape)
    assert verify(other_masks(winner, smallest), replicates=3, seed=0, cache=None).verdict != "WINNING"


def test_constant_initial_values_never_win() -> None:
    architecture = network("mlp-100")
    values = {name: np.full_like(v, 0.05 * v.any()) for name, v in values_of(architecture).items()}
    assert verify(stored_ticket(values), replicates=3, seed=0, cache=None).verdict == "INVALID"
    late = Ticket.create(
        architecture,
        make_masks(architecture),
        task="digits",
        recipe=BRIEF.to_dict(),
        laws=make_ticket("mlp-100").start.laws,
        stored=values,
        rewind_step=1,
    )
    assert verify(late, replicates=3, seed=0, cache=None).verdict not in ("WINNING", "MATCHING")


def test_the_controls_are_arms_and_every_arm_is_run() -> None:
    assert set(CONTROLS) < set(ARMS)
    found = verify(brief_ticket(), replicates=2, cache=None).measurements
    assert list(found["arms"]) == list(ARMS)
    assert len(found["data"]) == 64
