"""The levels of a search: train a level's ticket, cut the next one from it.

A level's ticket is the checkpoint: training ticket k gives the metrics of level k and the mask of ticket k +
1, and nothing else passes from one level to the next. A method that is not iterative searches at level 0 and
its ticket is trained as level 1. So `find` here and a worker's job, level by level, run the same code.

The seed gives the initial values and the order of the data (`order_seed` = seed); nothing else is random.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nirvana import lazy, tasks
from nirvana.engines import advance, ticket_spec, train, with_teacher
from nirvana.environment import VERSION
from nirvana.errors import TrainingFailed
from nirvana.format.initial import REINIT, default_laws, draw, draw_all, epoch_order, fans
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.pruning.methods import METHODS
from nirvana.pruning.plan import SearchPlan
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.pruning.target import PruningTarget, level_of
from nirvana.training.events import SILENT, Event, Reporter
from nirvana.training.recipe import Recipe
from nirvana.training.spec import Arrays, InitialState, TaskData, TrainResult, TrainSpec, Values

CONSTANT_LAW = "kaiming_signed_constant"
_SEEDS_APART = 2**40  # of the draws of one level and the next


@dataclass(frozen=True)
class LevelResult:
    """The measurements of one level's training.

    Attributes:
        ticket: the level's ticket, its measured accuracy among its claims (same digest as before training).
        training: the measurements; `training.curve` is for plots.
    """

    level: int
    ticket: Ticket
    training: TrainResult

    @property
    def file_name(self) -> str:
        return level_file(self.level)

    def to_dict(self) -> dict[str, Any]:
        """Return the level's entry in report.json."""
        training = self.training
        return {
            "level": self.level,
            "density": self.ticket.density,
            "kept": self.ticket.kept,
            "ticket": self.file_name,
            "digest": self.ticket.digest,
            "early_stop_step": training.early_stop_step,
            "early_stop_test_accuracy": training.early_stop_test_accuracy,
            "early_stop_validation_accuracy": training.early_stop_validation_accuracy,
            "final_test_accuracy": training.final_test_accuracy,
            "untrained_test_accuracy": training.untrained_test_accuracy,
            "seconds": training.seconds,
            "flops": training.flops_dense,
            "flops_sparse": training.flops_sparse,
            "engine": training.engine,
        }


def level_file(level: int) -> str:
    """Return the name of a level's file."""
    return f"level-{level:02d}.ticket"


def first_ticket(plan: SearchPlan, data: TaskData | None = None, reporter: Reporter = SILENT) -> Ticket:
    """Return the ticket of level 0: nothing pruned, initial values from the seed.

    With `rewind_step` k > 0 the dense network is trained for k steps first, in the order that every level
    then goes on with, and its values, running statistics included, are stored.

    Args:
        data: of the task, for that; None: they are loaded.

    Raises:
        TrainingFailed: a loss was not finite before step k.
    """
    architecture, recipe, seed = plan.architecture, plan.recipe, plan.seed
    rewind_step = 0 if plan.target.rules.retrain else recipe.pruning.rewind_step
    laws = default_laws(architecture, recipe.initial_law)
    fields = _fields(plan.task.name, recipe, plan.target, 0, None, seed)
    if not rewind_step:
        return Ticket.create(architecture, {}, laws=laws, seed=seed, **fields)
    start = draw_all(architecture, laws, seed)
    data = data or tasks.load(plan.task)
    spec = TrainSpec(architecture, InitialState(start, {}, seed), data, recipe)
    if recipe.distillation:
        spec = with_teacher(spec, start, 0, reporter)
    values, is_finite = advance(spec, rewind_step, reporter)
    if not is_finite:
        raise TrainingFailed(f"a loss was not finite before rewind step {rewind_step}", level=0)
    return Ticket.create(
        architecture, {}, laws=laws, seed=seed, stored=values, rewind_step=rewind_step, **fields
    )


