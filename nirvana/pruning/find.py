"""Find tickets here, without any server: every level of a search, its report, and the folder that has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nirvana import tasks
from nirvana.engines import check_engine
from nirvana.errors import NirvanaError
from nirvana.files import write_atomically
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.pruning.levels import LevelResult, find_level, first_ticket, level_file
from nirvana.pruning.methods import Options
from nirvana.pruning.plan import SearchPlan, plan_search
from nirvana.pruning.search import MaskResult
from nirvana.pruning.target import PruningTarget, level_of
from nirvana.tasks import Task
from nirvana.training.cost import Environment, environment
from nirvana.training.events import OnProgress, Reporter, ShouldStop
from nirvana.training.recipe import Recipe


def find(
    task: str | Task,
    architecture: str | Architecture,
    method: str = "imp",
    *,
    levels: int | None = None,
    density: float | None = None,
    seed: int = 0,
    recipe: Recipe | Mapping[str, Any] | None = None,
    options: Options | None = None,
    engine: str = "auto",
    out: str | Path | None = None,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> FindReport:
    """Find tickets here, without any server.

    Args:
        architecture: a zoo name, built for the task, or a graph.
        recipe: None is the task's default; a mapping overrides fields of it.
        options: of the method alone, where they are not its defaults (`nirvana methods` lists them).
        engine: `auto` (the faster one, level by level), `dense` or `sparse`.
        out: folder for `level-00.ticket` ... and `report.json`, written after each level. A folder that holds
            the levels of the same call is taken up where it ends.
        progress: called with {"kind": "level" | "point", "done", "total", "message", ...}.

    Raises:
        NotFound, InvalidJob, InvalidRecipe, InvalidArchitecture: what is asked for does not exist or fit.
        Unavailable: torch or numba is not installed and this method or engine needs it.
        TrainingFailed: a loss was not finite; names the level and the step.
        Cancelled: `should_stop` said so.
    """
    check_engine(engine)
    target = PruningTarget(method, levels, density, options or {})
    plan = plan_search(task, architecture, target, recipe=recipe, seed=seed)
    report, reporter = FindReport(plan, environment()), Reporter(progress, should_stop)
    folder = Path(out) if out is not None else None
    ticket = resume(report, folder) if folder else None
    if ticket is None and not report.is_finished:
        ticket = first_ticket(plan, tasks.load(plan.task, progress), reporter)
    while ticket is not None:
        data = tasks.load(plan.task, progress)
        result, ticket = find_level(ticket, data, seed, target, reporter, engine)
        record(report, result, ticket, folder)
    return report


@dataclass
class FindReport:
    """The levels of a search.

    Attributes:
        levels: entries of report.json, first level first (methods that are not iterative: the last alone).
        tickets: their tickets, in the same order.
        search: what a method that is not iterative measured while it looked for its mask.
    """

    plan: SearchPlan
    environment: Environment
    levels: list[dict[str, Any]] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    search: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return report.json: the contract for scripts (docs/architecture.md), and the goal."""
        plan, target = self.plan, self.plan.target
        goal: dict[str, Any] = {"levels": target.levels, "density": target.density}
        return {
            "task": plan.task.name,
            "architecture": plan.architecture.name,
            "method": target.method,
            "seed": plan.seed,
            "recipe": plan.recipe.to_dict(),
            "environment": self.environment,
            "goal": goal | ({"options": dict(target.options)} if target.options else {}),
            "levels": self.levels,
        } | ({} if self.search is None else {"search": dict(self.search)})

    @property
    def is_finished(self) -> bool:
        """True once the last level is there."""
        if not self.tickets:
            return False
        last, target = self.tickets[-1], self.plan.target
        return level_of(last) == target.last_level(last.prunable_shapes, self.plan.recipe.pruning)


def record(
    report: FindReport, result: LevelResult | MaskResult, next_ticket: Ticket | None, folder: Path | None
) -> None:
    """Put a level into the report and, with the next one's ticket, into the folder; the report comes last."""
    if isinstance(result, MaskResult):
        report.search = result.measured
    else:
        report.levels.append(result.to_dict())
        report.tickets.append(result.ticket)
        if folder:
            result.ticket.write(folder / result.file_name)
    if folder:
        if next_ticket is not None:
            next_ticket.write(folder / level_file(level_of(next_ticket)))
        write_atomically(folder / "report.json", json.dumps(report.to_dict(), indent=1).encode() + b"\n")


def resume(report: FindReport, folder: Path) -> Ticket | None:
    """Fill the report with the levels that the same call left in `folder`; return the ticket that comes next,
    if any.

    Another call's levels, or a file that does not fit, are ignored: they will be written over.
    """
    try:
        before = json.loads((folder / "report.json").read_text())
        levels, report.search = before.pop("levels"), before.pop("search", None)
        expected = json.loads(json.dumps(report.to_dict()))
        expected.pop("search", None)
        if before != {name: value for name, value in expected.items() if name != "levels"}:
            return None
        tickets = [Ticket.read(folder / entry["ticket"]) for entry in levels]
        if [ticket.digest for ticket in tickets] != [entry["digest"] for entry in levels]:
            return None
        report.levels, report.tickets = levels, tickets
        next_level = level_of(tickets[-1]) + 1 if tickets else 1
        return None if report.is_finished else Ticket.read(folder / level_file(next_level))
    except (OSError, ValueError, KeyError, NirvanaError):
        report.levels, report.tickets, report.search = [], [], None
        return None
