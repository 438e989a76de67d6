"""The transfer track: a ticket of one task on another."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import InvalidArchitecture, InvalidRecipe
from nirvana.format.initial import draw_all
from nirvana.format.ticket import Ticket
from nirvana.lab import find, first_ticket, run_arm, transfer, transfer_matrix
from nirvana.tasks import Task
from nirvana.verification.statistics import Difference
from nirvana.verification.transfer import _decide, fit_to
from tests.factories import make_ticket, torch_ticket
from tests.lab.small import SMALL, digits, network

DIGITS = tasks.get("digits")
BRIEF = SMALL.override({"steps": 20})
TWELVE = dataclasses.replace(DIGITS, name="twelve", classes=12)


def renamed(name: str) -> Task:
    """Digits under another name; its arrays are the registered task's."""
    return dataclasses.replace(DIGITS, name=name)


def test_a_ticket_of_the_same_classes_keeps_everything() -> None:
    source = make_ticket(rewind_step=0)
    fitted = fit_to(source, renamed("other"))
    assert fitted.digest == source.digest
    assert fitted.task == "other"
    assert fitted.recipe == DIGITS.default_recipe("mlp-16").to_dict()
    assert fitted.provenance["source_task"] == "digits"


@pytest.mark.parametrize("stored", [False, True])
def test_other_classes_get_a_new_output_layer_that_is_kept_whole(stored: bool) -> None:
    source = make_ticket(stored=stored)
    fitted = fit_to(source, TWELVE, seed=5)
    assert fitted.architecture.output_shape == (12,)
    assert set(fitted.masks) == {"fc1.weight"}
    assert (fitted.masks["fc1.weight"] == source.masks["fc1.weight"]).all()
    values, before = fitted.dense_initial_values() or {}, source.dense_initial_values() or {}
    assert np.array_equal(values["fc1.weight"], before["fc1.weight"])
    seed = 5 if stored else source.start.seed
    assert seed is not None
    drawn = draw_all(fitted.architecture, source.start.laws, seed)
    assert np.array_equal(values["fc2.weight"], drawn["fc2.weight"])
    assert values["fc2.bias"].shape == (12,)


@pytest.mark.parametrize("order", [(), ("fc2", "fc1")])
def test_a_new_output_layer_leaves_a_torch_tickets_other_values_as_they_are(order: tuple[str, ...]) -> None:
    """A wider layer that is constructed first would move every draw after it."""
    source = torch_ticket(order=order)
    fitted = fit_to(source, TWELVE, seed=5)
    values, before = fitted.dense_initial_values() or {}, source.dense_initial_values() or {}
    assert all(np.array_equal(values[name], before[name]) for name in ("fc1.weight", "fc1.bias"))
    assert (values["fc2.weight"].shape, values["fc2.bias"].shape) == ((12, 16), (12,))
    assert 0 < np.abs(values["fc2.bias"]).max() <= 0.25
    assert fit_to(source, renamed("other")).digest == source.digest


def test_survivors_of_a_rewound_ticket_are_carried_over() -> None:
    rewound = find(
        "digits", "mlp-16", levels=1, recipe=SMALL.override({"pruning": {"rewind_step": 5}})
    ).tickets[-1]
    fitted = fit_to(rewound, TWELVE, BRIEF)
    assert fitted.start.rewind_step == 5
    ours, theirs = fitted.initial_values(), rewound.initial_values()
    assert np.array_equal(ours["fc1.weight"], theirs["fc1.weight"])
    with pytest.raises(InvalidRecipe, match="less than the recipe's 4 steps"):
        run_arm(fit_to(rewound, DIGITS, SMALL.override({"steps": 4})), "ticket", digits())


def test_another_input_shape_is_refused_and_both_are_named() -> None:
    with pytest.raises(InvalidArchitecture, match=r"\[1, 8, 8\], but the task's are \[1, 28, 28\]"):
        transfer(make_ticket(), "mnist", cache=None)


