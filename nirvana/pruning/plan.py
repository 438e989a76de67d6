"""The plan of a search: a whole recipe, a network that fits, and how much work it is at most.

A server asks this before it takes a job, and `find` before it trains: there is one set of rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nirvana import tasks
from nirvana.errors import InvalidArchitecture, InvalidRecipe, Problem, raise_problems
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.pruning.methods import METHODS, Options, read_options
from nirvana.pruning.target import PruningTarget
from nirvana.tasks import Task
from nirvana.training.cost import most_flops
from nirvana.training.recipe import Recipe, member_pointer


@dataclass(frozen=True)
class SearchPlan:
    """A search that may run. Make one with `plan_search`.

    Attributes:
        recipe: whole, as the method has it.
        seed: of the initial values and of the data's order.
    """

    task: Task
    architecture: Architecture
    recipe: Recipe
    target: PruningTarget
    seed: int = 0

    @property
    def trainings(self) -> int:
        """Trainings in all: one a level; of a method that is not iterative its search and its ticket.

        Raises:
            Invalid: the rounds never reach the density.
        """
        architecture = self.architecture
        shapes = {name: architecture.parameters[name] for name in architecture.prunable}
        return 1 + self.target.last_level(shapes, self.recipe.pruning)

    @property
    def flops(self) -> int:
        """Floating-point operations of the search at most, every weight counted; an estimate where a method
        takes more steps than the recipe says.

        Raises:
            Invalid: as `trainings`.
        """
        sizes, target = self.task.sizes, self.target
        looks = target.rules.looks(read_options(target.method, target.options)) * sizes["validation"]
        training = most_flops(self.architecture, self.recipe, sizes)
        return training * self.trainings + self.architecture.flops() * looks


def plan_search(
    task: str | Task,
    architecture: str | Architecture,
    target: PruningTarget,
    *,
    recipe: Recipe | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> SearchPlan:
    """Resolve what somebody asks for.

    Args:
        architecture: a zoo name, built for the task, or a graph.
        recipe: None is the task's default; a mapping overrides fields of it.

    Raises:
        NotFound, InvalidRecipe, InvalidArchitecture: what is asked for does not exist or fit.
    """
    task = tasks.get(task) if isinstance(task, str) else task
    graph = (
        zoo.build(architecture, task.input_shape, task.classes)
        if isinstance(architecture, str)
        else architecture
    )
    check_task(graph, task)
    resolved = resolve_recipe(task, graph, recipe, target.method, target.options)
    return SearchPlan(task, graph, resolved, target, seed)


def check_task(graph: Architecture, task: Task) -> None:
    """Refuse an architecture that does not fit the task.

    Raises:
        InvalidArchitecture: its input or output shape is not the task's; both are named.
    """
    expected = {"input": task.input_shape, "nodes": (task.classes,)}
    actual = {"input": graph.input, "nodes": graph.output_shape}
    words = {"input": "takes inputs of shape", "nodes": "has outputs of shape"}
    problems = [
        Problem(
            f"/architecture/{part}",
            "does-not-fit",
            f"{graph.name} {words[part]} {list(actual[part])}, but the task {task.name} has {list(shape)}",
        )
        for part, shape in expected.items()
        if tuple(actual[part]) != tuple(shape)
    ]
    raise_problems(InvalidArchitecture, "architecture", problems)


def resolve_recipe(
    task: Task,
    architecture: Architecture,
    recipe: Recipe | Mapping[str, Any] | None = None,
    method: str = "imp",
    options: Options | None = None,
) -> Recipe:
    """Return a whole recipe: the task's default for this architecture, with the fields of a mapping put in,
    as the method has it.

    Raises:
        InvalidRecipe: with pointers; also for layer rates of layers that are not there.
    """
    if not isinstance(recipe, Recipe):
        recipe = task.default_recipe(architecture.name).override(recipe or {})
    unknown = [name for name in recipe.pruning.layer_rates if name not in architecture.prunable]
    problems = [
        Problem(
            member_pointer("/pruning/layer_rates", name),
            "unknown-layer",
            f"{architecture.name} has no prunable {name[:200]!r}",
        )
        for name in unknown
    ]
    raise_problems(InvalidRecipe, "recipe", problems)
    return METHODS[method].adapt(recipe, options or {})
