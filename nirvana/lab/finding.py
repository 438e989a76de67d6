"""Finding tickets: train, prune, rewind, again; or one search for one mask.

A level's ticket is the checkpoint: training ticket k gives the metrics of level k and the mask of ticket k +
1, and nothing else passes from one level to the next. A method that is not iterative searches at level 0 and
its ticket is trained as level 1. So `find` here and a worker's job, level by level, run the same code.

The seed gives the initial values and the order of the data (`order_seed` = seed); nothing else is random.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nirvana import __version__, tasks, zoo
from nirvana.architecture import Architecture
from nirvana.errors import InvalidArchitecture, InvalidRecipe, Problem, TrainingFailed, raise_problems
from nirvana.initial import default_laws, draw_all
from nirvana.lab.distillation import teacher_logits
from nirvana.lab.engines import train
from nirvana.lab.environment import environment
from nirvana.lab.goal import Goal, level_of
from nirvana.lab.methods import FINDERS, Found, Search, adapt, fine_tuning, lr_rewinding
from nirvana.lab.methods.restart import restart
from nirvana.lab.report import FindReport, LevelResult, is_finished, record, take_up
from nirvana.lab.train import advance
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.running import check_engine
from nirvana.tasks import Task, TaskData
from nirvana.ticket import Ticket
from nirvana.training import Progress, ShouldStop, TrainResult, Values

RETRAINING = {"lr-rewinding": lr_rewinding.retraining, "fine-tuning": fine_tuning.retraining}
SUPERMASKS = ("supermask", "edge-popup")
_SEEDS_APART = 2**40  # of the draws of one level and the next


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
        engine: `auto` (the faster one, level by level), `dense` or `sparse`.
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
    check_task(graph, task)
    chosen = make_recipe(task, graph, recipe, method)
    report = FindReport(task.name, graph.name, goal, seed, chosen, environment())
    folder = Path(out) if out is not None else None
    following = take_up(report, folder) if folder else None
    if following is None and not is_finished(report):
        data = tasks.load(task, progress)
        following = first_ticket(task, graph, chosen, seed, data=data, method=method, should_stop=should_stop)
    while following is not None:
        data = tasks.load(task, progress)
        found, following = find_level(following, data, seed, goal, progress, should_stop, engine)
        record(report, found, following, folder)
    return report


def check_task(graph: Architecture, task: Task) -> None:
    """Refuse an architecture that does not fit the task.

    Raises:
        InvalidArchitecture: its input or output shape is not the task's; both are named.
    """
    expected = {"input": task.input_shape, "nodes": (task.classes,)}
    found = {"input": graph.input, "nodes": graph.output_shape}
    words = {"input": "takes inputs of shape", "nodes": "has outputs of shape"}
    problems = [
        Problem(
            f"/architecture/{part}",
            "does-not-fit",
            f"{graph.name} {words[part]} {list(found[part])}, but the task {task.name} has {list(shape)}",
        )
        for part, shape in expected.items()
        if tuple(found[part]) != tuple(shape)
    ]
    raise_problems(InvalidArchitecture, "architecture", problems)


def make_recipe(
    task: Task, architecture: Architecture, recipe: Recipe | Mapping[str, Any] | None, method: str = "imp"
) -> Recipe:
    """A whole recipe: the task's default for this architecture, with the fields of a mapping put in, as the
    method has it.

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
    return adapt(recipe, method)


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
    rewind_step = 0 if method in RETRAINING else recipe.pruning.rewind_step
    laws = default_laws(architecture, recipe.initial_law)
    fields = _fields(task.name, recipe, method, 0, None, seed)
    if not rewind_step:
        return Ticket.create(architecture, {}, laws=laws, seed=seed, **fields)
    start = draw_all(architecture, laws, seed)
    data = data or tasks.load(task)
    teacher = teacher_logits(architecture, start, data, recipe) if recipe.distillation else None
    values, is_finite = advance(
        architecture, start, data, recipe, seed, rewind_step, should_stop=should_stop, teacher=teacher
    )
    if not is_finite:
        raise TrainingFailed(f"a loss was not finite before rewind step {rewind_step}", level=0)
    return Ticket.create(
        architecture, {}, laws=laws, seed=seed, stored=values, rewind_step=rewind_step, **fields
    )


def find_level(
    ticket: Ticket,
    data: TaskData,
    order_seed: int,
    goal: Goal,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    engine: str = "auto",
) -> tuple[LevelResult | Found, Ticket | None]:
    """One step of a search: train a level's ticket by its recipe, and cut the next one from it; or, at level
    0 of a method that is not iterative, look for the mask.

    Args:
        ticket: of this level: from `first_ticket`, or the second part of what the level before returned.
        order_seed: the search's seed.

    Returns:
        what this level measured (a search: what it found), and the next level's ticket; None after the last.

    Raises:
        TrainingFailed: a loss was not finite; names the level and the step.
        InvalidTicket: a layer would lose its last weight.
        Cancelled: `should_stop` said so.
    """
    recipe, level = Recipe.from_dict(dict(ticket.recipe)), level_of(ticket)
    if level == 0 and not goal.is_iterative:
        density = goal.final_density(ticket, recipe.pruning)
        search = Search(
            ticket, data, recipe, order_seed, density, _level_points(progress, level), should_stop
        )
        found = FINDERS[goal.method](search)
        return found, _next_ticket(ticket, found.masks, goal, order_seed)
    training = train_ticket(
        ticket,
        data,
        order_seed,
        engine=engine,
        progress=_level_points(progress, level),
        should_stop=should_stop,
        keep_weights=True,
    )
    if training.failed:
        detail = f"level {level}: the loss was not finite at step {training.failed_step}"
        raise TrainingFailed(detail, level=level, step=training.failed_step)
    assert training.weights is not None
    masks = (
        goal.masks_after(ticket, training.weights, recipe.pruning, order_seed) if goal.is_iterative else None
    )
    following = None if masks is None else _next_ticket(ticket, masks, goal, order_seed, training.weights)
    result = LevelResult(level, _with_claims(ticket, training), dataclasses.replace(training, weights=None))
    if progress:
        progress(_level_event(result, goal.last_level(ticket, recipe.pruning)))
    return result, following


