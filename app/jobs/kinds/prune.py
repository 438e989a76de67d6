"""`prune`: find tickets. The library plans the search, by the rules that the worker goes by."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, Strict, WithJsonSchema, field_validator, model_validator

from app.jobs.kinds import Asker, Integer, Kind, Name, Plan, Spec, moved, one_of_problem, refusal
from nirvana.errors import Invalid, InvalidArchitecture, NotFound
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.pruning.methods import METHODS, describe_options
from nirvana.pruning.plan import SearchPlan, resolve_recipe
from nirvana.pruning.target import PruningTarget
from nirvana.tasks import Task
from nirvana.tasks.recipes import check_batch_size
from nirvana.training.recipe import Recipe, change_schema

MAX_LEVELS = 100
MAX_SEED = 2**53 - 1
_OPTIONS = "; ".join(
    f"{method}: {', '.join(f'{name} ({default:g})' for name, default, _ in describe_options(method))}"
    for method in METHODS
    if describe_options(method)
)


RecipeChange = Annotated[dict[str, Any], WithJsonSchema(change_schema())]
"""Checked by the library's own rules, of which the schema is made."""


class PruneSpec(Spec):
    """A search for tickets: to a number of levels, or to a density."""

    task: Name = Field(examples=["digits"])
    architecture: Name = Field(description="of the zoo", examples=["lenet-300-100"])
    method: str = Field(default="imp", json_schema_extra={"enum": list(METHODS)})
    levels: Annotated[Integer, Field(ge=1, le=MAX_LEVELS)] | None = Field(
        default=None, description="how many times to prune", examples=[10]
    )
    density: Annotated[float, Strict(), Field(gt=0, lt=1, allow_inf_nan=False)] | None = Field(
        default=None, description="share of weights to keep"
    )
    seed: Annotated[Integer, Field(ge=0, le=MAX_SEED)] = 0
    recipe: RecipeChange = Field(default_factory=dict, description="fields over the task's default recipe")
    options: dict[Name, int | float] = Field(
        default_factory=dict,
        max_length=100,
        description=f"of the method alone, with their defaults: {_OPTIONS}",
    )
    name: str | None = Field(
        default=None,
        pattern=r"^([a-z0-9-]{1,39}/)?[a-z0-9]([a-z0-9._-]{0,58}[a-z0-9])?$",
        description="what the tickets' names begin with; `lab/name` publishes for an organisation",
    )

    @field_validator("method", mode="before")
    @classmethod
    def _known(cls, method: object) -> object:
        if method in list(METHODS):
            return method
        message = f"method {method!r} is unknown, expected one of {', '.join(METHODS)}"
        raise one_of_problem("", "unknown", message)

    @model_validator(mode="after")
    def _one_end(self) -> PruneSpec:
        if (self.levels is None) == (self.density is None):
            raise one_of_problem("levels", "one-of", "levels: expected either levels or density")
        return self


def plan(asker: Asker, spec: PruneSpec) -> Plan:
    """Resolve a search, and count its work.

    Raises:
        InvalidJob: an unknown task or architecture, an architecture that does not fit the task, a recipe that
            breaks a rule, or a density that takes too many levels.
        Forbidden: the account or its token may not publish under that name.
    """
    task = asker.find_task(spec.task, is_new=True)
    made = plan_search_job(spec, task, asker.settings.max_parameters)
    asker.check_place(spec.name, made.rounds)
    return made


def plan_search_job(spec: PruneSpec, task: Task, max_parameters: int) -> Plan:
    """See `plan`."""
    target = _target(spec)
    architecture = _build(spec.architecture, task, max_parameters)
    recipe = _resolve(task, architecture, spec, target)
    search = SearchPlan(task, architecture, recipe, target, spec.seed)
    rounds = _count_rounds(search)
    full = spec.model_dump(exclude_none=True) | {"recipe": recipe.to_dict(), "options": dict(target.options)}
    if not target.options:
        del full["options"]
    return Plan(full, rounds, architecture.parameter_count, search.flops)


def _target(spec: PruneSpec) -> PruningTarget:
    try:
        return PruningTarget(spec.method, spec.levels, spec.density, spec.options)
    except Invalid as error:
        raise moved(error, "/spec") from None


def _build(name: str, task: Task, max_parameters: int) -> Architecture:
    """Return the architecture of that name for the task's inputs and classes."""
    at = "/spec/architecture"
    try:
        architecture = zoo.build(name, task.input_shape, task.classes)
    except NotFound as error:
        raise refusal(at, "unknown", error.detail) from None
    except InvalidArchitecture as error:
        detail = f"{name} does not fit the task {task.name}: {error.detail}"
        raise refusal(at, "does-not-fit", detail) from None
    if architecture.parameter_count > max_parameters:
        detail = f"{name} has {architecture.parameter_count} parameters, expected at most {max_parameters}"
        raise refusal(at, "too-large", detail)
    return architecture


def _resolve(task: Task, architecture: Architecture, spec: PruneSpec, target: PruningTarget) -> Recipe:
    try:
        recipe = resolve_recipe(task, architecture, spec.recipe, target.method, target.options)
        check_batch_size(recipe, architecture, task.sizes["train"])
        return recipe
    except Invalid as error:
        raise moved(error, "/spec/recipe") from None


def _count_rounds(search: SearchPlan) -> int:
    try:
        rounds = search.trainings
    except Invalid as error:
        field = "levels" if search.target.density is None else "density"
        raise refusal(f"/spec/{field}", "too-many-levels", error.detail) from None
    if rounds > MAX_LEVELS + 1:
        detail = f"density {search.target.density} takes {rounds - 1} levels at the recipe's pruning rates"
        raise refusal("/spec/density", "too-many-levels", f"{detail}, expected at most {MAX_LEVELS}")
    return rounds


KIND = Kind(PruneSpec, plan)
