"""Running the arms of a verification: a training for each replicate, or the run cache's word for it.

Replicates that the sparse engine trains run side by side, on as many threads as there may be: its compiled
code lets other threads run. Those of torch, which has settings and a generator for the whole process, run one
after another on the caller's thread meanwhile. Numbers are the same on any number of threads; the seconds of
a training are its own, so that an arm's sum is of threads' time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue

from nirvana.environment import count_threads
from nirvana.errors import Cancelled, Invalid
from nirvana.format.masks import density
from nirvana.training.cost import Cost, Environment, environment, sum_costs
from nirvana.training.events import SILENT, Event, Reporter
from nirvana.verification.arms import ArmConfig, arm_masks
from nirvana.verification.batches import Batch, Replicate, plan_batches, run_batch
from nirvana.verification.gate import check_fit
from nirvana.verification.protocol import ARMS
from nirvana.verification.runs import ArmResult, RunCache, join_engines

Work = Callable[[threading.Event], None]


def run_arms(
    config: ArmConfig,
    arms: Sequence[str],
    seeds: range,
    reporter: Reporter = SILENT,
    *,
    pools: Mapping[str, range] | None = None,
    cache: RunCache | None = None,
    threads: int | None = None,
) -> dict[str, ArmResult]:
    """Train arms of a verification.

    Args:
        config: of any arm.
        seeds: the replicates, counted from 0 (a top-up: range(5, 10)).
        pools: those of the baselines; where one is not in it, `seeds`.
        reporter: hears {"kind": "arm" | "point", "done", "total", "message", "arm", "replicate", ...}, one
            call at a time, from any thread; `done` and `total` of an arm's event count this call's
            replicates. Its wish to stop is asked from several threads.
        cache: where runs of all arms are kept, and those of all but the ticket arm are taken from.
        threads: None is NIRVANA_THREADS, or else one for each core.

    Raises:
        Invalid: unknown arm, no replicates, or no threads.
        InvalidRecipe, InvalidArchitecture: as `check_fit`.
        Cancelled: the reporter said so.
    """
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise Invalid(f"arm is {unknown[0]!r}, expected one of {', '.join(ARMS)}")
    if not seeds or seeds[0] < 0 or seeds.step != 1:
        raise Invalid(f"replicates is {seeds}, expected at least 1, counted from 0 in steps of 1")
    count = count_threads(threads)
    check_fit(config.ticket, config.data, config.recipe)
    where = environment()
    configs = [replace(config.of(arm), reporter=reporter.silent) for arm in arms]
    seeds_of = {arm: (pools or {}).get(arm, seeds) for arm in arms}
    working = _Working(reporter, cache, where, sum(map(len, seeds_of.values())))
    if count == 1:
        for one in configs:
            for batch in plan_batches(one, seeds_of[one.arm], with_fields=cache is not None):
                working.run(batch)
    else:
        _run_side_by_side(configs, seeds_of, working, count)
    return {one.arm: _collect(one, seeds_of[one.arm], working) for one in configs}


def arm_keys(config: ArmConfig, seeds: range) -> list[str]:
    """Return the keys under which the run cache keeps an arm's runs, for those who fetch them beforehand.

    None where a replicate's values come from updates of their own (`dense_steps`): nothing is trained here.
    """
    if config.dense_steps:
        return []
    return [key for batch in plan_batches(config, seeds, with_fields=True) for key in batch.keys]


@dataclass
class _Working:
    """A call's work: the replicates so far, and who hears of them.

    Attributes:
        replicates: by arm and seed.
    """

    reporter: Reporter
    cache: RunCache | None
    where: Environment
    total: int
    replicates: dict[tuple[str, int], Replicate] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, batch: Batch, stop: threading.Event | None = None) -> None:
        """Train a batch, or take it from the cache, until `stop` is set."""
        arm = batch.config.arm
        runs = run_batch(
            batch, self.cache, self.where, lambda seed: self._reporter(arm, seed, batch.engine, stop)
        )
        for seed, replicate in zip(batch.seeds, runs, strict=True):
            with self.lock:
                self.replicates[arm, seed] = replicate
                event = _event(arm, len(self.replicates), self.total, replicate)
                self.reporter.report(event | {"arm": arm, "replicate": seed})

    def _reporter(self, arm: str, seed: int, engine: str, stop: threading.Event | None) -> Reporter:
        """Return the reporter of a training, which learns of `stop` at its next event or update."""
        should_stop, is_heard = self.reporter.should_stop, bool(self.reporter.on_progress)

        def on_progress(event: Event) -> None:
            if stop and stop.is_set():
                raise Cancelled(f"cancelled, as another training ended: {arm} {seed}")
            with self.lock:
                self.reporter.report(event | {"arm": arm, "replicate": seed})

        def stops() -> bool:
            return bool(stop and stop.is_set()) or bool(should_stop and should_stop())

        asks = stop and engine != "sparse"  # which makes updates one at a time where it must ask
        return Reporter(on_progress if stop or is_heard else None, stops if asks else should_stop)


def _run_side_by_side(
    configs: Sequence[ArmConfig], seeds_of: Mapping[str, range], working: _Working, threads: int
) -> None:
    """As in a row: a run that follows from all that an earlier one does waits for it and finds it cached."""
    known, later = set[str](), list[Batch]()

    def planned() -> Iterator[tuple[bool, Work]]:
        for config in configs:
            seeds, with_fields = seeds_of[config.arm], working.cache is not None
            for batch in plan_batches(config, seeds, len(configs), with_fields=with_fields):
                if known & set(batch.keys):
                    later.append(batch)
                else:
                    yield batch.engine == "sparse", partial(working.run, batch)
                known.update(batch.keys)

    work_off(planned(), min(threads, working.total))
    for batch in later:
        working.run(batch)


def _collect(config: ArmConfig, seeds: range, working: _Working) -> ArmResult:
    ticket, arm = config.ticket, config.arm
    replicates = [working.replicates[arm, seed] for seed in seeds]
    runs = [one.measured for one in replicates]
    return ArmResult(
        arm=arm,
        seeds=list(seeds),
        accuracies=[run.accuracy for run in runs],
        final_accuracies=[run.final_accuracy for run in runs],
        untrained_accuracies=[run.untrained_accuracy for run in runs],
        early_stop_steps=[run.early_stop_step for run in runs],
        failed=[run.failed for run in runs],
        paired=config.is_paired,
        density=density(arm_masks(ticket, arm, seeds[0]), ticket.prunable_shapes),
        cost=_cost(one for one in replicates if not one.cached),
        environment=working.where,
        cached=[one.cached for one in replicates],
        cached_cost=_cost(one for one in replicates if one.cached),
        test_accuracies=[run.test_accuracy for run in runs],
        untrained_test_accuracies=[run.untrained_test_accuracy for run in runs],
        validation_losses=[run.validation_loss for run in runs],
        sealed_rows=len(config.sealed.y) if config.sealed else 0,
        data=config.data_sha256,
        repeated=sum(one.repeats is True for one in replicates),
        differing=sum(one.repeats is False for one in replicates),
        engine=join_engines(run.engine for run in runs),
    )


def _cost(replicates: Iterable[Replicate]) -> Cost:
    return sum_costs(one.measured.cost for one in replicates)


def _event(arm: str, done: int, total: int, last: Replicate) -> Event:
    message = f"{arm} {done}/{total}: accuracy {last.measured.accuracy:.4f}"
    message += ", failed" if last.measured.failed else ", cached" if last.cached else ""
    counts = {"kind": "arm", "done": done, "total": total, "message": message}
    return counts | {"test_accuracy": last.measured.accuracy}


def work_off(planned: Iterable[tuple[bool, Work]], threads: int) -> None:
    """Go through `planned` on this thread while others do those pieces that may run anywhere (True); then do
    the rest here, in order, and help.

    The first exception stops the rest and is raised: each piece of work gets an event, and must end soon when
    it is set.
    """
    stop, waiting, own = threading.Event(), SimpleQueue[Work | None](), list[Work]()
    errors = list[BaseException]()

    def work(pieces: Iterable[Work]) -> None:
        try:
            for piece in pieces:
                if stop.is_set():
                    return
                piece(stop)
        except BaseException as error:
            errors.append(error)
            stop.set()

    def share(stop: threading.Event) -> None:
        for is_free, piece in planned:
            if stop.is_set():
                return
            if is_free:
                waiting.put(piece)
            else:
                own.append(piece)

    helpers = [threading.Thread(target=work, args=(_take(waiting),)) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    try:
        work([share])
        waiting.put(None)
        work(own)
        work(_take(waiting))
        for helper in helpers:
            helper.join()
    finally:
        stop.set()  # where Ctrl-C came between
        waiting.put(None)
    if errors:
        raise errors[0]


def _take(waiting: SimpleQueue[Work | None]) -> Iterator[Work]:
    """Yield from the front, until None is met, which is left to the other threads."""
    while (piece := waiting.get()) is not None:
        yield piece
    waiting.put(None)