def train_ticket(
    ticket: Ticket,
    data: TaskData,
    order_seed: int,
    *,
    engine: str = "auto",
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    keep_weights: bool = False,
) -> TrainResult:
    """Train a ticket by its own recipe, from the step and with the teacher that the recipe says.

    Raises:
        Invalid, InvalidRecipe, Cancelled: as `nirvana.lab.engines.train`.
    """
    recipe, whole = Recipe.from_dict(dict(ticket.recipe)), ticket.dense_initial_values()
    teacher = None
    if recipe.distillation:
        start = draw_all(ticket.architecture, ticket.start.laws, order_seed) if whole is None else whole
        teacher = teacher_logits(ticket.architecture, start, data, recipe, should_stop=should_stop)
    return train(
        ticket.architecture,
        ticket.initial_values(),
        ticket.masks,
        data,
        recipe,
        order_seed,
        start_step=recipe.first_step(ticket.start.rewind_step),
        progress=progress,
        should_stop=should_stop,
        engine=engine,
        keep_weights=keep_weights,
        teacher=teacher,
        held=whole if recipe.pruning.mask_0_action == "freeze" else None,
    )


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


def _next_ticket(
    ticket: Ticket, masks: Mapping[str, Mask], goal: Goal, order_seed: int, trained: Values | None = None
) -> Ticket:
    """The next level's ticket: smaller masks, and the start that the method says."""
    recipe, level = Recipe.from_dict(dict(ticket.recipe)), level_of(ticket) + 1
    start = _next_start(ticket, masks, goal, recipe, order_seed, trained)
    if goal.method in RETRAINING and level == 1:
        recipe = RETRAINING[goal.method](recipe)
    return Ticket.create(
        ticket.architecture,
        masks,
        prunable=ticket.prunable,
        license=ticket.license,
        authors=ticket.authors,
        **start,
        **_fields(ticket.task, recipe, goal.method, level, ticket.digest, order_seed),
    )


def _next_start(
    ticket: Ticket,
    masks: Mapping[str, Mask],
    goal: Goal,
    recipe: Recipe,
    order_seed: int,
    trained: Values | None,
) -> dict[str, Any]:
    """Where the next level's values come from; stored values shrink to the kept elements after step 0."""
    start, action = ticket.start, recipe.pruning.mask_1_action
    fields: dict[str, Any] = {"laws": start.laws, "seed": start.seed, "rewind_step": start.rewind_step}
    if goal.method in RETRAINING:
        assert trained is not None
        updates = start.rewind_step + recipe.steps - recipe.first_step(start.rewind_step)
        return fields | {"stored": _survivors(trained, masks), "rewind_step": updates}
    if action != "rewind":
        level_seed = (order_seed + (level_of(ticket) + 1) * _SEEDS_APART) % 2**64
        values, laws = restart(ticket, masks, action, level_seed)
        return fields | {"stored": values, "laws": laws, "seed": None}
    if start.kind == "stored":
        values = ticket.initial_values()
        return fields | {"stored": _survivors(values, masks) if start.rewind_step else values}
    return fields


def _survivors(values: Mapping[str, Any], masks: Mapping[str, Mask]) -> dict[str, Any]:
    return {name: array[masks[name]] if name in masks else array for name, array in values.items()}


def _with_claims(ticket: Ticket, training: TrainResult) -> Ticket:
    """The ticket with what its training measured; a supermask's claim is what it scores untrained."""
    measured = {"test_accuracy": training.early_stop_test_accuracy}
    if ticket.provenance.get("method") in SUPERMASKS:
        measured["untrained_test_accuracy"] = training.untrained_test_accuracy
    claims = tuple(
        {"task": ticket.task, "metric": metric, "value": value, "replicates": 1}
        for metric, value in measured.items()
    )
    return dataclasses.replace(ticket, claims=claims)


def _level_points(progress: Progress | None, level: int) -> Progress | None:
    if progress is None:
        return None
    return lambda event: progress(event | {"level": level})


def _level_event(result: LevelResult, last_level: int) -> dict[str, Any]:
    accuracy = result.training.early_stop_test_accuracy
    message = f"level {result.level}: density {result.ticket.density:.4f}, test accuracy {accuracy:.4f}"
    counts = {"kind": "level", "done": result.level + 1, "total": last_level + 1, "message": message}
    return counts | result.to_dict()
