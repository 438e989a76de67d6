"""The kinds of jobs. A kind is a module here, its spec and plan, and one of the same name in `worker.kinds`,
what a worker does; nothing else lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.accounts.organisations.roles import get_owner
from app.accounts.service import check_pattern
from app.settings import Settings
from app.tasks.service import find_task, refuse_yanked
from app.tickets.models import Listing
from app.tickets.service import get_ticket
from nirvana.errors import Gone, Invalid, InvalidJob, NotFound, Problem
from nirvana.tasks import Task
from nirvana.verification.protocol import LOOKS

MAX_REPLICATES = 100
PYDANTIC_SAYS = "Input should be "
Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Replicates = Annotated[Integer, Field(ge=2, le=MAX_REPLICATES)]
MostReplicates = Annotated[Integer, Field(ge=2, le=LOOKS[-1] * MAX_REPLICATES)]
TicketName = Annotated[
    str,
    Field(max_length=200, description="`owner/name`, or a digest", examples=["ada/lenet-300-100-digits-07"]),
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Json = dict[str, Any]
T = TypeVar("T", bound=BaseModel)


class Spec(BaseModel):
    """The spec of a job: a field that nobody knows is an error, and null is as good as left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: object) -> object:
        if not isinstance(fields, Mapping):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


class Budget(Spec):
    """Upper bounds of a job."""

    seconds: Number | None = None
    parameters: Number | None = None
    flops: Number | None = None


@dataclass(frozen=True)
class Plan:
    """A job that may run.

    Attributes:
        spec: with every default filled in, JSON-able; what the worker reads.
        rounds: durable steps that it takes at most, for its progress bar.
        parameters: of the network.
        flops: floating-point operations of its trainings at most, every weight counted.
    """

    spec: Json
    rounds: int
    parameters: int
    flops: int


@dataclass(frozen=True)
class Asker:
    """The account that asks for a job, and what its plan may look up.

    Attributes:
        names: patterns of the listings that its token may write; None: all that the account may.
    """

    session: Session
    settings: Settings
    account: Account
    names: Sequence[str] | None = None

    def find_ticket(self, reference: str, field: str) -> Listing:
        """Return the listing that a field of the spec names, of a task that is known here.

        Raises:
            InvalidJob: there is none that the account may see.
        """
        at = f"/spec/{field}"
        try:
            listing = get_ticket(self.session, reference, self.account)
        except NotFound as error:
            raise refusal(at, "unknown", error.detail) from None
        self.find_task(listing.task, at)
        return listing

    def check_place(self, prefix: str | None, levels: int) -> None:
        """Check that tickets may be published as `prefix-00`, `prefix-01` ... as far as there are levels.

        Args:
            prefix: with or without an owner's name before it; None: one that the job makes up.

        Raises:
            Forbidden: the account may not publish for that owner, or the token not under that name.
            InvalidJob: the token is for some names, and none is said.
        """
        head, slash, tail = (prefix or "").rpartition("/")
        owner = get_owner(self.session, self.account, head) if slash else self.account
        if self.names is not None and prefix is None:
            raise refusal("/spec/name", "missing", "name: the token is for some names, expected one of them")
        for level in range(levels):
            check_pattern(self.account, self.names, owner.name, level_name(tail, level))

    def find_task(self, name: str, at: str = "/spec/task", *, is_new: bool = False) -> Task:
        """Return the task of that name, which the field at the pointer `at` asks for.

        Args:
            is_new: work of a new kind begins on it, for which a yanked task is not taken.

        Raises:
            InvalidJob: there is none, its data were removed, or it is yanked.
        """
        try:
            if is_new:
                refuse_yanked(self.session, name)
            return find_task(self.session, name)
        except NotFound as error:
            raise refusal(at, "unknown", error.detail) from None
        except Gone as error:
            raise refusal(at, "gone", error.detail) from None


def level_name(prefix: str, level: int) -> str:
    """Return the name that a search gives its ticket of a level."""
    return f"{prefix}-{level:02d}"


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Attributes:
        spec: what people ask for. plan: checks what needs looking up, and fills in the rest.
    """

    spec: type[Any]
    plan: Callable[[Asker, Any], Plan]


@cache
def kinds() -> Mapping[str, Kind]:
    """Return the kinds by name: the modules of this package, each with its `KIND`."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").KIND for name in names}


