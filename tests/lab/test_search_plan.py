"""The plan of a search: how many trainings, how many operations, and what is refused before any of them."""

from __future__ import annotations

import pytest

from nirvana.errors import Invalid, InvalidArchitecture, NotFound
from nirvana.lab import PruningTarget, SearchPlan, find, plan_search
from nirvana.networks import zoo
from nirvana.training.cost import most_flops
from tests.lab.small import SMALL


def lr_rewinding(rate: float | None) -> SearchPlan:
    """LeNet on digits to 10 %, where the recipe gives its first layer a rate of its own."""
    rates = {} if rate is None else {"fc1.weight": rate}
    target = PruningTarget("lr-rewinding", density=0.1)
    return plan_search("digits", "lenet-300-100", target, recipe={"pruning": {"layer_rates": rates}})


@pytest.mark.parametrize("rate", [None, 0.0, 0.02])
def test_lr_rewinding_ranks_globally_whatever_the_layers_rates_are(rate: float | None) -> None:
    """0.8^11 < 0.1 < 0.8^10: twelve trainings, the dense one among them."""
    plan = lr_rewinding(rate)
    assert plan.recipe.pruning.scope == "global"
    assert plan.trainings == 12
    recipe, architecture = plan.recipe, zoo.build("lenet-300-100", (1, 8, 8), 10)
    assert plan.flops == 12 * most_flops(architecture, recipe, plan.task.sizes)
    assert plan.flops == lr_rewinding(None).flops


def test_a_plan_has_as_many_trainings_as_the_search_has_levels() -> None:
    for method in ("imp", "lr-rewinding", "distilled"):
        plan = plan_search("digits", "mlp-16", PruningTarget(method, levels=3), recipe=SMALL)
        levels = find("digits", "mlp-16", method, levels=3, recipe=SMALL).levels
        assert plan.trainings == len(levels) == 4
    by_density = PruningTarget("imp", density=0.3)
    plan = plan_search("digits", "mlp-16", by_density, recipe=SMALL)
    assert plan.trainings == len(find("digits", "mlp-16", density=0.3, recipe=SMALL).levels)


def test_a_method_that_is_not_iterative_counts_its_search_and_its_ticket() -> None:
    assert plan_search("digits", "mlp-16", PruningTarget("one-shot", levels=9), recipe=SMALL).trainings == 2


def test_a_search_counts_its_looks_at_the_validation_data() -> None:
    plans = [
        plan_search("digits", "mlp-16", PruningTarget("amc", density=0.1, options={"episodes": n}))
        for n in (200, 300)
    ]
    assert plans[1].flops - plans[0].flops == 100 * 297 * plans[0].architecture.flops()


def test_layerwise_rates_that_never_reach_the_density_are_refused() -> None:
    rates = {"pruning": {"layer_rates": {"fc1.weight": 0.0}}}
    plan = plan_search("digits", "lenet-300-100", PruningTarget("imp", density=0.1), recipe=rates)
    with pytest.raises(Invalid, match=r"density 0\.1: out of reach"):
        _ = plan.trainings


def test_what_is_asked_for_must_exist_and_fit() -> None:
    target = PruningTarget("imp", levels=1)
    with pytest.raises(NotFound):
        plan_search("digitz", "mlp-16", target)
    with pytest.raises(InvalidArchitecture, match=r"inputs of shape \[1, 28, 28\], but the task digits has"):
        plan_search("digits", zoo.build("mlp-16", (1, 28, 28), 10), target)
