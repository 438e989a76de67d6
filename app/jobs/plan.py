"""What every kind of job has in common before it runs: its plan, and how a broken rule is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nirvana import tasks
from nirvana.errors import InvalidJob, NotFound, Problem, raise_problems
from nirvana.tasks import Task

FORWARD_AND_BACKWARD = 3  # a backward pass costs two forward ones


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


def refuse(problems: list[Problem]) -> None:
    """Raises: InvalidJob, where there are any."""
    raise_problems(InvalidJob, "job", problems)


def unknown_fields(fields: Any, known: tuple[str, ...], at: str) -> list[Problem]:
    """Problems of fields that nobody knows. Raises: InvalidJob, where `fields` is no object."""
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


def range_problems(spec: Mapping[str, Any], name: str, least: int, most: int) -> list[Problem]:
    """The problem of a number that is there and no integer from `least` to `most`."""
    value = spec.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= most):
        return []
    detail = f"{name} is {value!r}, expected an integer from {least} to {most}"
    return [Problem(f"/spec/{name}", "range", detail)]


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def find_task(name: str) -> Task:
    """The task of that name. Raises: InvalidJob."""
    try:
        return tasks.get(name)
    except NotFound as error:
        raise InvalidJob(error.detail, errors=[Problem("/spec/task", "unknown", error.detail)]) from None
