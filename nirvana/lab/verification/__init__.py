"""Verification: train a ticket again beside a dense baseline and controls, and say what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nirvana import tasks
from nirvana.errors import Invalid
from nirvana.lab.verification.arms import ArmResult, run_arm
from nirvana.lab.verification.evaluation import Evaluation, judge
from nirvana.protocol import ARMS, PROTOCOL, VERDICTS
from nirvana.recipe import Recipe
from nirvana.tasks import Task
from nirvana.ticket import Ticket
from nirvana.training import Progress

__all__ = ["ARMS", "PROTOCOL", "VERDICTS", "ArmResult", "Evaluation", "judge", "run_arm", "verify"]


def verify(
    ticket: Ticket,
    task: str | Task | None = None,
    replicates: int = 5,
    arms: Sequence[str] = ARMS,
    *,
    margin: float | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """Train every arm of a verification here and judge.

    Args:
        task: None is the ticket's; its recipe is the ticket's in any case.
        replicates: n; 1 is a smoke test (INCONCLUSIVE), 5 the standard, 10 the strict protocol.
        margin: of accuracy, a fraction; None is the task's.
        progress: called with {"kind": "arm" | "point", "done", "total", "message", "arm", ...}; for arms,
            `done` and `total` count replicates over all arms.

    Raises:
        NotFound, DataMissing: the task or its data are not here.
        Invalid: replicates below 1, or not all arms.
        Cancelled: `should_stop` said so.
    """
    if set(arms) != set(ARMS):
        raise Invalid(f"the arms are {list(arms)}, expected all of {', '.join(ARMS)}: a verdict needs each")
    chosen = task if isinstance(task, Task) else tasks.get(task or ticket.task)
    recipe = Recipe.from_dict(dict(ticket.recipe))
    data = tasks.load(chosen, progress)
    results = []
    for place, arm in enumerate(ARMS):
        counted = _counted(progress, place * replicates, len(ARMS) * replicates)
        results.append(run_arm(ticket, arm, data, recipe, replicates, counted, should_stop))
    return judge(ticket, results, chosen.margin if margin is None else margin, chosen.name)


def _counted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None

    def count(event: dict[str, object]) -> None:
        done = event["done"]
        if event["kind"] == "arm" and isinstance(done, int):
            event = event | {"done": before + done, "total": total}
        progress(event)

    return count