def test_a_network_whose_end_is_not_linear_cannot_get_new_classes() -> None:
    graph = network()
    ending = type(graph)("ending", graph.input, (*graph.nodes, {"name": "end", "op": "relu"}))
    source = Ticket.create(
        ending, {}, task="digits", recipe=BRIEF.to_dict(), laws=make_ticket().start.laws, seed=1
    )
    with pytest.raises(InvalidArchitecture, match=r"shape \[10\] from relu, expected a linear layer"):
        fit_to(source, TWELVE)


def test_an_own_ticket_of_another_network_is_refused() -> None:
    with pytest.raises(InvalidArchitecture, match="expected the same network"):
        transfer(make_ticket(), DIGITS, own=make_ticket("mlp-8"), replicates=2, recipe=BRIEF, cache=None)


def test_a_transfer_trains_its_arms_on_the_target_and_is_json() -> None:
    source, own = make_ticket(), make_ticket(seed=3)
    found = transfer(source, DIGITS, own=own, replicates=2, recipe=BRIEF, cache=None)
    assert set(found.arms) == {"dense", "ticket", "reinit", "shuffle", "own"}
    assert found.arms["own"].accuracies == run_arm(own, "ticket", digits(), BRIEF, 2).accuracies
    assert found.arms["ticket"].accuracies == run_arm(source, "ticket", digits(), BRIEF, 2).accuracies
    assert (found.source, found.target, found.new_output) == ("digits", "digits", False)
    assert found.verdict in ("TRANSFERS", "TRANSFERS_NOT", "UNRESOLVED")
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_matrix_has_a_row_for_each_pair_and_its_own_tickets_on_the_diagonal() -> None:
    tickets = {"digits": make_ticket(), "elsewhere": make_ticket(seed=4)}
    rows = transfer_matrix(tickets, ["digits"], replicates=2, recipes={"digits": BRIEF}, cache=None)
    assert [(row["source"], row["target"], row["verdict"] == "OWN") for row in rows] == [
        ("digits", "digits", True),
        ("digits", "digits", False),
    ]
    assert rows[0]["own"] == rows[0]["ticket"] == rows[1]["own"]
    assert rows[1]["reinit"] is not None
    json.dumps(rows, allow_nan=False)


def interval(low: float, high: float, p: float = 0.0) -> Difference:
    return Difference((low + high) / 2, low, high, p, 1 - p, 4, "paired")


def measured(**changed: Any) -> dict[str, Any]:
    holds, beaten = {"reinit": False, "shuffle": False}, {"reinit": True, "shuffle": True}
    return {"ticket-own": interval(-0.005, 0.005), "holds": holds, "beaten": beaten} | changed


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        ("TRANSFERS", {}),
        ("TRANSFERS_NOT", {"holds": {"reinit": True, "shuffle": False}}),
        ("TRANSFERS_NOT", {"ticket-own": interval(-0.03, -0.02)}),
        ("UNRESOLVED", {"ticket-own": interval(-0.03, 0.02)}),
        ("UNRESOLVED", {"beaten": {"reinit": False, "shuffle": True}}),
        ("UNRESOLVED", {"ticket-own": None}),
    ],
)
def test_each_row_of_the_tracks_table(expected: str, changed: dict[str, Any]) -> None:
    verdict, reason = _decide(measured(**changed), 0.01, 5)
    assert verdict == expected
    assert reason


def test_one_replicate_is_no_verdict() -> None:
    assert _decide({}, 0.01, 1)[0] == "UNRESOLVED"


def test_a_matrix_that_does_not_fit_is_refused_before_anything_is_trained() -> None:
    events: list[object] = []
    ticket = first_ticket(tasks.get("digits"), network("mlp-16"), SMALL, 0)
    with pytest.raises(InvalidArchitecture, match=r"\[1, 8, 8\].*\[1, 28, 28\]"):
        transfer_matrix({"digits": ticket}, ["digits", "mnist"], progress=events.append)
    assert events == []
