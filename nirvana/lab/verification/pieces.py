"""What a verification trains at a time: one replicate, or a stack of them, or the run cache's word for it.

Replicates 0 to 4, 5 to 9 and so on of an arm are stacked where that pays and where all five are asked for at
once: the bits of a stacked replicate depend on how many there are and on its place, and so these are always
the same, and part of the run's key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from nirvana.cost import Cost, sum_costs, training_flops
from nirvana.initial import value_sha256
from nirvana.lab.distillation import data_sha256, teacher_key, training_fields
from nirvana.lab.engines import choose, train
from nirvana.lab.replicates import Start, stacking_pays, train_replicates
from nirvana.lab.verification.arms import (
    ORDER_SEED,
    arm_masks,
    arm_teacher,
    arm_values,
    dense_steps,
    teacher_start,
)
from nirvana.lab.verification.runs import Measured, RunCache, run_key
from nirvana.masks import mask_sha256
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket
from nirvana.training import Progress, ShouldStop, TrainResult

STACK = 5  # replicates: the standard protocol's number
_HELD_BYTES = 2**28  # of starts between planning and training; else they are made again
Fields = dict[str, Any]
Tell = Callable[[int], Progress | None]


@dataclass(frozen=True)
class Setting:
    """What all replicates of an arm share."""

    ticket: Ticket
    arm: str
    data: TaskData
    recipe: Recipe
    cache: RunCache | None
    where: dict[str, Any]
    should_stop: ShouldStop | None


@dataclass(frozen=True)
class Replicate:
    """What one replicate measured, now or before."""

    measured: Measured
    cached: bool = False
    repeats: bool | None = None  # trained before and the same again; None: not trained before


@dataclass(frozen=True)
class Piece:
    """Replicates that are trained together.

    Attributes:
        engine: `dense`, `sparse` or `stacked`.
        starts: None: made when they are trained.
        fields: of each replicate, all that its run follows from: what the cache's key is made of; empty
            where no key will be asked for.
    """

    setting: Setting
    seeds: tuple[int, ...]
    engine: str
    starts: tuple[Start, ...] | None
    fields: tuple[Fields, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run_key(fields) for fields in self.fields)


def plan_arm(setting: Setting, seeds: range, arms: int = 1, *, with_fields: bool) -> Iterator[Piece]:
    """An arm's pieces, in the order of seeds. Where new values must be trained to step k, that is done here.

    Args:
        arms: how many are planned before they are trained.
        with_fields: whether keys will be asked for.
    """
    holds = _holds(setting, len(seeds) * arms)
    for _, grouped in groupby(seeds, lambda seed: seed // STACK):
        group = tuple(grouped)
        starts = tuple(_start(setting, seed) for seed in group)
        engines = [_engine(setting, start) for start in starts]
        parts = [slice(place, place + 1) for place in range(len(group))]
        if set(engines) == {"dense"} and len(group) == STACK and _stacks(setting):
            parts, engines = [slice(0, STACK)], ["stacked"]
        for part, engine in zip(parts, engines, strict=True):
            fields = [_key_fields(setting, start, engine) for start in starts[part] if with_fields]
            yield Piece(setting, group[part], engine, starts[part] if holds else None, tuple(fields))


def run_piece(piece: Piece, tell: Tell, should_stop: ShouldStop | None) -> list[Replicate]:
    """Train a piece or take it from the cache; of the ticket arm, and of a stack that the cache has in part,
    all is trained.

    Args:
        tell: the progress of a seed's training.
    """
    setting, cache = piece.setting, piece.setting.cache
    known = [cache.get(key, setting.where) for key in piece.keys] if cache else [None] * len(piece.seeds)
    found = [run for run in known if run is not None]
    if setting.arm != "ticket" and len(found) == len(piece.seeds):
        return [Replicate(run, cached=True) for run in found]
    runs = [_with_dense_steps(Measured.of(result), setting) for result in _train(piece, tell, should_stop)]
    if cache:
        for fields, run in zip(piece.fields, runs, strict=True):
            cache.put(fields, setting.where, run)
    return [
        Replicate(run, repeats=before.equals(run) if before else None)
        for run, before in zip(runs, known, strict=True)
    ]


def _holds(setting: Setting, count: int) -> bool:
    """Whether to keep `count` starts like this arm's: small ones, and those that took updates to make."""
    parameters = setting.ticket.architecture.parameters.values()
    size = sum(math.prod(shape) for shape in parameters) * (4 + 1)  # a value and its mask
    return size * count <= _HELD_BYTES or dense_steps(setting.ticket, setting.arm, setting.recipe) > 0


def _start(setting: Setting, seed: int) -> Start:
    ticket, arm = setting.ticket, setting.arm
    values, step = arm_values(ticket, arm, setting.data, setting.recipe, seed, setting.should_stop)
    return Start(values, arm_masks(ticket, arm, seed), ORDER_SEED + seed, step)


def _engine(setting: Setting, start: Start) -> str:
    return choose("auto", setting.ticket.architecture, start.masks, setting.recipe)


def _stacks(setting: Setting) -> bool:
    return stacking_pays(setting.ticket.architecture, setting.recipe, STACK)


def _train(piece: Piece, tell: Tell, should_stop: ShouldStop | None) -> list[TrainResult]:
    """The one place where a verification trains: each arm on the engine that is faster for its masks."""
    setting = piece.setting
    ticket, data, recipe = setting.ticket, setting.data, setting.recipe
    starts = piece.starts or [_start(setting, seed) for seed in piece.seeds]
    teacher = arm_teacher(ticket, data, recipe, should_stop)
    if piece.engine == "stacked":
        told = [tell(seed) for seed in piece.seeds]
        return train_replicates(
            ticket.architecture,
            starts,
            data,
            recipe,
            progress=lambda event: _pass_on(event, told),
            should_stop=should_stop,
            teacher=teacher,
        )
    (start,) = starts
    result = train(
        ticket.architecture,
        start.values,
        start.masks,
        data,
        recipe,
        start.order_seed,
        start_step=start.start_step,
        progress=tell(piece.seeds[0]),
        should_stop=should_stop,
        teacher=teacher,
        engine=piece.engine,
        threads=1,
    )
    return [result]


def _pass_on(event: Mapping[str, Any], told: list[Progress | None]) -> None:
    progress = told[event["replicate"]]
    if progress:
        progress({name: value for name, value in event.items() if name != "replicate"})


def _with_dense_steps(measured: Measured, setting: Setting) -> Measured:
    """The run with the operations of the dense updates before it: new values that were trained to step k."""
    images = dense_steps(setting.ticket, setting.arm, setting.recipe) * setting.recipe.batch_size
    flops = training_flops(setting.ticket.architecture, {}, images)
    return replace(measured, cost=sum_costs([measured.cost, Cost(0.0, images, *flops)]))


def _key_fields(setting: Setting, start: Start, engine: str) -> Fields:
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
        "order_seed": start.order_seed,
        "start_step": start.start_step,
        "teacher": _teacher_key(setting),
        "engine": f"stacked-{STACK}" if engine == "stacked" else engine,  # its place follows from its order
    }


def _teacher_key(setting: Setting) -> str | None:
    if not setting.recipe.distillation:
        return None
    values, step = teacher_start(setting.ticket)
    return teacher_key(setting.ticket.architecture, values, setting.data, setting.recipe, step)
