"""Finding tickets: train, prune, rewind, again.

A level's ticket is the checkpoint: training ticket k gives the metrics of level k and the mask of ticket k +
1, and nothing else passes from one level to the next. So `find` here and a worker's job, level by level, run
the same code.

The seed gives the initial values and the order of the data (`order_seed` = seed); nothing else is random.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nirvana import __version__, tasks, zoo
from nirvana.architecture import Architecture
from nirvana.errors import Invalid, InvalidRecipe, Problem, TrainingFailed, raise_problems
from nirvana.initial import default_laws, draw_all
from nirvana.lab.environment import environment
from nirvana.lab.goal import Goal, level_of
from nirvana.lab.report import FindReport, LevelResult, is_finished, record, take_up
from nirvana.lab.train import advance, train
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.tasks import Task, TaskData
from nirvana.ticket import Ticket
from nirvana.training import Progress, TrainResult

ENGINES = ("auto", "dense")
ShouldStop = Callable[[], bool]


def find(
    task: str | Task,
    architecture: str | Architecture,
    method: str = "imp",
    *,
    levels: int | None = None,
    density: float | None = None,
    seed: int = 0,
    recipe: Recipe | Mapping[str, Any] | None = None,
    engine: str = "auto",
    out: str | Path | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> FindReport:
    """Find tickets here, without any server.

    Args:
        architecture: a zoo name, built for the task, or a graph.
        recipe: None is the task's default; a mapping overrides fields of it.
        out: folder for `level-00.ticket` ... and `report.json`, written after each level. A folder that holds
            the levels of the same call is taken up where it ends.
        progress: called with {"kind": "level" | "point", "done", "total", "message", ...}.

    Raises:
        NotFound, InvalidJob, InvalidRecipe, InvalidArchitecture: what is asked for does not exist or fit.
        TrainingFailed: a loss was not finite; names the level and the step.
        Cancelled: `should_stop` said so.
    """
    check_engine(engine)
    goal = Goal(method, levels, density)
    task = tasks.get(task) if isinstance(task, str) else task
    graph = (
        zoo.build(architecture, task.input_shape, task.classes)
        if isinstance(architecture, str)
        else architecture
    )
    chosen = make_recipe(task, graph, recipe)
    report = FindReport(task.name, graph.name, goal, seed, chosen, environment())
    folder = Path(out) if out is not None else None
    following = take_up(report, folder) if folder else None
    if following is None and not is_finished(report):
        data = tasks.load(task, progress)
        following = first_ticket(task, graph, chosen, seed, data=data, method=method, should_stop=should_stop)
    while following is not None:
        data = tasks.load(task, progress)
        result, following = find_level(following, data, chosen, seed, goal, progress, should_stop)
        record(report, result, following, folder)
    return report


def check_engine(engine: str) -> None:
    """Refuse an engine that is not there; `auto` takes the fastest one that is: dense.

    Raises:
        Invalid: naming those that are.
    """
    if engine not in ENGINES:
        raise Invalid(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}")


def make_recipe(task: Task, architecture: Architecture, recipe: Recipe | Mapping[str, Any] | None) -> Recipe:
    """A whole recipe: the task's default for this architecture, with the fields of a mapping put in.

    Raises:
        InvalidRecipe: with pointers; also for layer rates of layers that are not there.
    """
    if not isinstance(recipe, Recipe):
        recipe = task.default_recipe(architecture.name).override(recipe or {})
    unknown = [name for name in recipe.pruning.layer_rates if name not in architecture.prunable]
    problems = [
        Problem(
            f"/pruning/layer_rates/{name}", "unknown-layer", f"{architecture.name} has no prunable {name!r}"
        )
        for name in unknown
    ]
    raise_problems(InvalidRecipe, "recipe", problems)
    return recipe


def first_ticket(
    task: Task,
    architecture: Architecture,
    recipe: Recipe,
    seed: int,
    *,
    data: TaskData | None = None,
    method: str = "imp",
    should_stop: ShouldStop | None = None,
) -> Ticket:
    """The ticket of level 0: nothing pruned, initial values from the seed.

    With `rewind_step` k > 0 the dense network is trained for k steps first, in the order that every level
    then goes on with, and its values, running statistics included, are stored.

    Raises:
        TrainingFailed: a loss was not finite before step k.
    """
    rewind_step = recipe.pruning.rewind_step
    laws = default_laws(architecture, recipe.initial_law)
    fields = _fields(task.name, recipe, method, 0, None, seed)
    if not rewind_step:
        return Ticket.create(architecture, {}, laws=laws, seed=seed, **fields)
    start = draw_all(architecture, laws, seed)
    data = data or tasks.load(task)
    values, is_finite = advance(architecture, start, data, recipe, seed, rewind_step, should_stop=should_stop)
    if not is_finite:
        raise TrainingFailed(f"a loss was not finite before rewind step {rewind_step}", level=0)
    return Ticket.create(
        architecture, {}, laws=laws, seed=seed, stored=values, rewind_step=rewind_step, **fields
    )


def find_level(
    ticket: Ticket,
    data: TaskData,
    recipe: Recipe,
    order_seed: int,
    goal: Goal,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> tuple[LevelResult, Ticket | None]:
    """One step of a search: train a level's ticket, and cut the next one from it.

    Args:
        ticket: of this level: from `first_ticket`, or the second part of what the level before returned.
        order_seed: the search's seed.

    Returns:
        what this level measured, and the next level's ticket; None after the last level.

    Raises:
        TrainingFailed: a loss was not finite; names the level and the step.
        InvalidTicket: a layer would lose its last weight.
        Cancelled: `should_stop` said so.
    """
    level = level_of(ticket)
    training = train(
        ticket.architecture,
        ticket.initial_values(),
        ticket.masks,
        data,
        recipe,
        order_seed,
        start_step=ticket.start.rewind_step,
        progress=_level_points(progress, level),
        should_stop=should_stop,
        keep_weights=True,
    )
    if training.failed:
        detail = f"level {level}: the loss was not finite at step {training.failed_step}"
        raise TrainingFailed(detail, level=level, step=training.failed_step)
    assert training.weights is not None
    masks = goal.masks_after(ticket, training.weights, recipe.pruning)
    following = None if masks is None else _next_ticket(ticket, masks, goal, order_seed)
    result = LevelResult(level, _with_claim(ticket, training), dataclasses.replace(training, weights=None))
    if progress:
        progress(_level_event(result, goal.last_level(ticket, recipe.pruning)))
    return result, following


def _fields(
    task: str, recipe: Recipe, method: str, level: int, parent: str | None, order_seed: int
) -> dict[str, Any]:
    provenance = {
        "method": method,
        "level": level,
        "parent": parent,
        "tool": f"nirvana {__version__}",
        "order_seed": str(order_seed),
    }
    return {"task": task, "recipe": recipe.to_dict(), "provenance": provenance}


def _next_ticket(ticket: Ticket, masks: Mapping[str, Mask], goal: Goal, order_seed: int) -> Ticket:
    """The same start under smaller masks; stored values shrink to the kept elements."""
    start = ticket.start
    stored = None
    if start.kind == "stored":
        values = ticket.initial_values()
        stored = {name: array[masks[name]] if name in masks else array for name, array in values.items()}
    recipe = Recipe.from_dict(dict(ticket.recipe))
    fields = _fields(ticket.task, recipe, goal.method, level_of(ticket) + 1, ticket.digest, order_seed)
    return Ticket.create(
        ticket.architecture,
        masks,
        laws=start.laws,
        seed=start.seed,
        stored=stored,
        rewind_step=start.rewind_step,
        prunable=ticket.prunable,
        license=ticket.license,
        authors=ticket.authors,
        **fields,
    )


def _with_claim(ticket: Ticket, training: TrainResult) -> Ticket:
    value = training.early_stop_test_accuracy
    claim = {"task": ticket.task, "metric": "test_accuracy", "value": value, "replicates": 1}
    return dataclasses.replace(ticket, claims=(claim,))


def _level_points(progress: Progress | None, level: int) -> Progress | None:
    if progress is None:
        return None
    return lambda event: progress(event | {"level": level})


def _level_event(result: LevelResult, last_level: int) -> dict[str, Any]:
    accuracy = result.training.early_stop_test_accuracy
    message = f"level {result.level}: density {result.ticket.density:.4f}, test accuracy {accuracy:.4f}"
    counts = {"kind": "level", "done": result.level + 1, "total": last_level + 1, "message": message}
    return counts | result.to_dict()
