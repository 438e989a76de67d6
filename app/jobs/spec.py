"""What a job may ask for: every rule of `spec` and `budget`, each broken one with its JSON pointer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nirvana import tasks, zoo
from nirvana.architecture import Architecture
from nirvana.errors import Invalid, InvalidArchitecture, InvalidJob, NotFound, Problem, raise_problems
from nirvana.protocol import ARMS
from nirvana.recipe import Recipe
from nirvana.tasks import Task

METHODS = ("imp", "one-shot")
MAX_LEVELS = 100
MAX_REPLICATES = 100
MAX_SEED = 2**53 - 1
FORWARD_AND_BACKWARD = 3  # a backward pass costs two forward ones

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,58}[a-z0-9])?")
_PRUNE_FIELDS = ("task", "architecture", "method", "levels", "density", "seed", "recipe", "name")
_VERIFY_FIELDS = ("ticket", "replicates")
_BUDGET_FIELDS = ("seconds", "parameters", "flops")


@dataclass(frozen=True)
class Plan:
    """A job that may run.

    Attributes:
        spec: with every default filled in; what the worker reads.
        rounds: durable steps that it takes, for its progress bar.
        parameters: of the network.
        flops: floating-point operations of its trainings at most, every weight counted.
    """

    spec: dict[str, Any]
    rounds: int
    parameters: int
    flops: int


def plan_pruning(spec: Mapping[str, Any], max_parameters: int) -> Plan:
    """Check a `prune` spec and fill in its defaults.

    Raises:
        InvalidJob: an unknown task, architecture, method or field, an impossible number, an architecture
            that does not fit the task, or a recipe that breaks a rule.
    """
    _refuse(_unknown(spec, _PRUNE_FIELDS, "/spec"))
    full: dict[str, Any] = {"method": "imp", "seed": 0}
    full |= {name: value for name, value in spec.items() if value is not None}
    _refuse(list(_pruning_problems(full)))
    task = _find_task(full["task"])
    architecture = _build(full["architecture"], task, max_parameters)
    recipe = _recipe(task, architecture, full.get("recipe", {}))
    levels = full.get("levels") or _levels_down_to(full["density"], architecture, recipe)
    trainings = levels + 1 if full["method"] == "imp" else 2
    images = recipe.steps * recipe.batch_size
    flops = FORWARD_AND_BACKWARD * architecture.flops() * images * trainings
    return Plan(full | {"recipe": recipe.to_dict()}, trainings, architecture.parameter_count, flops)


def plan_verification(spec: Mapping[str, Any], architecture: Architecture, recipe: Recipe) -> Plan:
    """Fill in the defaults of a `verify` spec whose ticket has been found.

    Args:
        spec: checked, with the ticket's `digest` and the digest of its `file`.
        architecture: the ticket's.
        recipe: the ticket's.
    """
    full = {"replicates": 5} | dict(spec)
    replicates = full["replicates"]
    images = recipe.steps * recipe.batch_size * replicates * len(ARMS)
    flops = FORWARD_AND_BACKWARD * architecture.flops() * images
    return Plan(full, len(ARMS) + 1, architecture.parameter_count, flops)


def check_verification(spec: Mapping[str, Any]) -> None:
    """Check what can be checked of a `verify` spec before its ticket is looked up.

    Raises:
        InvalidJob: an unknown field, no ticket, or too few or too many replicates.
    """
    problems = _unknown(spec, _VERIFY_FIELDS, "/spec")
    if not isinstance(spec.get("ticket"), str):
        detail = f"ticket is {spec.get('ticket')!r}, expected owner/name or sha256:..."
        problems.append(Problem("/spec/ticket", "missing" if "ticket" not in spec else "type", detail))
    problems += _range_problems(spec, "replicates", 2, MAX_REPLICATES)
    _refuse(problems)


def check_budget(budget: Mapping[str, Any], plan: Plan, deadline_seconds: float) -> dict[str, Any]:
    """The job's budget with its deadline filled in.

    Args:
        deadline_seconds: longest time that any job may take here.

    Raises:
        InvalidJob: a bound that is not a positive number, or one that the plan exceeds.
    """
    problems = _unknown(budget, _BUDGET_FIELDS, "/budget")
    found = {name: value for name, value in budget.items() if value is not None and name in _BUDGET_FIELDS}
    for name, value in found.items():
        if not _is_number(value) or value <= 0:
            problems.append(
                Problem(f"/budget/{name}", "range", f"{name} is {value!r}, expected a number above 0")
            )
    _refuse(problems)
    needs: dict[str, float] = {"parameters": plan.parameters, "flops": plan.flops}
    for name, need in needs.items():
        if name in found and need > found[name]:
            detail = f"the job needs {need:.3g} {name}, the budget allows {found[name]:.3g}"
            problems.append(Problem(f"/budget/{name}", "over-budget", detail))
    if found.get("seconds", 0) > deadline_seconds:
        detail = f"seconds is {found['seconds']!r}, expected at most {deadline_seconds:g}"
        problems.append(Problem("/budget/seconds", "range", detail))
    _refuse(problems)
    return {"seconds": deadline_seconds} | found


def _refuse(problems: list[Problem]) -> None:
    raise_problems(InvalidJob, "job", problems)


def _unknown(fields: Any, known: tuple[str, ...], at: str) -> list[Problem]:
    if not isinstance(fields, Mapping):
        raise InvalidJob(
            f"{at[1:]} is not an object", errors=[Problem(at, "type", f"found {type(fields).__name__}")]
        )
    expected = f"expected some of {', '.join(known)}"
    return [
        Problem(f"{at}/{name}", "unknown-field", f"{name} is unknown, {expected}")
        for name in fields
        if name not in known
    ]


def _pruning_problems(spec: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("task", "architecture"):
        if not isinstance(spec.get(name), str):
            code = "missing" if name not in spec else "type"
            yield Problem(f"/spec/{name}", code, f"{name} is {spec.get(name)!r}, expected a name")
    if spec["method"] not in METHODS:
        detail = f"method {spec['method']!r} is unknown, expected one of {', '.join(METHODS)}"
        yield Problem("/spec/method", "unknown", detail)
    yield from _range_problems(spec, "levels", 1, MAX_LEVELS)
    yield from _range_problems(spec, "seed", 0, MAX_SEED)
    density = spec.get("density")
    if density is not None and not (_is_number(density) and 0 < density < 1):
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


def _range_problems(spec: Mapping[str, Any], name: str, least: int, most: int) -> list[Problem]:
    value = spec.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= most):
        return []
    detail = f"{name} is {value!r}, expected an integer from {least} to {most}"
    return [Problem(f"/spec/{name}", "range", detail)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _find_task(name: str) -> Task:
    try:
        return tasks.get(name)
    except NotFound as error:
        raise InvalidJob(error.detail, errors=[Problem("/spec/task", "unknown", error.detail)]) from None


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
    _refuse([Problem(f"{at}/{name}", "unknown-layer", f"{has} {name!r}") for name in unknown])
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