def find_level(
    ticket: Ticket,
    data: TaskData,
    order_seed: int,
    target: PruningTarget,
    reporter: Reporter = SILENT,
    engine: str = "auto",
) -> tuple[LevelResult | MaskResult, Ticket | None]:
    """Take one step of a search: train a level's ticket by its recipe, and cut the next one from it; or, at
    level 0 of a method that is not iterative, look for the mask.

    Args:
        ticket: of this level: from `first_ticket`, or the second part of what the level before returned.
        order_seed: the search's seed.

    Returns:
        what this level measured (a search: its masks), and the next level's ticket; None after the last.

    Raises:
        TrainingFailed: a loss was not finite; names the level and the step.
        InvalidTicket: a layer would lose its last weight.
        Cancelled: the reporter said so.
    """
    level = level_of(ticket)
    inner = reporter.within(level=level)
    if level == 0 and not target.is_iterative:
        result = _find_mask(ticket, data, order_seed, target, inner)
        return result, _next_ticket(ticket, result.masks, target, order_seed)
    training = train(ticket_spec(ticket, data, order_seed, inner), inner, engine=engine, keep_weights=True)
    if training.failed:
        detail = f"level {level}: the loss was not finite at step {training.failed_step}"
        raise TrainingFailed(detail, level=level, step=training.failed_step)
    assert training.weights is not None
    pruning = _recipe(ticket).pruning
    masks = target.masks_after(ticket, training.weights, pruning, order_seed) if target.is_iterative else None
    following = None
    if masks is not None:
        following = _next_ticket(ticket, masks, target, order_seed, training)
    trained = LevelResult(level, _with_claims(ticket, training), dataclasses.replace(training, weights=None))
    reporter.report(_level_event(trained, target.last_level(ticket.prunable_shapes, pruning)))
    return trained, following


def _find_mask(
    ticket: Ticket, data: TaskData, seed: int, target: PruningTarget, reporter: Reporter
) -> MaskResult:
    recipe = _recipe(ticket)
    density = target.final_density(ticket.prunable_shapes, recipe.pruning)
    find = lazy.load_function(target.rules.code)
    result = find(MaskSearch(ticket, data, recipe, seed, density, reporter, target.options))
    assert isinstance(result, MaskResult)
    return result


def _recipe(ticket: Ticket) -> Recipe:
    return Recipe.from_dict(dict(ticket.recipe))


