"""A whole verification here: gate 0, every arm, look after look, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from nirvana import lazy, tasks
from nirvana.errors import Invalid
from nirvana.format.ticket import Ticket
from nirvana.tasks import Task
from nirvana.training.events import OnProgress, Reporter, ShouldStop
from nirvana.training.recipe import Recipe
from nirvana.verification.arms import ArmConfig, baseline_sha256
from nirvana.verification.connectivity import Barrier, barrier
from nirvana.verification.dynamic import check_dynamic, run_dynamic
from nirvana.verification.evaluation import Evaluation, judge, refuse
from nirvana.verification.gate import check_fit, check_gate, check_shapes
from nirvana.verification.leaks import look_for_leaks
from nirvana.verification.plan import Done, Judge, Pool, Progress, TrainArms, next_step
from nirvana.verification.protocol import (
    ARMS,
    BASELINES,
    OPEN_VERDICTS,
    REFERENCE,
    SEEDS_APART,
    Look,
    draw_seed,
)
from nirvana.verification.running import run_arms
from nirvana.verification.runs import Cache, find_cache


def verify(
    ticket: Ticket,
    task: str | Task | None = None,
    replicates: int = 5,
    arms: Sequence[str] = ARMS,
    *,
    max_replicates: int | None = None,
    seed: int | None = None,
    pool_seed: int = 0,
    margin: float | None = None,
    stability: bool = False,
    dynamic: str | None = None,
    leaks: bool = False,
    known: Iterable[tuple[str, Ticket]] = (),
    cache: Cache = "home",
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    threads: int | None = None,
) -> Evaluation:
    """Train every arm of a verification here and judge; what gate 0 refuses is not trained.

    Args:
        task: None is the ticket's; its recipe is the ticket's in any case.
        replicates: n; 1 is a smoke test (INCONCLUSIVE), 5 the standard, 10 the strict protocol.
        max_replicates: up to 4n; while the verdict is open, looks follow at 2n and 4n. None: n, one look.
        seed: replicate j trains with seed + j; None draws one, as the registry does. The same seed gives the
            same numbers again.
        pool_seed: of the pools of dense runs, which grow in the cache.
        margin: of accuracy, a fraction; None is the task's.
        stability: measure linear mode connectivity too (three more trainings; needs torch).
        dynamic: `rigl` or `set`: train a network whose mask moves beside the ticket (needs torch); reported.
        leaks: look for signs that the mask was searched on the test labels (two arms more); reported.
        known: (name, ticket) of others, to find duplicates among.
        cache: of dense and control runs; "home" is NIRVANA_HOME/runs, None keeps and takes none.
        progress: called with {"kind": "arm" | "point" | "stability", "done", "total", "message", ...}; for
            arms, `done` and `total` count replicates over all arms of a look. One call at a time, from any
            thread.
        threads: that train replicates side by side, where the sparse engine trains them; None is
            NIRVANA_THREADS, or else one for each core. The numbers are the same on any number.

    Raises:
        NotFound, DataMissing: the task or its data are not here.
        Invalid: replicates or threads below 1, a cap out of range, or not all arms.
        InvalidArchitecture: the task has another input shape or other classes than the ticket's network.
        InvalidRecipe: it leaves no ticket, or no step to train.
        Unavailable: scipy is not installed, or torch and the sparse engine cannot train the ticket.
        Cancelled: `should_stop` said so.
    """
    if set(arms) != set(ARMS):
        raise Invalid(f"the arms are {list(arms)}, expected all of {', '.join(ARMS)}: a verdict needs each")
    drawn, kept = draw_seed() if seed is None else seed, find_cache(cache)
    state = Progress(drawn, ()).with_looks(replicates, max_replicates)
    reporter = Reporter(progress, should_stop)
    lazy.require("scipy.special")
    chosen = task if isinstance(task, Task) else tasks.get(task or ticket.task)
    check_shapes(ticket, chosen.input_shape, chosen.classes)
    delta = chosen.margin if margin is None else margin
    gate = check_gate(ticket, known)
    if gate.invalid is not None:
        return refuse(ticket, gate, delta, chosen.name)
    data, recipe = tasks.load(chosen, progress), Recipe.from_dict(dict(ticket.recipe))
    check_fit(ticket, data, recipe)
    line = barrier(ticket, data, recipe, reporter=reporter) if stability else None
    reference = chosen.reference_recipe(ticket.architecture)
    sealed = tasks.load_sealed(chosen)
    config = ArmConfig(ticket, "ticket", data, recipe, reference=reference, sealed=sealed)
    if dynamic is not None:
        check_dynamic(config, dynamic)
    state = replace(state, gate=gate, pools=_local_pools(config, pool_seed))
    while not isinstance(step := next_step(state), Done):
        if isinstance(step, TrainArms):
            seeds, baselines = state.seeds(step.look), state.baselines(step.look)
            results = run_arms(
                config, step.arms, seeds, reporter, pools=baselines, cache=kept, threads=threads
            )
            state = state.with_arms(results)
        elif isinstance(step, Judge):
            state = replace(state, evaluation=judge_look(ticket, state, step.look, delta, chosen.name, line))
    more = _measure_beside(step.evaluation, config, dynamic, leaks, reporter)
    return replace(step.evaluation, measurements={**step.evaluation.measurements, **more})


def _measure_beside(
    evaluation: Evaluation, config: ArmConfig, dynamic: str | None, leaks: bool, reporter: Reporter
) -> dict[str, Any]:
    """Return what was asked for besides the protocol: it changes nothing else."""
    seed, accuracies = evaluation.measurements["seed"], evaluation.measurements["arms"]["ticket"]
    seeds, more = range(seed, seed + len(accuracies)), dict[str, Any]()
    if dynamic is not None:
        more["dynamic"] = run_dynamic(config, dynamic, seeds, accuracies, reporter)
    if leaks:
        more["leaks"] = look_for_leaks(config, seeds, reporter)
    return more


def _local_pools(config: ArmConfig, seed: int) -> dict[str, Pool]:
    """Return the baselines' pools, one and the same where their trainings are."""
    ticket = config.ticket
    of = (ticket.architecture, ticket.start.laws)
    keys = [baseline_sha256(arm, *of, config.of(arm).recipe, ticket.task, ticket.digest) for arm in BASELINES]
    dense_seed = seed if len(set(keys)) == 1 else seed + SEEDS_APART
    return {"dense": Pool(dense_seed), REFERENCE: Pool(seed)}


def judge_look(
    ticket: Ticket,
    progress: Progress,
    look: Look,
    margin: float,
    task: str | None = None,
    stability: Barrier | None = None,
) -> Evaluation:
    """Return the verdict on all replicates so far, at a look's level; where it is open, a verdict of an
    earlier look stands. Arguments as in `judge`."""
    arms, looks, gate, last = progress.joined, progress.judged, progress.gate, progress.evaluation
    now = judge(ticket, arms, margin, task, look.alpha, looks=looks, gate=gate, stability=stability)
    if last is None or last.verdict in OPEN_VERDICTS or now.verdict not in OPEN_VERDICTS:
        return now
    return replace(now, verdict=last.verdict, reason=last.reason)