def find_kind(name: str) -> Kind:
    """Return the kind of that name.

    Raises:
        InvalidJob: there is none; says which there are.
    """
    if name not in kinds():
        expected = ", ".join(kinds())
        raise refusal("/kind", "unknown", f"kind {name!r} is unknown, expected one of {expected}")
    return kinds()[name]


def parse(model: type[T], fields: object, at: str) -> T:
    """Return `fields` as a model.

    Args:
        at: JSON pointer of the fields.

    Raises:
        InvalidJob: every problem with its pointer.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise invalid_job(problems_of(error.errors(), at)) from None


def problems_of(errors: Iterable[ErrorDetails], at: str = "") -> list[Problem]:
    """Return pydantic's errors as problems."""
    return [
        Problem("/".join([at, *map(_escape, _place(error))]), _code(error), _detail(error))
        for error in errors
    ]


def one_of_problem(field: str, code: str, message: str) -> PydanticCustomError:
    """Return the error to raise in a model's validator for what concerns a field."""
    return PydanticCustomError(code, "{message}", {"message": message, "field": field})


def invalid_job(problems: list[Problem]) -> InvalidJob:
    """Return the error of a job with these problems, the first one in its sentence."""
    first, more = problems[0], f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidJob(f"job: {first.detail} at {first.pointer}{more}", errors=problems)


def refusal(pointer: str, code: str, detail: str) -> InvalidJob:
    """Return the error of a job with one problem."""
    return invalid_job([Problem(pointer, code, detail)])


def moved(error: Invalid, at: str, code: str = "type") -> InvalidJob:
    """Return another error's problems as a job's, their pointers below `at`."""
    problems = [Problem(f"{at}{one.pointer}", one.code, one.detail) for one in error.errors]
    return invalid_job(problems or [Problem(at, code, error.detail)])


def check_budget(budget: Budget, plan: Plan, settings: Settings) -> Json:
    """Return the job's budget with its deadline filled in.

    Raises:
        InvalidJob: a bound that the plan exceeds, of the budget or of the settings, or more time than there
            is; each with both numbers.
    """
    bounds = budget.model_dump(exclude_none=True)
    problems = list(_find_excesses(bounds, plan, settings))
    if problems:
        raise invalid_job(problems)
    return {"seconds": settings.job_deadline_seconds} | bounds


def _find_excesses(bounds: Json, plan: Plan, settings: Settings) -> Iterator[Problem]:
    for name, need in {"parameters": plan.parameters, "flops": plan.flops}.items():
        if name in bounds and need > bounds[name]:
            detail = f"the job needs {_short(need)} {name}, the budget allows {bounds[name]:.3g}"
            yield Problem(f"/budget/{name}", "over-budget", detail)
    most, deadline = settings.max_flops_per_job, settings.job_deadline_seconds
    if plan.flops > most:
        detail = f"the job needs {_short(plan.flops)} flops, expected at most {most:.3g}, whatever its budget"
        yield Problem("/spec", "too-large", detail)
    if bounds.get("seconds", 0) > deadline:
        detail = f"seconds is {bounds['seconds']!r}, expected at most {deadline:g}"
        yield Problem("/budget/seconds", "range", detail)


def _short(number: int) -> str:
    """Return three digits of a number, which may be past the largest float."""
    try:
        return f"{number:.3g}"
    except OverflowError:
        return f"more than {sys.float_info.max:.3g}"


def _place(error: ErrorDetails) -> list[str]:
    if error["type"].startswith("union_tag"):
        return ["kind"]
    field = error.get("ctx", {}).get("field")
    return [str(part) for part in error["loc"]] + ([str(field)] if field else [])


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _code(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind in ("missing", "one-of", "range", "unknown"):
        return kind
    if kind == "extra_forbidden":
        return "unknown-field"
    if kind == "string_pattern_mismatch":
        return "pattern"
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        return "unknown"
    is_number = kind.startswith(("int", "float", "greater", "less", "finite", "bool"))
    return "range" if is_number else "type"


def _detail(error: ErrorDetails) -> str:
    """Say which field, what was found and what was expected; a message of ours does so already."""
    message, place = error["msg"], _place(error)
    if "message" in error.get("ctx", {}):
        return message
    name = place[-1] if place else "it"
    if message.startswith(PYDANTIC_SAYS):
        return f"{name} is {reprlib.repr(error['input'])}, expected {message.removeprefix(PYDANTIC_SAYS)}"
    return f"{name}: {message}"