def _fields(
    task: str,
    recipe: Recipe,
    target: PruningTarget,
    level: int,
    parent: str | None,
    order_seed: int,
    density: float | None = None,
    engines: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return a ticket's task, recipe and provenance: all that it takes to run the search again
    (`nirvana.pruning.provenance`).

    Args:
        density: that the search was asked for. engines: that trained the levels before, whose bits differ.
    """
    provenance: dict[str, Any] = {
        "method": target.method,
        "level": level,
        "parent": parent,
        "tool": f"nirvana {VERSION}",
        "order_seed": str(order_seed),
    }
    if density is not None:
        provenance["density"] = density
    if engines is not None:
        provenance["engines"] = list(engines)
    if target.options:
        provenance["options"] = dict(target.options)
    return {"task": task, "recipe": recipe.to_dict(), "provenance": provenance}


def _next_ticket(
    ticket: Ticket,
    masks: Mapping[str, Mask],
    target: PruningTarget,
    order_seed: int,
    training: TrainResult | None = None,
) -> Ticket:
    """Return the next level's ticket: smaller masks, and the start that the method says.

    Args:
        training: of this level, with its weights; None where a method looked for the mask without it.
    """
    recipe, level, density = _recipe(ticket), level_of(ticket) + 1, target.density
    if not target.is_iterative:
        density = target.final_density(ticket.prunable_shapes, recipe.pruning)
    start = _next_start(ticket, masks, target, order_seed, training.weights if training else None)
    engines = [*ticket.provenance.get("engines", ()), training.engine] if training else None
    if target.rules.retrain and level == 1:
        recipe = target.rules.retrain(recipe)
    return Ticket.create(
        ticket.architecture,
        masks,
        prunable=ticket.prunable,
        license=ticket.license,
        authors=ticket.authors,
        **start,
        **_fields(ticket.task, recipe, target, level, ticket.digest, order_seed, density, engines),
    )


def _next_start(
    ticket: Ticket,
    masks: Mapping[str, Mask],
    target: PruningTarget,
    order_seed: int,
    trained: Values | None,
) -> dict[str, Any]:
    """Return the next level's start; stored values shrink to the kept elements after step 0."""
    start, recipe = ticket.start, _recipe(ticket)
    fields: dict[str, Any] = {
        "laws": start.laws,
        "seed": start.seed,
        "scheme": start.scheme,
        "order": start.order,
        "rewind_step": start.rewind_step,
    }
    if target.rules.retrain:
        assert trained is not None
        updates = start.rewind_step + recipe.steps - recipe.first_step(start.rewind_step)
        return fields | {"stored": _survivors(trained, masks), "rewind_step": updates}
    action = recipe.pruning.mask_1_action
    if action != "rewind":
        level_seed = (order_seed + (level_of(ticket) + 1) * _SEEDS_APART) % 2**64
        values, laws = restart(ticket, masks, action, level_seed)
        return fields | {"stored": values, "laws": laws, "seed": None, "order": ()}
    if start.kind == "stored":
        kept = ticket.initial_values()
        return fields | {"stored": _survivors(kept, masks) if start.rewind_step else kept}
    return fields


def restart(
    ticket: Ticket, masks: Mapping[str, Mask], action: str, seed: int
) -> tuple[Values, dict[str, str]]:
    """Return whole initial values for the next ticket, and their laws, by a mask-1 action of an ablation.

    Args:
        ticket: with its whole initial values at step 0.
        action: `reinit`, `reshuffle` or `constant`.
        seed: of the draw or the permutation.

    Reference: Zhou et al. 2019 (arXiv 1905.01067).
    """
    laws, start = dict(ticket.start.laws), ticket.dense_initial_values()
    assert start is not None
    values = {name: array.copy() for name, array in start.items()}
    places = {name: place for place, name in enumerate(ticket.architecture.parameters)}
    for name, mask in masks.items():
        if action == "reinit":
            values[name] = draw(laws[name], mask.shape, seed, places[name], REINIT)
        elif action == "reshuffle":
            kept = values[name][mask]
            values[name][mask] = kept[epoch_order(seed, places[name], len(kept))]
        else:
            size = np.float32(np.sqrt(2 / fans(mask.shape)[0]))
            values[name] = np.where(values[name] < 0, -size, size).astype(np.float32)
            laws[name] = CONSTANT_LAW
    return values, laws


def _survivors(values: Arrays, masks: Mapping[str, Mask]) -> Values:
    return {name: array[masks[name]] if name in masks else array for name, array in values.items()}


def _with_claims(ticket: Ticket, training: TrainResult) -> Ticket:
    """Return the ticket with what its training measured; a supermask's claim is what it scores untrained."""
    measured = {"test_accuracy": training.early_stop_test_accuracy}
    method = METHODS.get(str(ticket.provenance.get("method")))
    if method and method.is_supermask:
        measured["untrained_test_accuracy"] = training.untrained_test_accuracy
    claims = tuple(
        {"task": ticket.task, "metric": metric, "value": value, "replicates": 1}
        for metric, value in measured.items()
    )
    return dataclasses.replace(ticket, claims=claims)


def _level_event(result: LevelResult, last_level: int) -> Event:
    accuracy = result.training.early_stop_test_accuracy
    message = f"level {result.level}: density {result.ticket.density:.4f}, test accuracy {accuracy:.4f}"
    counts = {"kind": "level", "done": result.level + 1, "total": last_level + 1, "message": message}
    return counts | result.to_dict()
