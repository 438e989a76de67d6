"""The arms: what each keeps of the ticket, and what it draws anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nirvana import tasks
from nirvana.engines import advance
from nirvana.errors import Invalid, InvalidArchitecture, InvalidRecipe
from nirvana.format.initial import REINIT, default_laws, draw_all
from nirvana.format.ticket import Ticket
from nirvana.lab import ARMS, ArmResult, find, first_ticket, run_arm
from nirvana.training.recipe import Recipe
from nirvana.training.spec import Arrays
from nirvana.verification.arms import (
    ORDER_SEED,
    ArmConfig,
    arm_masks,
    arm_values,
    magnitude_masks,
    random_masks,
)
from tests.factories import as_stored, make_ticket, torch_ticket
from tests.lab.small import SMALL, digits, network, spec_of

REWOUND = SMALL.override({"pruning": {"rewind_step": 5}})


def survivors_only() -> Ticket:
    """A stored ticket at step 0 that keeps the surviving values alone."""
    full = make_ticket()
    values = full.initial_values()
    stored = {n: values[n][full.mask(n)] if n in full.masks else values[n] for n in values}
    return Ticket.create(
        full.architecture,
        full.masks,
        task="digits",
        recipe=SMALL.to_dict(),
        laws=full.start.laws,
        stored=stored,
    )


def rewound() -> Ticket:
    return find("digits", "mlp-16", levels=1, recipe=REWOUND).tickets[-1]


def values_of(ticket: Ticket, arm: str, seed: int = 0) -> dict[str, Any]:
    values, _ = start_of(ticket, arm, SMALL, seed)
    return dict(values)


def start_of(ticket: Ticket, arm: str, recipe: Recipe, seed: int) -> tuple[Arrays, int]:
    """The values and the step that a replicate starts from."""
    return arm_values(ArmConfig(ticket, arm, digits(), recipe), seed)


@settings(max_examples=25, deadline=None)
@given(density=st.floats(0.01, 0.99), seed=st.integers(0, 50))
def test_a_shuffle_keeps_each_layers_count_and_moves_positions(density: float, seed: int) -> None:
    ticket = make_ticket(density=density)
    shuffled = arm_masks(ticket, "shuffle", seed)
    assert set(shuffled) == set(ticket.masks)
    for name, mask in ticket.masks.items():
        assert shuffled[name].sum() == mask.sum()
        assert shuffled[name].shape == mask.shape
    assert any((shuffled[name] != mask).any() for name, mask in ticket.masks.items())


@settings(max_examples=25, deadline=None)
@given(density=st.floats(0.005, 1), seed=st.integers(0, 50))
def test_a_random_mask_keeps_the_tickets_total_spread_evenly(density: float, seed: int) -> None:
    ticket = make_ticket(density=density)
    masks = random_masks(ticket, seed)
    assert sum(int(mask.sum()) for mask in masks.values()) == ticket.kept
    for mask in masks.values():
        assert abs(int(mask.sum()) - ticket.density * mask.size) <= 1


def test_controls_of_a_ticket_with_unprunable_layers_keep_as_many_prunable_weights() -> None:
    whole = make_ticket()
    ticket = make_ticket(masks={"fc2.weight": whole.masks["fc2.weight"]}, prunable=["fc2.weight"])
    for arm in ("random", "magnitude", "shuffle"):
        masks = arm_masks(ticket, arm, 0)
        assert {name: int(mask.sum()) for name, mask in masks.items()} == {"fc2.weight": 32}


def test_seeds_give_other_masks_and_values_and_the_same_seed_the_same_ones() -> None:
    ticket = make_ticket()
    for arm in ("shuffle", "random"):
        one, same, other = (arm_masks(ticket, arm, seed) for seed in (0, 0, 1))
        assert all((one[n] == same[n]).all() for n in one)
        assert any((one[n] != other[n]).any() for n in one)
    draws = [values_of(ticket, "reinit", seed)["fc1.weight"] for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("stored", [False, True])
def test_all_arms_but_the_redrawn_ones_start_from_the_tickets_own_values(stored: bool) -> None:
    ticket = make_ticket(stored=stored)
    whole = ticket.dense_initial_values()
    assert whole is not None
    for arm in ("shuffle", "random", "magnitude"):
        found = values_of(ticket, arm)
        assert all(np.array_equal(found[name], whole[name]) for name in whole)
    assert all(np.array_equal(v, values_of(ticket, "ticket")[n]) for n, v in ticket.initial_values().items())
    expected = draw_all(ticket.architecture, ticket.start.laws, 3, REINIT)
    assert all(np.array_equal(v, values_of(ticket, "reinit", 3)[n]) for n, v in expected.items())


@pytest.mark.parametrize("order", [(), ("fc2", "fc1")])
def test_arms_of_a_torch_ticket_draw_by_its_scheme_and_controls_by_our_own(order: tuple[str, ...]) -> None:
    ticket = torch_ticket(order=order)
    whole = ticket.values_of_seed()
    for one in (ticket, as_stored(ticket, kept=True)):
        found = values_of(one, "magnitude")
        assert all(np.array_equal(found[name], whole[name]) for name in whole)
    expected = draw_all(ticket.architecture, ticket.start.laws, 3, REINIT)
    assert expected["fc1.bias"].any()
    assert all(np.array_equal(v, values_of(ticket, "reinit", 3)[n]) for n, v in expected.items())


@pytest.mark.parametrize("stored", [False, True])
def test_the_signs_arm_has_the_tickets_signs_and_the_magnitudes_of_reinit(stored: bool) -> None:
    ticket = make_ticket(stored=stored)
    own, drawn, found = (values_of(ticket, arm, 3) for arm in ("ticket", "reinit", "signs"))
    for name, mask in ticket.masks.items():
        assert np.array_equal(np.sign(found[name][mask]), np.sign(own[name][mask]))
        assert np.array_equal(np.abs(found[name]), np.abs(drawn[name]))
        assert (np.sign(drawn[name][mask]) != np.sign(own[name][mask])).any()
    for name in set(drawn) - set(ticket.masks):
        assert np.array_equal(found[name], drawn[name])
    assert arm_masks(ticket, "signs", 3).keys() == ticket.masks.keys()


def test_the_signs_arm_of_a_rewound_ticket_takes_its_values_at_that_step() -> None:
    ticket = rewound()
    (found, step), (drawn, _) = (start_of(ticket, arm, REWOUND, 1) for arm in ("signs", "reinit"))
    assert step == start_of(ticket, "ticket", REWOUND, 1)[1]
    for name, mask in ticket.masks.items():
        assert np.array_equal(np.abs(found[name]), np.abs(drawn[name]))
        assert np.array_equal(np.sign(found[name][mask]), np.sign(ticket.initial_values()[name][mask]))


def test_a_rewound_torch_ticket_has_the_magnitude_arm_of_its_seed() -> None:
    ticket = torch_ticket(order=("fc2", "fc1"))
    trained = {n: v + np.float32(0.01) for n, v in ticket.values_of_seed().items()}
    kept = {name: trained[name][mask] for name, mask in ticket.masks.items()}
    late = as_stored(ticket, stored=trained | kept, rewind_step=5)
    values, start_step = start_of(late, "magnitude", REWOUND, 1)
    assert start_step == 0
    assert all(np.array_equal(values[name], drawn) for name, drawn in ticket.values_of_seed().items())


def test_the_dense_arm_keeps_everything_and_the_ticket_arm_its_masks() -> None:
    ticket = make_ticket()
    assert arm_masks(ticket, "dense", 0) == {}
    for arm in ("ticket", "reinit"):
        assert all((arm_masks(ticket, arm, 0)[n] == mask).all() for n, mask in ticket.masks.items())


def test_survivors_move_with_their_positions_where_the_other_values_are_unknown() -> None:
    ticket = survivors_only()
    values, masks = values_of(ticket, "shuffle", 2), arm_masks(ticket, "shuffle", 2)
    for name, mask in ticket.masks.items():
        assert sorted(values[name][masks[name]]) == sorted(ticket.initial_values()[name][mask])
        assert not values[name][~masks[name]].any()
    dense = [values_of(ticket, "dense", seed)["fc1.weight"] for seed in (0, 1)]
    assert not np.array_equal(*dense)
    assert run_arm(ticket, "dense", digits(), SMALL, 1).paired is False


def test_after_rewinding_reinit_trains_new_values_densely_for_k_steps() -> None:
    ticket = rewound()
    values, start_step = start_of(ticket, "reinit", REWOUND, 1)
    fresh = draw_all(ticket.architecture, ticket.start.laws, 1, REINIT)
    expected, _ = advance(spec_of(ticket.architecture, fresh, {}, digits(), REWOUND, ORDER_SEED + 1), 5)
    assert start_step == 5
    assert all(np.array_equal(values[name], expected[name]) for name in expected)


def test_after_rewinding_the_magnitude_arm_starts_at_step_0_from_the_seed() -> None:
    ticket = rewound()
    values, start_step = start_of(ticket, "magnitude", REWOUND, 1)
    assert start_step == 0
    expected = draw_all(network(), default_laws(network()), 0)
    assert all(np.array_equal(values[name], expected[name]) for name in expected)
    whole = first_ticket(tasks.get("digits"), network(), REWOUND, 0)
    assert start_of(whole, "magnitude", REWOUND, 1)[1] == 5


def test_the_dense_arm_is_drawn_by_the_tickets_laws_and_trains_from_step_0_whatever_the_ticket_does() -> None:
    expected = draw_all(network(), default_laws(network()), 3, REINIT)
    for ticket, recipe in ((make_ticket(stored=True), SMALL), (rewound(), REWOUND)):
        values, start_step = start_of(ticket, "dense", recipe, 3)
        assert start_step == 0
        assert all(np.array_equal(values[name], expected[name]) for name in expected)


def test_an_arm_reports_each_replicate_and_comes_back_from_json() -> None:
    ticket, events = make_ticket(), list[dict[str, Any]]()
    found = run_arm(ticket, "shuffle", digits(), replicates=3, progress=events.append)
    assert found.seeds == [0, 1, 2]
    assert len({*found.accuracies}) > 1
    assert found.failed == [False] * 3
    assert ArmResult.from_dict(found.to_dict()) == found
    assert [e["done"] for e in events if e["kind"] == "arm"] == [1, 2, 3]
    assert found.cost.images == 3 * 20 * 60


def test_running_an_arm_again_changes_nothing() -> None:
    ticket = make_ticket()
    for arm in ARMS:
        one, again = (run_arm(ticket, arm, digits(), replicates=1).to_dict() for _ in range(2))
        assert {**one, "cost": None} == {**again, "cost": None}


def test_a_failed_replicate_counts_as_chance_and_is_shown() -> None:
    ticket = make_ticket(recipe=SMALL.override({"learning_rate": 1e30}).to_dict())
    found = run_arm(ticket, "ticket", digits(), replicates=2)
    assert found.failed == [True, True]
    assert found.accuracies == [0.1, 0.1]
    assert found.early_stop_steps == [30, 30]


def test_unknown_arms_and_no_replicates_are_refused() -> None:
    with pytest.raises(Invalid, match="expected one of dense, reference, ticket"):
        run_arm(make_ticket(), "inverted", digits())
    with pytest.raises(Invalid, match="at least 1"):
        run_arm(make_ticket(), "ticket", digits(), replicates=0)
    with pytest.raises(Invalid, match="counted from 0"):
        run_arm(make_ticket(), "ticket", digits(), replicates=range(4, 0, -1))


@settings(max_examples=25, deadline=None)
@given(density=st.floats(0.005, 1), seed=st.integers(0, 20))
def test_the_magnitude_arm_keeps_the_largest_initial_values_of_all(density: float, seed: int) -> None:
    ticket = make_ticket(density=density, seed=seed)
    masks, values = arm_masks(ticket, "magnitude", 0), values_of(ticket, "magnitude")
    assert sum(int(mask.sum()) for mask in masks.values()) == ticket.kept
    kept = np.concatenate([np.abs(values[name][mask]) for name, mask in masks.items()])
    lost = np.concatenate([np.abs(values[name][~mask]) for name, mask in masks.items()])
    assert all(mask.any() for mask in masks.values())
    spared = sum(int(mask.sum()) == 1 for mask in masks.values())  # a layer's only weight may be small
    assert not lost.size or np.sort(kept)[spared:].min(initial=9) >= lost.max()


def test_every_layer_keeps_its_largest_value_in_the_magnitude_arm() -> None:
    values = values_of(make_ticket(), "dense")
    ticket = make_ticket(density=0.05, stored=True)
    small = {name: value * (0.001 if name == "fc1.weight" else 1) for name, value in values.items()}
    masks = magnitude_masks(ticket, small)
    assert masks["fc1.weight"].sum() == 1
    assert masks["fc1.weight"].ravel()[np.abs(values["fc1.weight"]).argmax()]
    assert sum(int(mask.sum()) for mask in masks.values()) == ticket.kept


def test_the_rescaled_arm_divides_new_values_by_the_root_of_each_layers_density() -> None:
    ticket = make_ticket()
    plain, scaled = values_of(ticket, "reinit", 2), values_of(ticket, "rescaled", 2)
    for name, mask in ticket.masks.items():
        assert scaled[name] == pytest.approx(plain[name] / np.sqrt(mask.mean()), rel=1e-6)
    assert np.array_equal(scaled["fc1.bias"], plain["fc1.bias"])


def test_a_pruned_model_restarts_where_its_recipe_says_and_its_reinit_is_a_plain_draw() -> None:
    recipe = REWOUND.override({"start_step": 3})
    ticket = rewound()
    for arm in ("ticket", "reinit", "rescaled", "shuffle", "random"):
        assert start_of(ticket, arm, recipe, 0)[1] == 3
    assert start_of(ticket, "dense", recipe, 0)[1] == 0
    fresh = draw_all(ticket.architecture, ticket.start.laws, 1, REINIT)
    values, _ = start_of(ticket, "reinit", recipe, 1)
    assert all(np.array_equal(values[name], fresh[name]) for name in fresh)


def test_replicates_that_follow_are_those_of_a_longer_arm() -> None:
    ticket = make_ticket()
    whole = run_arm(ticket, "reinit", digits(), replicates=3)
    parts = run_arm(ticket, "reinit", digits(), replicates=1).joined(
        run_arm(ticket, "reinit", digits(), replicates=range(1, 3))
    )
    assert parts.seeds == [0, 1, 2]
    assert {**parts.to_dict(), "cost": 0} == {**whole.to_dict(), "cost": 0}
    assert parts.cost.images == whole.cost.images
    with pytest.raises(Invalid, match="cannot follow"):
        whole.joined(parts)


def test_results_of_protocol_1_are_still_read() -> None:
    found = run_arm(make_ticket(), "dense", digits(), replicates=1)
    later = ("cached", "cached_cost", "data", "repeated", "differing")
    old = {name: value for name, value in found.to_dict().items() if name not in later}
    assert ArmResult.from_dict(old).accuracies == found.accuracies


def test_dense_updates_before_a_reinit_are_counted() -> None:
    ticket = rewound()
    found = run_arm(ticket, "reinit", digits(), REWOUND, 1)
    assert found.cost.images == 30 * 32, "25 updates of the masked network and 5 dense ones"


def test_what_cannot_be_verified_is_refused_before_any_training() -> None:
    held = SMALL.override({"pruning": {"mask_0_action": "freeze"}})
    with pytest.raises(InvalidRecipe, match="mask_0_action is 'freeze', expected 'zero'"):
        run_arm(make_ticket(), "dense", digits(), held)
    with pytest.raises(InvalidRecipe, match="starts at step 5, expected less than the recipe's 5 steps"):
        run_arm(rewound(), "dense", digits(), SMALL.override({"steps": 5}))
    wide = digits()._replace(train_x=np.zeros((40, 1, 28, 28), np.float32))
    with pytest.raises(InvalidArchitecture, match=r"\[1, 8, 8\], but the task's are \[1, 28, 28\]"):
        run_arm(make_ticket(), "dense", wide)
    more = digits()._replace(train_y=np.full(1000, 11))
    with pytest.raises(InvalidArchitecture, match=r"shape \[10\], but the task has 12 classes"):
        run_arm(make_ticket(), "dense", more)


def test_no_arm_sees_the_data_order_of_the_search() -> None:
    assert ORDER_SEED > 2**40
    assert ORDER_SEED + 1000 < 2**53
