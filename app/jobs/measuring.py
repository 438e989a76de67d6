"""What a verification or a transfer may ask for, and how much work it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.jobs.plan import FORWARD_AND_BACKWARD, Plan, find_task, range_problems, refuse, unknown_fields
from nirvana.architecture import Architecture
from nirvana.errors import Problem
from nirvana.protocol import ARMS, LOOKS
from nirvana.recipe import Recipe
from nirvana.tasks import Task

MAX_REPLICATES = 100
STANDARD = {"replicates": 5, "max_replicates": 20}  # where neither is said
TRANSFER_ARMS = 4  # dense, ticket, reinit, shuffle; with the target's own ticket one more

_VERIFY_FIELDS = ("ticket", "replicates", "max_replicates")
_TRANSFER_FIELDS = ("ticket", "task", "own", "replicates")


def plan_verification(spec: Mapping[str, Any], architecture: Architecture, recipe: Recipe) -> Plan:
    """Fill in the defaults of a `verify` spec whose ticket has been found; rounds and operations are the most
    that can happen.

    Args:
        spec: checked, with the ticket's `digest` and the digest of its `file`.
        architecture: the ticket's.
        recipe: the ticket's.
    """
    given = {name: value for name, value in spec.items() if value is not None}
    replicates, most = replicates_of(given)
    looks = len({min(factor * replicates, most) for factor in LOOKS})
    images = recipe.steps * recipe.batch_size * most * len(ARMS)
    flops = FORWARD_AND_BACKWARD * architecture.flops() * images
    full = given | {"replicates": replicates, "max_replicates": most}
    return Plan(full, 1 + looks * (len(ARMS) + 1), architecture.parameter_count, flops)


def replicates_of(spec: Mapping[str, Any]) -> tuple[int, int]:
    """Replicates of the first look and of the last one.

    Where neither is said, 5 and 20; where `replicates` alone is said, the first look is the last one.
    """
    replicates, most = spec.get("replicates"), spec.get("max_replicates")
    if replicates is None:
        return STANDARD["replicates"], STANDARD["max_replicates"] if most is None else most
    return replicates, replicates if most is None else most


def check_verification(spec: Mapping[str, Any]) -> None:
    """Check what can be checked of a `verify` spec before its ticket is looked up.

    Raises:
        InvalidJob: an unknown field, no ticket, or too few or too many replicates.
    """
    problems = unknown_fields(spec, _VERIFY_FIELDS, "/spec")
    problems += _text_problems(spec, "ticket", "owner/name or sha256:...")
    problems += range_problems(spec, "replicates", 2, MAX_REPLICATES) or _most_problems(spec)
    refuse(problems)


def _most_problems(spec: Mapping[str, Any]) -> list[Problem]:
    replicates = replicates_of(spec)[0]
    return range_problems(spec, "max_replicates", replicates, LOOKS[-1] * replicates)


def check_transfer(spec: Mapping[str, Any]) -> Task:
    """Check what can be checked of a `transfer` spec before its tickets are looked up.

    Returns:
        the target.

    Raises:
        InvalidJob: an unknown field or task, no ticket, or too few or too many replicates.
    """
    problems = unknown_fields(spec, _TRANSFER_FIELDS, "/spec")
    problems += _text_problems(spec, "ticket", "owner/name or sha256:...")
    problems += _text_problems(spec, "task", "a name")
    if spec.get("own") is not None:
        problems += _text_problems(spec, "own", "owner/name or sha256:...")
    problems += range_problems(spec, "replicates", 2, MAX_REPLICATES)
    refuse(problems)
    return find_task(spec["task"])


def plan_transfer(
    spec: Mapping[str, Any], architecture: Architecture, source: str, own: str | None, target: Task
) -> Plan:
    """Fill in the defaults of a `transfer` spec whose tickets have been found.

    Args:
        spec: checked, with the ticket's `digest` and the digests of the files.
        architecture: the ticket's.
        source: the ticket's task.
        own: the own ticket's task, where there is an own ticket.

    Raises:
        InvalidJob: the target is the ticket's own task or has another input shape, or the own ticket is of
            another task.
    """
    refuse(list(_transfer_problems(architecture, source, own, target)))
    full = {"replicates": STANDARD["replicates"]} | {k: v for k, v in spec.items() if v is not None}
    recipe = target.default_recipe(architecture.name)
    trainings = full["replicates"] * (TRANSFER_ARMS + (own is not None))
    flops = FORWARD_AND_BACKWARD * architecture.flops() * recipe.steps * recipe.batch_size * trainings
    return Plan(full, 1, architecture.parameter_count, flops)


def _transfer_problems(
    architecture: Architecture, source: str, own: str | None, target: Task
) -> Iterator[Problem]:
    if source == target.name:
        detail = f"the ticket was found on {source}, expected another task: ask for a verification"
        yield Problem("/spec/task", "same-task", detail)
    if tuple(architecture.input) != tuple(target.input_shape):
        detail = f"{architecture.name} takes inputs of shape {list(architecture.input)}, but the task "
        detail += f"{target.name} has {list(target.input_shape)}"
        yield Problem("/spec/task", "does-not-fit", detail)
    if own is not None and own != target.name:
        yield Problem("/spec/own", "other-task", f"own was found on {own}, expected one of {target.name}")


def _text_problems(spec: Mapping[str, Any], name: str, expected: str) -> list[Problem]:
    if isinstance(spec.get(name), str):
        return []
    code = "missing" if spec.get(name) is None else "type"
    return [Problem(f"/spec/{name}", code, f"{name} is {spec.get(name)!r}, expected {expected}")]
