"""Replicates that are trained together: one, or a stack of them; or the run cache's word for it.

Replicates 0 to 4, 5 to 9 and so on of an arm are stacked where that pays and where all five are asked for at
once: the bits of a stacked replicate depend on how many there are and on its place, and so these are always
the same, and part of the run's key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from nirvana.engines import choose_engine, has_torch, stacking_pays, train, train_replicates
from nirvana.training.cost import Cost, Environment, sum_costs, training_flops
from nirvana.training.events import Event, Reporter
from nirvana.training.keys import Fields, run_fields, run_key, teacher_key
from nirvana.training.spec import InitialState, TrainResult, TrainSpec
from nirvana.verification.arms import ArmConfig, initial_state, teacher_start, train_spec
from nirvana.verification.runs import Measured, RunCache

STACK = 5  # replicates: the standard protocol's number
_HELD_BYTES = 2**28  # of starts between planning and training; else they are made again
ReporterOf = Callable[[int], Reporter]


@dataclass(frozen=True)
class Replicate:
    """The measurements of one replicate, of now or of before."""

    measured: Measured
    cached: bool = False
    repeats: bool | None = None  # trained before and the same again; None: not trained before


@dataclass(frozen=True)
class Batch:
    """Replicates of an arm that are trained together.

    Attributes:
        engine: `dense`, `sparse` or `stacked`.
        starts: None: made when they are trained.
        fields: of each replicate, all that its run follows from: what the cache's key is made of; empty
            where no key will be asked for.
    """

    config: ArmConfig
    seeds: tuple[int, ...]
    engine: str
    starts: tuple[InitialState, ...] | None
    fields: tuple[Fields, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run_key(fields) for fields in self.fields)


def plan_batches(config: ArmConfig, seeds: range, arms: int = 1, *, with_fields: bool) -> Iterator[Batch]:
    """Yield an arm's batches, in the order of seeds. Where new values must be trained to step k, that is done
    here.

    Args:
        arms: how many are planned before they are trained.
        with_fields: whether keys will be asked for.
    """
    holds = _holds(config, len(seeds) * arms)
    for _, grouped in groupby(seeds, lambda seed: seed // STACK):
        group = tuple(grouped)
        starts = tuple(initial_state(config, seed) for seed in group)
        engines = [_engine(config, start) for start in starts]
        parts = [slice(place, place + 1) for place in range(len(group))]
        if set(engines) == {"dense"} and len(group) == STACK and _stacks(config):
            parts, engines = [slice(0, STACK)], ["stacked"]
        for part, engine in zip(parts, engines, strict=True):
            fields = [_fields(config, start, engine) for start in starts[part] if with_fields]
            yield Batch(config, group[part], engine, starts[part] if holds else None, tuple(fields))


def run_batch(
    batch: Batch, cache: RunCache | None, where: Environment, reporter_of: ReporterOf
) -> list[Replicate]:
    """Train a batch or take it from the cache; of the ticket arm, and of a stack that the cache has in part,
    all is trained.

    Args:
        where: the environment that a cached run must be of.
        reporter_of: the reporter of a seed's training.
    """
    config = batch.config
    known = [cache.get(key, where) for key in batch.keys] if cache else [None] * len(batch.seeds)
    cached = [run for run in known if run is not None]
    if config.arm != "ticket" and len(cached) == len(batch.seeds):
        return [Replicate(run, cached=True) for run in cached]
    runs = [_with_dense_steps(Measured.of(result), config) for result in _train(batch, reporter_of)]
    if cache:
        for fields, run in zip(batch.fields, runs, strict=True):
            cache.put(fields, where, run)
    return [
        Replicate(run, repeats=before.equals(run) if before else None)
        for run, before in zip(runs, known, strict=True)
    ]


def _holds(config: ArmConfig, count: int) -> bool:
    """Return whether to keep `count` starts: small ones, and those that took updates to make."""
    parameters = config.ticket.architecture.parameters.values()
    size = sum(math.prod(shape) for shape in parameters) * (4 + 1)  # a value and its mask
    return size * count <= _HELD_BYTES or config.dense_steps > 0


def _engine(config: ArmConfig, start: InitialState) -> str:
    return choose_engine("auto", config.ticket.architecture, start.masks, config.recipe).engine


def _stacks(config: ArmConfig) -> bool:
    return has_torch() and stacking_pays(config.ticket.architecture, config.recipe, STACK)


def _train(batch: Batch, reporter_of: ReporterOf) -> list[TrainResult]:
    """Train: the one place where a verification does, each arm on the engine that is faster for its masks."""
    config = batch.config
    starts = batch.starts or [initial_state(config, seed) for seed in batch.seeds]
    specs = [train_spec(config, start) for start in starts]
    reporters = [reporter_of(seed) for seed in batch.seeds]
    if batch.engine != "stacked":
        return [train(specs[0], reporters[0], engine=batch.engine, threads=1)]

    def pass_on(event: Event) -> None:
        place = event.pop("replicate")
        reporters[place].report(event)

    return train_replicates(specs, Reporter(pass_on, reporters[0].should_stop))


def _with_dense_steps(measured: Measured, config: ArmConfig) -> Measured:
    """Add the operations of the dense updates before a run: new values that were trained to step k."""
    images = config.dense_steps * config.recipe.batch_size
    flops = training_flops(config.ticket.architecture, {}, images)
    return replace(measured, cost=sum_costs([measured.cost, Cost(0.0, images, *flops)]))


def _fields(config: ArmConfig, start: InitialState, engine: str) -> Fields:
    spec = TrainSpec(config.ticket.architecture, start, config.data, config.recipe, sealed=config.sealed)
    named = f"stacked-{STACK}" if engine == "stacked" else engine  # its place follows from its order
    return run_fields(spec, named, _teacher_key(config))


def _teacher_key(config: ArmConfig) -> str | None:
    if not config.recipe.distillation:
        return None
    values, step = teacher_start(config.ticket)
    start = InitialState(values, {}, 0, step)
    return teacher_key(TrainSpec(config.ticket.architecture, start, config.data, config.recipe))
