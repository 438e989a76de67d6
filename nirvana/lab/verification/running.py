"""Running one arm of a verification: a training for each replicate, or the run cache's word for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.cost import Cost, sum_costs, training_flops
from nirvana.errors import Invalid
from nirvana.initial import value_sha256
from nirvana.lab.distillation import data_sha256, teacher_key, training_fields
from nirvana.lab.engines import choose, train
from nirvana.lab.environment import environment
from nirvana.lab.verification.arms import (
    ORDER_SEED,
    arm_masks,
    arm_teacher,
    arm_values,
    dense_steps,
    is_paired,
    teacher_start,
)
from nirvana.lab.verification.fitting import check_fit
from nirvana.lab.verification.results import ArmResult
from nirvana.lab.verification.runs import Measured, RunCache, run_key
from nirvana.masks import Mask, density, mask_sha256
from nirvana.protocol import ARMS
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket
from nirvana.training import Progress, ShouldStop, TrainResult


@dataclass(frozen=True)
class _Setting:
    """What all replicates of an arm share."""

    ticket: Ticket
    arm: str
    data: TaskData
    recipe: Recipe
    cache: RunCache | None
    where: dict[str, Any]
    should_stop: ShouldStop | None


@dataclass(frozen=True)
class _Start:
    """What a replicate trains from."""

    masks: Mapping[str, Mask]
    values: Mapping[str, NDArray[np.float32]]
    step: int


@dataclass(frozen=True)
class _Replicate:
    measured: Measured
    cached: bool = False
    repeats: bool | None = None  # trained before and the same again; None: not trained before


def run_arm(
    ticket: Ticket,
    arm: str,
    data: TaskData,
    recipe: Recipe | None = None,
    replicates: int | range = 5,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    *,
    cache: RunCache | None = None,
) -> ArmResult:
    """Train one arm of a verification.

    Args:
        recipe: None is the ticket's own.
        replicates: how many, from replicate 0 on, or a range of them (a top-up: range(5, 10)).
        progress: called with {"kind": "arm" | "point", "done", "total", "message", "arm", "replicate", ...};
            `done` and `total` count this call's replicates.
        cache: where runs of all arms are kept, and those of all but the ticket arm are taken from.

    Raises:
        Invalid: unknown arm, or no replicates.
        InvalidRecipe, InvalidArchitecture: as `check_fit`.
        Cancelled: `should_stop` said so.
    """
    seeds = range(replicates) if isinstance(replicates, int) else replicates
    if arm not in ARMS:
        raise Invalid(f"arm is {arm!r}, expected one of {', '.join(ARMS)}")
    if not seeds or seeds[0] < 0 or seeds.step != 1:
        raise Invalid(f"replicates is {replicates}, expected at least 1, counted from 0 in steps of 1")
    recipe = recipe or Recipe.from_dict(dict(ticket.recipe))
    check_fit(ticket, data, recipe)
    setting = _Setting(ticket, arm, data, recipe, cache, environment(), should_stop)
    found = list[_Replicate]()
    for seed in seeds:
        place = {"arm": arm, "replicate": seed}
        found.append(_replicate(setting, seed, _with(progress, place)))
        if progress:
            progress(_event(arm, len(found), len(seeds), found[-1]) | place)
    return _collect(setting, list(seeds), found)


def arm_keys(ticket: Ticket, arm: str, data: TaskData, recipe: Recipe, replicates: range) -> list[str]:
    """The keys under which the run cache keeps an arm's runs, for those who fetch them beforehand.

    None where a replicate's values come from updates of their own (`dense_steps`): nothing is trained here.
    """
    if dense_steps(ticket, arm, recipe):
        return []
    setting = _Setting(ticket, arm, data, recipe, None, {}, None)
    return [run_key(_key_fields(setting, _start(setting, seed), seed)) for seed in replicates]


def _start(setting: _Setting, seed: int) -> _Start:
    ticket, arm = setting.ticket, setting.arm
    values, step = arm_values(ticket, arm, setting.data, setting.recipe, seed, setting.should_stop)
    return _Start(arm_masks(ticket, arm, seed), values, step)


def _replicate(setting: _Setting, seed: int, progress: Progress | None) -> _Replicate:
    cache, start = setting.cache, _start(setting, seed)
    fields = _key_fields(setting, start, seed) if cache else {}
    known = cache.get(run_key(fields), setting.where) if cache else None
    if known and setting.arm != "ticket":
        return _Replicate(known, cached=True)
    measured = _with_dense_steps(Measured.of(_train(setting, start, seed, progress)), setting)
    if cache:
        cache.put(fields, setting.where, measured)
    return _Replicate(measured, repeats=known.equals(measured) if known else None)


def _train(setting: _Setting, start: _Start, seed: int, progress: Progress | None) -> TrainResult:
    """The one place where a verification trains: each arm on the engine that is faster for its masks."""
    return train(
        setting.ticket.architecture,
        start.values,
        start.masks,
        setting.data,
        setting.recipe,
        ORDER_SEED + seed,
        start_step=start.step,
        progress=progress,
        should_stop=setting.should_stop,
        teacher=arm_teacher(setting.ticket, setting.data, setting.recipe, setting.should_stop),
    )


def _with_dense_steps(measured: Measured, setting: _Setting) -> Measured:
    """The run with the operations of the dense updates before it: new values that were trained to step k."""
    images = dense_steps(setting.ticket, setting.arm, setting.recipe) * setting.recipe.batch_size
    flops = training_flops(setting.ticket.architecture, {}, images)
    return replace(measured, cost=sum_costs([measured.cost, Cost(0.0, images, *flops)]))


def _key_fields(setting: _Setting, start: _Start, seed: int) -> dict[str, Any]:
    """All that a run follows from; pruned elements count as 0, whatever was there."""
    masked = {
        name: np.where(start.masks[name], value, np.float32(0)) if name in start.masks else value
        for name, value in start.values.items()
    }
    return {
        "architecture": setting.ticket.architecture.digest,
        "data": data_sha256(setting.data),
        "recipe": training_fields(setting.recipe),
        "masks": {name: mask_sha256(mask) for name, mask in start.masks.items() if not mask.all()},
        "values": {name: value_sha256(value) for name, value in masked.items()},
        "order_seed": ORDER_SEED + seed,
        "start_step": start.step,
        "teacher": _teacher_key(setting),
        "engine": choose("auto", setting.ticket.architecture, start.masks, setting.recipe),
    }


def _teacher_key(setting: _Setting) -> str | None:
    if not setting.recipe.distillation:
        return None
    values, step = teacher_start(setting.ticket)
    return teacher_key(setting.ticket.architecture, values, setting.data, setting.recipe, step)


def _collect(setting: _Setting, seeds: list[int], found: list[_Replicate]) -> ArmResult:
    ticket, arm = setting.ticket, setting.arm
    runs = [one.measured for one in found]
    return ArmResult(
        arm=arm,
        seeds=seeds,
        accuracies=[run.accuracy for run in runs],
        final_accuracies=[run.final_accuracy for run in runs],
        untrained_accuracies=[run.untrained_accuracy for run in runs],
        early_stop_steps=[run.early_stop_step for run in runs],
        failed=[run.failed for run in runs],
        paired=is_paired(ticket, arm),
        density=density(arm_masks(ticket, arm, seeds[0]), ticket.prunable_shapes),
        cost=_cost(one for one in found if not one.cached),
        environment=setting.where,
        cached=[one.cached for one in found],
        cached_cost=_cost(one for one in found if one.cached),
        data=data_sha256(setting.data),
        repeated=sum(one.repeats is True for one in found),
        differing=sum(one.repeats is False for one in found),
    )


def _cost(found: Iterable[_Replicate]) -> Cost:
    return sum_costs(one.measured.cost for one in found)


def _event(arm: str, done: int, total: int, last: _Replicate) -> dict[str, Any]:
    said = f"{arm} {done}/{total}: test accuracy {last.measured.accuracy:.4f}"
    said += ", failed" if last.measured.failed else ", cached" if last.cached else ""
    counts = {"kind": "arm", "done": done, "total": total, "message": said}
    return counts | {"test_accuracy": last.measured.accuracy}


def _with(progress: Progress | None, place: dict[str, Any]) -> Progress | None:
    if progress is None:
        return None
    return lambda event: progress(event | place)
