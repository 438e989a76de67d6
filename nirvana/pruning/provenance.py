"""Where a ticket says that it came from, as a search that can be run again.

Only who runs it again knows whether it is true: the registry's worker (`worker.kinds.attest`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nirvana.errors import Invalid, InvalidJob, InvalidRecipe, Problem, raise_problems
from nirvana.format.initial import SCHEME
from nirvana.networks.architecture import Architecture
from nirvana.pruning.methods import METHODS
from nirvana.pruning.plan import SearchPlan, check_task
from nirvana.pruning.ranking import kept_at
from nirvana.pruning.target import PruningTarget
from nirvana.tasks import Task
from nirvana.training.recipe import Recipe

MOST_LEVELS = 100
ENGINES = ("sparse", "dense")

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Origin:
    """A ticket's search.

    Attributes:
        level: of the ticket.
        engines: that trained the levels before it; empty where the ticket does not say.
    """

    plan: SearchPlan
    level: int
    engines: tuple[str, ...] = ()

    @property
    def trainings(self) -> int:
        """Trainings after which its masks are known."""
        return max(1, self.level)


def read_origin(manifest: Fields, task: Task) -> Origin:
    """Return the search that a ticket's manifest tells of.

    Args:
        manifest: checked, as `Ticket.manifest()` gives it.

    Raises:
        InvalidJob: something is missing, or no search here gives such a ticket; each with its pointer.
        InvalidArchitecture, InvalidRecipe: of a ticket that does not fit the task or that nobody can train.
    """
    provenance: Fields = manifest.get("provenance") or {}
    raise_problems(InvalidJob, "provenance", list(_find_gaps(provenance, manifest)))
    graph = Architecture.from_manifest(manifest["architecture"])
    check_task(graph, task)
    method, options = provenance["method"], provenance.get("options", {})
    recipe = Recipe.from_dict(dict(manifest["recipe"]))
    try:
        target = _find_target(provenance, manifest, graph, recipe)
    except Invalid as error:
        if isinstance(error, InvalidRecipe):
            raise
        raise_problems(InvalidJob, "provenance", [Problem("/provenance", "no-search", error.detail)])
        raise
    adapted = METHODS[method].adapt(recipe, options)
    plan = SearchPlan(task, graph, adapted, target, int(provenance["order_seed"]))
    return Origin(plan, int(provenance["level"]), tuple(provenance.get("engines", ())))


def _find_gaps(provenance: Fields, manifest: Fields) -> Iterator[Problem]:
    """Yield what a ticket does not tell, and what no search here does."""
    method, level, seed = (provenance.get(name) for name in ("method", "level", "order_seed"))
    if not isinstance(method, str) or method not in METHODS:
        found = "missing" if method is None else f"{str(method)[:100]!r}"
        detail = f"the method is {found}, expected one of {', '.join(METHODS)}"
        yield Problem("/provenance/method", "unknown" if method else "missing", detail)
    elif METHODS[method].retrain and level:
        detail = (
            f"{method} changes the recipe after its first level, and the ticket does not hold the first one"
        )
        yield Problem("/provenance/method", "no-search", detail)
    if type(level) is not int or not 0 <= level <= MOST_LEVELS:
        detail = f"the level is {str(level)[:100]}, expected an integer from 0 to {MOST_LEVELS}"
        yield Problem("/provenance/level", "missing" if level is None else "range", detail)
    is_seed = isinstance(seed, str) and seed.isascii() and seed.isdigit() and int(seed[:25]) < 2**53
    if not is_seed:
        detail = f"the order's seed is {str(seed)[:100]}, expected a decimal string below 2^53"
        yield Problem("/provenance/order_seed", "missing" if seed is None else "range", detail)
    if not isinstance(provenance.get("options", {}), dict):
        yield Problem("/provenance/options", "type", "the method's options are no object")
    engines = provenance.get("engines", [])
    is_list = isinstance(engines, list) and all(engine in ENGINES for engine in map(str, engines))
    if not is_list or len(engines) not in (0, level):
        detail = (
            f"the engines are {str(engines)[:100]}, expected {' or '.join(ENGINES)} for each level before"
        )
        yield Problem("/provenance/engines", "range", detail)
    yield from _find_foreign_values(manifest["initial"], seed if is_seed else None)


def _find_foreign_values(initial: Fields, seed: object) -> Iterator[Problem]:
    """Yield why no search here starts from the initial values."""
    if "seed" not in initial:
        detail = "the ticket names no seed of its initial values: no search here can start from them"
        yield Problem("/initial/seed", "missing", detail)
    elif initial["scheme"] != SCHEME:
        detail = f"the scheme is {initial['scheme']}, expected {SCHEME}, by which searches here draw"
        yield Problem("/initial/scheme", "no-search", detail)
    elif seed is not None and str(initial["seed"]) != str(int(str(seed))):
        detail = f"the values are of seed {initial['seed']}, the order of seed {seed}: a search has one seed"
        yield Problem("/initial/seed", "no-search", detail)


def _find_target(provenance: Fields, manifest: Fields, graph: Architecture, recipe: Recipe) -> PruningTarget:
    """Return the target whose last level is the ticket's.

    Raises:
        Invalid: no number of levels and no density gives as many weights at this level.
    """
    method, level, options = provenance["method"], provenance["level"], provenance.get("options", {})
    shapes = {name: graph.parameters[name] for name in manifest["prunable"]}
    total, masks = sum(math.prod(shape) for shape in shapes.values()), manifest["masks"]
    kept = sum(masks[name]["kept"] if name in masks else math.prod(shape) for name, shape in shapes.items())
    if tuple(manifest["prunable"]) != tuple(graph.prunable):
        raise Invalid(
            f"prunable is {manifest['prunable']}, expected {list(graph.prunable)}, as searches have it"
        )
    by_levels = PruningTarget(method, levels=max(1, level), options=options)
    if level == 0 or (by_levels.is_iterative and by_levels.kept_weights(shapes, recipe.pruning)[-1] == kept):
        return by_levels
    asked = provenance.get("density", kept / total)
    if not isinstance(asked, float) or not 0 < asked < 1:
        raise Invalid(f"the density is {str(asked)[:100]}, expected a number between 0 and 1")
    by_density = PruningTarget(method, density=asked, options=options)
    if by_density.last_level(shapes, recipe.pruning) != level or kept > kept_at(asked, total):
        raise Invalid(
            f"the ticket keeps {kept} of {total} weights at level {level}, which {method} does not reach "
            "with the recipe's rates"
        )
    return by_density


def search_spec(origin: Origin) -> dict[str, Any]:
    """Return the search as a job's spec has it, JSON-able; the architecture is its graph."""
    plan = origin.plan
    target = {name: value for name, value in dataclasses.asdict(plan.target).items() if value is not None}
    return target | {
        "task": plan.task.name,
        "architecture": plan.architecture.to_manifest(),
        "recipe": plan.recipe.to_dict(),
        "seed": plan.seed,
        "engines": list(origin.engines),
    }
