"""The main path on the embedded task: a winning ticket with a tenth of the weights."""

from __future__ import annotations

import pytest

from nirvana import tasks
from nirvana.format.ticket import Ticket
from nirvana.lab import FindReport, find, verify


@pytest.fixture(scope="module")
def report() -> FindReport:
    return find("digits", "lenet-300-100", density=0.1)


def test_the_default_recipe_finds_a_winning_ticket_below_a_tenth_of_the_weights(report: FindReport) -> None:
    ticket = report.tickets[-1]
    found = verify(ticket, max_replicates=20, seed=0)
    assert ticket.density <= 0.10
    assert found.verdict == "WINNING", found.reason
    assert found.replicates in (5, 10, 20)
    assert found.margin == tasks.get("digits").margin <= 0.01


def test_an_inverted_mask_never_wins(report: FindReport) -> None:
    ticket = report.tickets[-1]
    masks = {name: ~mask for name, mask in ticket.masks.items()}
    inverted = Ticket.create(
        ticket.architecture,
        masks,
        task=ticket.task,
        recipe=ticket.recipe,
        laws=ticket.start.laws,
        seed=ticket.start.seed,
    )
    assert verify(inverted, replicates=2, seed=0).verdict not in ("WINNING", "MATCHING")


def test_supermasks_score_far_above_chance_before_any_training(report: FindReport) -> None:
    untrained = [level["untrained_test_accuracy"] for level in report.levels]
    assert untrained[0] < 0.3
    assert min(untrained[3:]) > 0.5
