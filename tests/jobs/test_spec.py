"""Every rule of a job's spec and budget, each named by its JSON pointer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.jobs.kinds import Budget, Plan, check_budget, parse
from app.jobs.kinds.prune import PruneSpec, plan_search_job
from app.jobs.kinds.verify import VerifySpec
from nirvana import tasks
from nirvana.errors import InvalidJob
from nirvana.networks import zoo
from nirvana.pruning.methods import METHODS
from nirvana.training.cost import most_flops
from nirvana.verification.protocol import ARMS, choose_replicates, count_steps, plan_looks
from tests.factories import RECIPE, make_ticket
from tests.registry import make_settings

GOOD = {"task": "digits", "architecture": "lenet-300-100", "levels": 10}
LARGEST = 50_000_000
A_DAY = 86_400.0
SETTINGS = make_settings(Path("/nowhere"), job_deadline_seconds=A_DAY)


def plan_pruning(spec: dict[str, Any]) -> Plan:
    return plan_search_job(parse(PruneSpec, spec, "/spec"), tasks.get(spec.get("task", "digits")), LARGEST)


def problems_of(spec: dict[str, Any], budget: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    with pytest.raises(InvalidJob) as caught:
        check_budget(parse(Budget, budget or {}, "/budget"), plan_pruning(spec), SETTINGS)
    assert caught.value.errors
    return [(problem.pointer, problem.code) for problem in caught.value.errors]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"task": None}, "/spec/task", "missing"),
        ({"task": 7}, "/spec/task", "type"),
        ({"method": "magic"}, "/spec/method", "unknown"),
        ({"method": ["imp"]}, "/spec/method", "unknown"),
        ({"method": "snip", "levels": None}, "/spec/levels", "one-of"),
        ({"architecture": "lenet-900"}, "/spec/architecture", "unknown"),
        ({"architecture": "lenet-5"}, "/spec/architecture", "does-not-fit"),
        ({"architecture": "mlp-100000-100000"}, "/spec/architecture", "does-not-fit"),
        ({"architecture": "mlp-9000-9000"}, "/spec/architecture", "too-large"),
        ({"levels": 0}, "/spec/levels", "range"),
        ({"levels": -3}, "/spec/levels", "range"),
        ({"levels": 1.5}, "/spec/levels", "range"),
        ({"levels": True}, "/spec/levels", "range"),
        ({"levels": None}, "/spec/levels", "one-of"),
        ({"density": 0.1}, "/spec/levels", "one-of"),
        ({"levels": None, "density": 0.0}, "/spec/density", "range"),
        ({"levels": None, "density": 1.0}, "/spec/density", "range"),
        ({"levels": None, "density": float("nan")}, "/spec/density", "range"),
        ({"levels": None, "density": 1e-12}, "/spec/density", "too-many-levels"),
        ({"seed": -1}, "/spec/seed", "range"),
        ({"seed": 2**60}, "/spec/seed", "range"),
        ({"name": "Ada/Net"}, "/spec/name", "pattern"),
        ({"colour": "red"}, "/spec/colour", "unknown-field"),
        ({"recipe": {"steps": 0}}, "/spec/recipe/steps", "value"),
        ({"recipe": {"steps": 10**12}}, "/spec/recipe/steps", "value"),
        ({"recipe": {"steps": 2**53 - 1}}, "/spec/recipe/steps", "value"),
        ({"recipe": {"batch_size": 101}}, "/spec/recipe/batch_size", "too-large"),
        ({"recipe": {"optimizer": {}}}, "/spec/recipe/optimizer", "value"),
        ({"recipe": {"step": 5}}, "/spec/recipe/step", "unknown-field"),
        ({"recipe": {"optimizer": "lion"}}, "/spec/recipe/optimizer", "value"),
        ({"recipe": {"evaluate_on": "test"}}, "/spec/recipe/evaluate_on", "reads-test-set"),
        ({"recipe": {"test_labels": True}}, "/spec/recipe/test_labels", "reads-test-set"),
        ({"recipe": {"start_step": 250}}, "/spec/recipe/start_step", "past-the-end"),
        ({"recipe": [1]}, "/spec/recipe", "type"),
        ({"recipe": {"pruning": {"rewind_step": 1000}}}, "/spec/recipe/pruning/rewind_step", "past-the-end"),
        (
            {"recipe": {"pruning": {"layer_rates": {"fc9.weight": 0.1}}}},
            "/spec/recipe/pruning/layer_rates/fc9.weight",
            "unknown-layer",
        ),
    ],
)
def test_a_bad_spec_is_refused_where_it_is_bad(change: dict[str, Any], pointer: str, code: str) -> None:
    assert problems_of(GOOD | change)[0] == (pointer, code)


@pytest.mark.parametrize(
    ("budget", "pointer", "code"),
    [
        ({"seconds": -5}, "/budget/seconds", "range"),
        ({"seconds": 0}, "/budget/seconds", "range"),
        ({"seconds": "ten"}, "/budget/seconds", "range"),
        ({"seconds": A_DAY + 1}, "/budget/seconds", "range"),
        ({"flops": -1}, "/budget/flops", "range"),
        ({"flops": 1e6}, "/budget/flops", "over-budget"),
        ({"parameters": 1000}, "/budget/parameters", "over-budget"),
        ({"money": 5}, "/budget/money", "unknown-field"),
    ],
)
def test_a_bad_budget_is_refused(budget: dict[str, Any], pointer: str, code: str) -> None:
    assert problems_of(GOOD, budget) == [(pointer, code)]


def test_every_problem_is_told_at_once() -> None:
    found = problems_of({"task": 1, "levels": 0, "method": "x"})
    assert {pointer for pointer, _ in found} >= {
        "/spec/task",
        "/spec/architecture",
        "/spec/levels",
        "/spec/method",
    }


def test_defaults_are_filled_in_so_that_a_job_means_the_same_for_ever() -> None:
    plan = plan_pruning(GOOD)
    assert plan.spec["method"] == "imp"
    assert plan.spec["seed"] == 0
    assert plan.spec["recipe"]["batch_size"] == 60
    assert plan.rounds == 11
    assert check_budget(Budget(), plan, SETTINGS) == {"seconds": A_DAY}


def test_a_density_is_as_many_rounds_as_it_takes() -> None:
    spec = {"task": "digits", "architecture": "mlp-16", "density": 0.5, "recipe": {"pruning": {"rate": 0.5}}}
    assert plan_pruning(spec).rounds == 3


def test_a_network_that_does_not_fit_is_refused_with_both_shapes() -> None:
    with pytest.raises(InvalidJob, match=r"at least 12x12, but the input has shape \[1, 8, 8\]"):
        plan_pruning(GOOD | {"architecture": "lenet-5"})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_asked_for(method: str) -> None:
    plan = plan_pruning(GOOD | {"method": method})
    assert plan.rounds == (11 if METHODS[method].is_iterative else 2)


def test_a_method_with_one_mask_goes_to_any_density_at_once() -> None:
    rounds = {"task": "digits", "architecture": "mlp-16", "recipe": {"pruning": {"rate": 0.0}}}
    assert plan_pruning(rounds | {"method": "snip", "density": 0.1}).rounds == 2


@pytest.mark.parametrize(
    ("given", "replicates", "most"),
    [
        ({}, 5, 20),
        ({"replicates": 7}, 7, 7),
        ({"max_replicates": 10}, 5, 10),
        ({"replicates": 5, "max_replicates": 20}, 5, 20),
        ({"replicates": 10, "max_replicates": 15}, 10, 15),
        ({"replicates": None, "max_replicates": None}, 5, 20),
    ],
)
def test_a_verification_plans_for_the_most_that_can_happen(
    given: dict[str, Any], replicates: int, most: int
) -> None:
    spec = parse(VerifySpec, {"ticket": "a/b"} | given, "/spec")
    assert choose_replicates(spec.replicates, spec.max_replicates) == (replicates, most)
    looks = plan_looks(replicates, most)
    assert count_steps(looks) == 1 + len(looks) * (len(ARMS) + 1)


def test_a_training_costs_its_updates_its_looks_and_its_teacher() -> None:
    """20 updates of 60; looks at 0, 10 and 20; the test data are read three times."""
    architecture, sizes = make_ticket().architecture, {"validation": 297, "test": 500}
    images = 3 * 20 * 60 + 3 * 297 + 3 * 500
    assert most_flops(architecture, RECIPE, sizes) == architecture.flops() * images
    every = RECIPE.override({"evaluate_every": 1})
    assert most_flops(architecture, every, sizes) == architecture.flops() * (images + 18 * 297)
    taught = RECIPE.override({"distillation": {"temperature": 4, "weight": 0.5}})
    assert most_flops(architecture, taught, sizes) == 2 * architecture.flops() * images


@pytest.mark.parametrize(
    ("change", "budget"),
    [
        ({"recipe": {"steps": 10**7}}, {}),
        ({"method": "amc", "options": {"episodes": 100_000}, "architecture": "resnet-18"}, {}),
        ({"recipe": {"evaluate_every": 1, "batch_size": 1, "steps": 10**6}}, {"flops": 1e19}),
    ],
)
def test_a_job_past_the_services_limit_is_refused_at_once_whatever_its_budget(
    change: dict[str, Any], budget: dict[str, Any]
) -> None:
    settings = make_settings(Path("/nowhere"), max_flops_per_job=1e12)
    parsed, plan = parse(Budget, budget, "/budget"), plan_pruning(GOOD | change)
    with pytest.raises(
        InvalidJob, match=r"the job needs \d\.\d+e\+\d+ flops, expected at most 1e\+12"
    ) as caught:
        check_budget(parsed, plan, settings)
    assert [(problem.pointer, problem.code) for problem in caught.value.errors] == [("/spec", "too-large")]


def test_a_cost_past_the_largest_float_is_refused_and_does_not_overflow() -> None:
    with pytest.raises(InvalidJob) as caught:
        check_budget(parse(Budget, {"flops": 1e18}, "/budget"), Plan({}, 1, 1, 10**400), SETTINGS)
    assert [problem.pointer for problem in caught.value.errors] == ["/budget/flops", "/spec"]


def test_the_largest_default_jobs_are_let_through() -> None:
    """A verification of resnet-18 on cifar-10 with every top-up plans 2.0e18 operations."""
    task = tasks.get("cifar-10")
    architecture = zoo.build("resnet-18", task.input_shape, task.classes)
    flops = most_flops(architecture, task.default_recipe("resnet-18"), task.sizes) * 20 * len(ARMS)
    assert 1e18 < flops < SETTINGS.max_flops_per_job
    assert check_budget(Budget(), Plan({}, 1, 1, flops), SETTINGS) == {"seconds": A_DAY}


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({}, "/spec/ticket"),
        ({"ticket": 5}, "/spec/ticket"),
        ({"ticket": "a/b", "replicates": 1}, "/spec/replicates"),
        ({"ticket": "a/b", "arms": ["dense"]}, "/spec/arms"),
        ({"ticket": "a/b", "max_replicates": 4}, "/spec/max_replicates"),
        ({"ticket": "a/b", "max_replicates": 21}, "/spec/max_replicates"),
        ({"ticket": "a/b", "replicates": 5, "max_replicates": 21}, "/spec/max_replicates"),
        ({"ticket": "a/b", "replicates": 5, "max_replicates": "all"}, "/spec/max_replicates"),
        ({"ticket": "a/b", "replicates": 101, "max_replicates": 101}, "/spec/replicates"),
    ],
)
def test_a_bad_verification_is_refused(spec: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse(VerifySpec, spec, "/spec")
    assert [problem.pointer for problem in caught.value.errors] == [pointer]
