"""What a search may ask for, and any job's budget: every rule, each broken one with its JSON pointer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.jobs.plan import (
    FORWARD_AND_BACKWARD,
    Plan,
    find_task,
    is_number,
    range_problems,
    refuse,
    unknown_fields,
)
from nirvana import zoo
from nirvana.architecture import Architecture
from nirvana.errors import Invalid, InvalidArchitecture, InvalidJob, NotFound, Problem
from nirvana.methods import METHODS
from nirvana.recipe import Recipe
from nirvana.tasks import Task

MAX_LEVELS = 100
MAX_SEED = 2**53 - 1

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,58}[a-z0-9])?")
_PRUNE_FIELDS = ("task", "architecture", "method", "levels", "density", "seed", "recipe", "name")
_BUDGET_FIELDS = ("seconds", "parameters", "flops")


def plan_pruning(spec: Mapping[str, Any], max_parameters: int) -> Plan:
    """Check a `prune` spec and fill in its defaults.

    Raises:
        InvalidJob: an unknown task, architecture, method or field, an impossible number, an architecture
            that does not fit the task, or a recipe that breaks a rule.
    """
    refuse(unknown_fields(spec, _PRUNE_FIELDS, "/spec"))
    full: dict[str, Any] = {"method": "imp", "seed": 0}
    full |= {name: value for name, value in spec.items() if value is not None}
    refuse(list(_pruning_problems(full)))
    task = find_task(full["task"])
    architecture = _build(full["architecture"], task, max_parameters)
    recipe = _recipe(task, architecture, full.get("recipe", {}))
    trainings = 2  # a method that is not iterative: its search, and its ticket
    if METHODS[full["method"]].is_iterative:
        trainings = 1 + (full.get("levels") or _levels_down_to(full["density"], architecture, recipe))
    images = recipe.steps * recipe.batch_size
    flops = FORWARD_AND_BACKWARD * architecture.flops() * images * trainings
    return Plan(full | {"recipe": recipe.to_dict()}, trainings, architecture.parameter_count, flops)


def check_budget(budget: Mapping[str, Any], plan: Plan, deadline_seconds: float) -> dict[str, Any]:
    """The job's budget with its deadline filled in.

    Args:
        deadline_seconds: longest time that any job may take here.

    Raises:
        InvalidJob: a bound that is not a positive number, or one that the plan exceeds.
    """
    problems = unknown_fields(budget, _BUDGET_FIELDS, "/budget")
    found = {name: value for name, value in budget.items() if value is not None and name in _BUDGET_FIELDS}
    for name, value in found.items():
        if not is_number(value) or value <= 0:
            problems.append(
                Problem(f"/budget/{name}", "range", f"{name} is {value!r}, expected a number above 0")
            )
    refuse(problems)
    needs: dict[str, float] = {"parameters": plan.parameters, "flops": plan.flops}
    for name, need in needs.items():
        if name in found and need > found[name]:
            detail = f"the job needs {need:.3g} {name}, the budget allows {found[name]:.3g}"
            problems.append(Problem(f"/budget/{name}", "over-budget", detail))
    if found.get("seconds", 0) > deadline_seconds:
        detail = f"seconds is {found['seconds']!r}, expected at most {deadline_seconds:g}"
        problems.append(Problem("/budget/seconds", "range", detail))
    refuse(problems)
    return {"seconds": deadline_seconds} | found


def _pruning_problems(spec: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("task", "architecture"):
        if not isinstance(spec.get(name), str):
            code = "missing" if name not in spec else "type"
            yield Problem(f"/spec/{name}", code, f"{name} is {spec.get(name)!r}, expected a name")
    if not isinstance(spec["method"], str) or spec["method"] not in METHODS:
        detail = f"method {spec['method']!r} is unknown, expected one of {', '.join(METHODS)}"
        yield Problem("/spec/method", "unknown", detail)
    yield from range_problems(spec, "levels", 1, MAX_LEVELS)
    yield from range_problems(spec, "seed", 0, MAX_SEED)
    density = spec.get("density")
    if density is not None and not (is_number(density) and 0 < density < 1):
        yield Problem(
            "/spec/density",
            "range",
            f"density is {density!r}, expected a number between 0 and 1, ends excluded",
        )
    if ("levels" in spec) == ("density" in spec):
        yield Problem("/spec/levels", "one-of", "expected either levels or density")
    if "name" in spec and not (isinstance(spec["name"], str) and _NAME.fullmatch(spec["name"])):
        yield Problem(
            "/spec/name", "pattern", f"name is {spec['name']!r}, expected lower-case letters, digits, . _ -"
        )


def _build(name: str, task: Task, max_parameters: int) -> Architecture:
    """The architecture of that name for the task's inputs and classes."""
    try:
        architecture = zoo.build(name, task.input_shape, task.classes)
    except NotFound as error:
        raise InvalidJob(
            error.detail, errors=[Problem("/spec/architecture", "unknown", error.detail)]
        ) from None
    except InvalidArchitecture as error:
        detail = f"{name} does not fit the task {task.name}: {error.detail}"
        raise InvalidJob(detail, errors=[Problem("/spec/architecture", "does-not-fit", detail)]) from None
    if architecture.parameter_count > max_parameters:
        detail = f"{name} has {architecture.parameter_count} parameters, expected at most {max_parameters}"
        raise InvalidJob(detail, errors=[Problem("/spec/architecture", "too-large", detail)])
    return architecture


def _recipe(task: Task, architecture: Architecture, fields: Any) -> Recipe:
    """The task's default recipe with some fields replaced."""
    try:
        recipe = task.default_recipe(architecture.name).override(fields)
    except Invalid as error:
        problems = [
            Problem(f"/spec/recipe{problem.pointer}", problem.code, problem.detail)
            for problem in error.errors
        ]
        found = problems or [Problem("/spec/recipe", "type", error.detail)]
        raise InvalidJob(error.detail, errors=found) from None
    at, has = "/spec/recipe/pruning/layer_rates", f"{architecture.name} has no prunable"
    unknown = [name for name in recipe.pruning.layer_rates if name not in architecture.prunable]
    refuse([Problem(f"{at}/{name}", "unknown-layer", f"{has} {name!r}") for name in unknown])
    return recipe


def _levels_down_to(density: float, architecture: Architecture, recipe: Recipe) -> int:
    """Levels until at most `density` is kept, for the progress bar; the lab counts exactly.

    Raises:
        InvalidJob: the recipe's rates never get there.
    """
    pruning = recipe.pruning
    weights = {name: math.prod(architecture.parameters[name]) for name in architecture.prunable}
    output = architecture.prunable[-1]
    kept = dict[str, float](weights)
    for level in range(1, MAX_LEVELS + 1):
        for name in kept:
            rate = pruning.rate
            if pruning.scope == "layerwise":
                rate = pruning.layer_rate(name, is_output=name == output)
            kept[name] *= 1 - rate
        if sum(kept.values()) <= density * architecture.total:
            return level
    detail = f"density {density} takes more than {MAX_LEVELS} levels at the recipe's pruning rates"
    raise InvalidJob(detail, errors=[Problem("/spec/density", "too-many-levels", detail)])
