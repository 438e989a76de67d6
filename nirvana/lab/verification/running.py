"""Running the arms of a verification: a training for each replicate, or the run cache's word for it.

Replicates that the sparse engine trains run side by side, on as many threads as there may be: its compiled
code lets other threads run. Those of torch, which has settings and a generator for the whole process, run one
after another on the caller's thread meanwhile. Numbers are the same on any number of threads; the seconds of
a training are its own, so that an arm's sum is of threads' time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nirvana.cost import Cost, sum_costs
from nirvana.environment import count_threads
from nirvana.errors import Cancelled, Invalid
from nirvana.lab.distillation import data_sha256
from nirvana.lab.environment import environment
from nirvana.lab.verification.arms import arm_masks, dense_steps, is_paired
from nirvana.lab.verification.fitting import check_fit
from nirvana.lab.verification.pieces import Piece, Replicate, Setting, plan_arm, run_piece
from nirvana.lab.verification.results import ArmResult
from nirvana.lab.verification.runs import RunCache
from nirvana.lab.verification.threads import Work, work_off
from nirvana.masks import density
from nirvana.protocol import ARMS
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket
from nirvana.training import Progress, ShouldStop


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
    threads: int | None = None,
) -> ArmResult:
    """Train one arm of a verification: see `run_arms`."""
    return run_arms(ticket, [arm], data, recipe, replicates, progress, should_stop, cache, threads)[arm]


def run_arms(
    ticket: Ticket,
    arms: Sequence[str],
    data: TaskData,
    recipe: Recipe | None = None,
    replicates: int | range = 5,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    cache: RunCache | None = None,
    threads: int | None = None,
) -> dict[str, ArmResult]:
    """Train arms of a verification.

    Args:
        recipe: None is the ticket's own.
        replicates: how many, from replicate 0 on, or a range of them (a top-up: range(5, 10)).
        progress: called with {"kind": "arm" | "point", "done", "total", "message", "arm", "replicate", ...},
            one call at a time, from any thread; `done` and `total` of an arm's event count this call's
            replicates.
        should_stop: asked from several threads.
        cache: where runs of all arms are kept, and those of all but the ticket arm are taken from.
        threads: None is NIRVANA_THREADS, or else one for each core.

    Raises:
        Invalid: unknown arm, no replicates, or no threads.
        InvalidRecipe, InvalidArchitecture: as `check_fit`.
        Cancelled: `should_stop` said so.
    """
    seeds = range(replicates) if isinstance(replicates, int) else replicates
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise Invalid(f"arm is {unknown[0]!r}, expected one of {', '.join(ARMS)}")
    if not seeds or seeds[0] < 0 or seeds.step != 1:
        raise Invalid(f"replicates is {replicates}, expected at least 1, counted from 0 in steps of 1")
    count, recipe = count_threads(threads), recipe or Recipe.from_dict(dict(ticket.recipe))
    check_fit(ticket, data, recipe)
    where = environment()
    settings = [Setting(ticket, arm, data, recipe, cache, where, should_stop) for arm in arms]
    working = _Working(progress, should_stop, len(arms) * len(seeds))
    if count == 1:
        for setting in settings:
            for piece in plan_arm(setting, seeds, with_fields=cache is not None):
                working.run(piece)
    else:
        _run_side_by_side(settings, seeds, working, count)
    return {setting.arm: _collect(setting, seeds, working.found) for setting in settings}


def arm_keys(ticket: Ticket, arm: str, data: TaskData, recipe: Recipe, replicates: range) -> list[str]:
    """The keys under which the run cache keeps an arm's runs, for those who fetch them beforehand.

    None where a replicate's values come from updates of their own (`dense_steps`): nothing is trained here.
    """
    if dense_steps(ticket, arm, recipe):
        return []
    setting = Setting(ticket, arm, data, recipe, None, {}, None)
    return [key for piece in plan_arm(setting, replicates, with_fields=True) for key in piece.keys]


@dataclass
class _Working:
    """A call's work: what was found so far, and who is told.

    Attributes:
        found: by arm and seed.
    """

    progress: Progress | None
    should_stop: ShouldStop | None
    total: int
    found: dict[tuple[str, int], Replicate] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, piece: Piece, stop: threading.Event | None = None) -> None:
        """Train a piece, or take it from the cache, until `stop` is set."""
        arm, should_stop = piece.setting.arm, self.should_stop
        if stop and piece.engine != "sparse":  # which makes updates one at a time where it must ask
            should_stop = _either(stop, should_stop)
        runs = run_piece(piece, lambda seed: self._told(arm, seed, stop), should_stop)
        for seed, replicate in zip(piece.seeds, runs, strict=True):
            with self.lock:
                self.found[arm, seed] = replicate
                if self.progress:
                    event = _event(arm, len(self.found), self.total, replicate)
                    self.progress(event | {"arm": arm, "replicate": seed})

    def _told(self, arm: str, seed: int, stop: threading.Event | None) -> Progress | None:
        """What a training tells; it hears of `stop` when it does."""
        if stop is None and self.progress is None:
            return None

        def tell(event: dict[str, Any]) -> None:
            if stop and stop.is_set():
                raise Cancelled(f"cancelled, as another training ended: {arm} {seed}")
            if self.progress:
                with self.lock:
                    self.progress(event | {"arm": arm, "replicate": seed})

        return tell


def _either(stop: threading.Event, should_stop: ShouldStop | None) -> ShouldStop:
    return lambda: stop.is_set() or bool(should_stop and should_stop())


def _run_side_by_side(settings: Sequence[Setting], seeds: range, working: _Working, threads: int) -> None:
    """As in a row: a run that follows from all that an earlier one does waits for it and finds it cached."""
    known, later = set[str](), list[Piece]()

    def planned() -> Iterator[tuple[bool, Work]]:
        for setting in settings:
            for piece in plan_arm(setting, seeds, len(settings), with_fields=setting.cache is not None):
                if known & set(piece.keys):
                    later.append(piece)
                else:
                    yield piece.engine == "sparse", partial(working.run, piece)
                known.update(piece.keys)

    work_off(planned(), min(threads, len(settings) * len(seeds)))
    for piece in later:
        working.run(piece)


def _collect(setting: Setting, seeds: range, replicates: dict[tuple[str, int], Replicate]) -> ArmResult:
    ticket, arm = setting.ticket, setting.arm
    found = [replicates[arm, seed] for seed in seeds]
    runs = [one.measured for one in found]
    return ArmResult(
        arm=arm,
        seeds=list(seeds),
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


def _cost(found: Iterable[Replicate]) -> Cost:
    return sum_costs(one.measured.cost for one in found)


def _event(arm: str, done: int, total: int, last: Replicate) -> dict[str, Any]:
    said = f"{arm} {done}/{total}: test accuracy {last.measured.accuracy:.4f}"
    said += ", failed" if last.measured.failed else ", cached" if last.cached else ""
    counts = {"kind": "arm", "done": done, "total": total, "message": said}
    return counts | {"test_accuracy": last.measured.accuracy}
