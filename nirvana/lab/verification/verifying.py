"""A whole verification here: gate 0, every arm, look after look, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from nirvana import tasks
from nirvana.errors import Invalid
from nirvana.lab.verification.connectivity import Barrier, barrier
from nirvana.lab.verification.evaluation import Evaluation, judge, refuse
from nirvana.lab.verification.fitting import check_fit, check_shapes
from nirvana.lab.verification.gate import check_gate
from nirvana.lab.verification.rates import Look, plan_looks
from nirvana.lab.verification.results import ArmResult
from nirvana.lab.verification.running import run_arms
from nirvana.lab.verification.runs import RunCache, home_cache
from nirvana.protocol import ARMS, OPEN_VERDICTS
from nirvana.recipe import Recipe
from nirvana.tasks import Task, TaskData
from nirvana.ticket import Ticket
from nirvana.training import Progress, ShouldStop


def verify(
    ticket: Ticket,
    task: str | Task | None = None,
    replicates: int = 5,
    arms: Sequence[str] = ARMS,
    *,
    max_replicates: int | None = None,
    margin: float | None = None,
    stability: bool = False,
    known: Iterable[tuple[str, Ticket]] = (),
    cache: RunCache | Literal["home"] | None = "home",
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    threads: int | None = None,
) -> Evaluation:
    """Train every arm of a verification here and judge; what gate 0 refuses is not trained.

    Args:
        task: None is the ticket's; its recipe is the ticket's in any case.
        replicates: n; 1 is a smoke test (INCONCLUSIVE), 5 the standard, 10 the strict protocol.
        max_replicates: up to 4n; while the verdict is open, looks follow at 2n and 4n. None: n, one look.
        margin: of accuracy, a fraction; None is the task's.
        stability: measure linear mode connectivity too (three more trainings).
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
        Cancelled: `should_stop` said so.
    """
    if set(arms) != set(ARMS):
        raise Invalid(f"the arms are {list(arms)}, expected all of {', '.join(ARMS)}: a verdict needs each")
    looks, kept = plan_looks(replicates, max_replicates), home_cache() if cache == "home" else cache
    chosen = task if isinstance(task, Task) else tasks.get(task or ticket.task)
    check_shapes(ticket, chosen.input_shape, chosen.classes)
    recipe = Recipe.from_dict(dict(ticket.recipe))
    gate = check_gate(ticket, known)
    delta = chosen.margin if margin is None else margin
    if gate.invalid is not None:
        return refuse(ticket, gate, delta, chosen.name)
    data = tasks.load(chosen, progress)
    check_fit(ticket, data, recipe)
    line = _line(ticket, data, recipe, progress, should_stop) if stability else None
    results, evaluation, before = dict[str, ArmResult](), None, list[Mapping[str, Any]]()
    for look, first in zip(looks, [0, *(look.n for look in looks)], strict=False):
        replicates_now = range(first, look.n)
        fresh = run_arms(ticket, ARMS, data, recipe, replicates_now, progress, should_stop, kept, threads)
        results = {arm: results[arm].joined(fresh[arm]) if results else fresh[arm] for arm in ARMS}
        evaluation = judge(
            ticket, results, delta, chosen.name, look.alpha, looks=before, gate=gate, stability=line
        )
        before = evaluation.measurements["looks"]
        if not is_open(evaluation.verdict):
            break
    assert evaluation is not None
    return evaluation


def is_open(verdict: str) -> bool:
    """Whether more replicates may still decide."""
    return verdict in OPEN_VERDICTS


def next_look(looks: Sequence[Look], evaluation: Evaluation) -> Look | None:
    """The look after an evaluation, or None where it is over: for those who run the looks elsewhere."""
    later = (look for look in looks if look.n > evaluation.replicates)
    return next(later, None) if is_open(evaluation.verdict) else None


def _line(
    ticket: Ticket,
    data: TaskData,
    recipe: Recipe,
    progress: Progress | None,
    should_stop: ShouldStop | None,
) -> Barrier:
    return barrier(ticket, data, recipe, progress=progress, should_stop=should_stop)
