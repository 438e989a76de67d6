"""The look for leaks: a mask that was searched on the test labels does as well there as on what it saw."""

from __future__ import annotations

import pytest

from benchmarks.verdict_rates.adversaries import imp, imp_on, join_parts
from nirvana import tasks
from nirvana.format.ticket import Ticket
from nirvana.lab import verify
from nirvana.tasks.task import PARTS
from nirvana.training.recipe import Recipe
from nirvana.verification.arms import ArmConfig
from nirvana.verification.leaks import look_for_leaks
from tests.factories import make_ticket


def excess(ticket: Ticket) -> float:
    config = ArmConfig(ticket, "ticket", tasks.load("digits"), Recipe.from_dict(dict(ticket.recipe)))
    found = look_for_leaks(config, range(5))
    assert found["excess"] == pytest.approx(found["on_test"] - found["on_other_half"])
    value: float = found["excess"]
    return value


def test_a_mask_that_has_seen_the_test_labels_stands_out_on_average() -> None:
    everything = join_parts(tasks.load("digits"), PARTS)
    honest = [excess(imp(seed, 0.1)) for seed in (200, 201, 202)]
    leaked = [excess(imp_on(everything, seed, 0.1, 250)) for seed in (200, 201, 202)]
    assert sum(honest) < 0 < sum(leaked)


def test_it_stands_beside_the_verdict_and_changes_nothing_of_it() -> None:
    ticket = make_ticket()
    plain = verify(ticket, replicates=2, seed=0, cache=None).to_dict()
    beside = verify(ticket, replicates=2, seed=0, cache=None, leaks=True).to_dict()
    found = beside.pop("leaks")
    assert found["replicates"] == 2
    assert {**beside, "cost": 0} == {**plain, "cost": 0}
