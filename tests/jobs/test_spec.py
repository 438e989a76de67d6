"""Every rule of a job's spec and budget, each named by its JSON pointer."""

from __future__ import annotations

from typing import Any

import pytest

from app.jobs.spec import check_budget, check_verification, plan_pruning
from nirvana.errors import InvalidJob

GOOD = {"task": "digits", "architecture": "lenet-300-100", "levels": 10}
LARGEST = 50_000_000
A_DAY = 86_400.0


def problems_of(spec: dict[str, Any], budget: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    with pytest.raises(InvalidJob) as caught:
        check_budget(budget or {}, plan_pruning(spec, LARGEST), A_DAY)
    assert caught.value.errors
    return [(problem.pointer, problem.code) for problem in caught.value.errors]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"task": "nothing"}, "/spec/task", "unknown"),
        ({"task": None}, "/spec/task", "missing"),
        ({"task": 7}, "/spec/task", "type"),
        ({"method": "magic"}, "/spec/method", "unknown"),
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
        ({"recipe": {"step": 5}}, "/spec/recipe/step", "unknown-field"),
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
    plan = plan_pruning(GOOD, LARGEST)
    assert plan.spec["method"] == "imp"
    assert plan.spec["seed"] == 0
    assert plan.spec["recipe"]["batch_size"] == 60
    assert plan.rounds == 11
    assert check_budget({}, plan, A_DAY) == {"seconds": A_DAY}


def test_a_density_is_as_many_rounds_as_it_takes() -> None:
    spec = {"task": "digits", "architecture": "mlp-16", "density": 0.5, "recipe": {"pruning": {"rate": 0.5}}}
    assert plan_pruning(spec, LARGEST).rounds == 3


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({}, "/spec/ticket"),
        ({"ticket": 5}, "/spec/ticket"),
        ({"ticket": "a/b", "replicates": 1}, "/spec/replicates"),
        ({"ticket": "a/b", "arms": ["dense"]}, "/spec/arms"),
    ],
)
def test_a_bad_verification_is_refused(spec: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        check_verification(spec)
    assert [problem.pointer for problem in caught.value.errors] == [pointer]
