"""What an evaluation says besides its verdict: claims, badges, speed, trainability, supermasks, cost."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nirvana import tasks
from nirvana.format.ticket import Ticket
from nirvana.lab import ArmResult, Barrier, judge
from nirvana.training.cost import Cost
from nirvana.verification.protocol import ARMS, BADGES
from nirvana.verification.verdicts import explain_examples, explain_measurement
from tests.factories import RECIPE, make_ticket
from tests.lab.test_evaluation import WINNING, arm, arms, stopping

CHANCE = [0.10, 0.11, 0.09, 0.10, 0.12]


def claiming(value: float, metric: str = "test_accuracy", task: str = "digits") -> Ticket:
    claim = {"task": task, "metric": metric, "value": value, "replicates": 1}
    return dataclasses.replace(make_ticket(), claims=(claim,))


def reported(measured: list[ArmResult], ticket: Ticket | None = None, **fields: Any) -> dict[str, Any]:
    return dict(judge(ticket or make_ticket(), measured, 0.01, **fields).measurements)


def untrained(**changed: list[float]) -> list[ArmResult]:
    measured = {name: changed.get(name, CHANCE) for name in ARMS}
    return [
        arm(n, WINNING[n], untrained_accuracies=values, untrained_test_accuracies=values)
        for n, values in measured.items()
    ]


@pytest.mark.parametrize(
    ("claimed", "earned"), [(0.9704, True), (0.9610, True), (0.9799, True), (0.9600, False), (0.9810, False)]
)
def test_a_claim_is_reproduced_within_the_margin(claimed: float, earned: bool) -> None:
    found = reported(arms(), claiming(claimed))
    assert found["badges"]["REPRODUCED"] is earned
    assert found["rules"]["claim"]["gap"] == pytest.approx(0.9704 - claimed)


def test_a_noisy_measurement_widens_what_a_claim_may_miss_by() -> None:
    noisy = [0.90, 1.0, 0.95, 0.99, 0.93]
    assert reported(arms(ticket=noisy), claiming(0.98))["badges"]["REPRODUCED"] is True


def test_without_a_claim_on_this_task_there_is_nothing_to_reproduce() -> None:
    for ticket in (make_ticket(), claiming(0.97, task="mnist"), claiming(0.9, "untrained_test_accuracy")):
        assert reported(arms(), ticket)["badges"]["REPRODUCED"] is None


def test_fast_needs_the_whole_interval_above_one() -> None:
    sooner = reported(stopping([200, 220, 210, 230, 240], [100, 110, 90, 120, 100]))
    assert sooner["badges"]["FAST"] is True
    assert sooner["speed"]["ratio"] == pytest.approx(1100 / 520)
    unclear = reported(stopping([200, 220, 100, 100, 240], [190, 110, 200, 120, 150]))
    assert unclear["speed"]["interval"][0] < 1 < unclear["speed"]["interval"][1]
    assert unclear["badges"]["FAST"] is False


def test_trainable_needs_more_than_half_of_all_runs_for_certain() -> None:
    assert reported(arms())["trainability"]["interval"] == pytest.approx([0.5655, 1], abs=1e-4)
    assert reported(arms())["badges"]["TRAINABLE"] is True
    once = reported(arms(ticket=[0.968, 0.972, 0.95, 0.970, 0.972]))
    assert (once["trainability"]["count"], once["trainability"]["share"]) == (4, 0.8)
    assert once["badges"]["TRAINABLE"] is False


def test_stable_is_what_the_barrier_says() -> None:
    line = Barrier([[0, 1]], [0.01], 0.01, True, [[0.1, 0.11, 0.1]], [1.0], "none", Cost(2.0, 1, 10, 5, 7))
    found = reported(arms(), stability=line)
    assert found["badges"]["STABLE"] is True
    assert found["stability"]["barriers"] == [0.01]
    assert found["cost"]["seconds"] == len(ARMS) + 2
    assert reported(arms(), stability=dataclasses.replace(line, stable=False))["badges"]["STABLE"] is False


def test_byte_reproducible_is_what_earlier_runs_say() -> None:
    def badge(repeated: int = 0, differing: int = 0) -> bool | None:
        again: dict[str, Any] = {"repeated": repeated, "differing": differing}
        measured = [dataclasses.replace(a, **again) if a.arm == "ticket" else a for a in arms()]
        found: bool | None = reported(measured)["badges"]["BYTE-REPRODUCIBLE"]
        return found

    assert badge() is None
    assert badge(repeated=5) is True
    assert badge(repeated=4, differing=1) is False


def test_every_badge_is_named() -> None:
    assert set(reported(arms())["badges"]) == set(BADGES)


def test_cost_is_counted_in_dense_trainings_of_the_recipe() -> None:
    ticket = make_ticket()
    one = 3 * ticket.architecture.flops() * 20 * 60
    measured = [dataclasses.replace(a, cost=Cost(2.0, 1, one, one // 4, 1)) for a in arms()]
    found = reported(measured, ticket)["cost"]
    assert found["dense_trainings"]["by_flops"] == pytest.approx(len(ARMS) / 4)
    assert found["dense_trainings"]["by_seconds"] == pytest.approx(2 * len(ARMS) / (2 / 5))
    assert found["trainings"] == 5 * len(ARMS)
    cached = [
        dataclasses.replace(a, cost=Cost(), cached_cost=Cost(2.0, 1, one, 9, 1), cached=[True] * 5)
        if a.arm != "ticket"
        else a
        for a in measured
    ]
    found = reported(cached, ticket)["cost"]
    assert found["trainings"] == 5
    assert found["dense_trainings"]["by_flops"] == pytest.approx(1 / 4)
    assert found["dense_trainings"]["by_seconds"] == pytest.approx(2 / (2 / 5))
    assert found["cached"]["seconds"] == 2 * (len(ARMS) - 1)


def test_a_supermask_reaches_its_claim_untrained_and_its_controls_do_not() -> None:
    measured = untrained(ticket=[0.8] * 5)
    found = reported(measured, claiming(0.8, "untrained_test_accuracy"))["tracks"]["supermask"]
    assert found["verdict"] == "SUPERMASK"
    assert found["controls"]["random"] == pytest.approx(0.104)
    assert reported(measured, claiming(0.8))["tracks"] == {}, "nobody claimed one"


@pytest.mark.parametrize(
    ("claimed", "measured", "why"),
    [
        (0.81, {"ticket": [0.8] * 5}, "claimed is 0.81"),
        (0.8, {"ticket": [0.8] * 5, "random": [0.5, 0.6, 0.4, 0.5, 0.6]}, "random masks reach"),
        (0.12, {"ticket": [0.12] * 5}, "not clearly better than shuffle"),
    ],
)
def test_what_is_no_supermask_says_why(claimed: float, measured: dict[str, list[float]], why: str) -> None:
    ticket = claiming(claimed, "untrained_test_accuracy")
    found = reported(untrained(**measured), ticket)["tracks"]["supermask"]
    assert found["verdict"] == "NOT_SUPERMASK"
    assert why in found["reason"]


def test_examples_are_those_of_the_ticket_s_recipe_beside_the_reference_s() -> None:
    longer = {"steps": 5 * RECIPE.steps, "batch_size": RECIPE.batch_size}
    ticket = make_ticket(recipe=RECIPE.to_dict() | longer)
    reference = tasks.get("digits").reference_recipe(ticket.architecture)
    examples = reported(arms(), ticket, task="digits")["examples"]
    assert examples == {
        "ticket": 5 * RECIPE.steps * RECIPE.batch_size,
        "reference": reference.steps * reference.batch_size,
    }


@pytest.mark.parametrize(("own", "words"), [(36, ["2.4"]), (15, []), (1, [])])
def test_only_a_recipe_that_takes_more_than_the_reference_is_said_to(own: int, words: list[str]) -> None:
    body = {"examples": {"ticket": own, "reference": 15}}
    sentences = [f"trained on {times} times the examples of the reference recipe" for times in words]
    assert list(explain_examples(body)) == sentences
    assert list(explain_examples({})) == list(explain_examples({"examples": None})) == []


@pytest.mark.parametrize(
    ("task", "rows", "sentence"),
    [
        ("digits", 300, "measured on 300 sealed rows, which no download has, but which are public elsewhere"),
        ("somebody-elses", 300, "measured on 300 sealed rows, which no download has"),
        ("mnist", 0, "measured on the task's test set, which is public"),
    ],
)
def test_it_is_said_on_which_rows_a_verdict_was_measured(task: str, rows: int, sentence: str) -> None:
    assert list(explain_measurement({"task": task, "sealed_rows": rows})) == [sentence]
