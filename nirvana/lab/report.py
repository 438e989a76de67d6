"""What a search found: its levels, its tickets, and the folder that holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nirvana.errors import NirvanaError
from nirvana.files import write_atomically
from nirvana.lab.goal import Goal, level_of
from nirvana.lab.methods import Found
from nirvana.recipe import Recipe
from nirvana.ticket import Ticket
from nirvana.training import TrainResult


@dataclass(frozen=True)
class LevelResult:
    """What training one level's ticket measured.

    Attributes:
        ticket: the level's ticket, its measured accuracy among its claims (same digest as before training).
        training: the measurements; `training.curve` is for plots.
    """

    level: int
    ticket: Ticket
    training: TrainResult

    @property
    def file_name(self) -> str:
        return f"level-{self.level:02d}.ticket"

    def to_dict(self) -> dict[str, Any]:
        """The level's entry in report.json (API.md, contract for scripts)."""
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


@dataclass
class FindReport:
    """What `find` found.

    Attributes:
        levels: entries of report.json, first level first (methods that are not iterative: the last alone).
        tickets: their tickets, in the same order.
        search: what a method that is not iterative measured while it looked for its mask.
    """

    task: str
    architecture: str
    goal: Goal
    seed: int
    recipe: Recipe
    environment: dict[str, Any]
    levels: list[dict[str, Any]] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    search: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """report.json (API.md, contract for scripts), and the goal."""
        return {
            "task": self.task,
            "architecture": self.architecture,
            "method": self.goal.method,
            "seed": self.seed,
            "recipe": self.recipe.to_dict(),
            "environment": self.environment,
            "goal": {"levels": self.goal.levels, "density": self.goal.density},
            "levels": self.levels,
        } | ({} if self.search is None else {"search": dict(self.search)})


def is_finished(report: FindReport) -> bool:
    if not report.tickets:
        return False
    last = report.tickets[-1]
    return level_of(last) == report.goal.last_level(last, report.recipe.pruning)


def record(
    report: FindReport, result: LevelResult | Found, following: Ticket | None, folder: Path | None
) -> None:
    """Put a level into the report and, with the next one's ticket, into the folder; the report comes last."""
    if isinstance(result, Found):
        report.search = result.measured
    else:
        report.levels.append(result.to_dict())
        report.tickets.append(result.ticket)
        if folder:
            result.ticket.write(folder / result.file_name)
    if folder:
        if following is not None:
            following.write(folder / f"level-{level_of(following):02d}.ticket")
        write_atomically(folder / "report.json", json.dumps(report.to_dict(), indent=1).encode() + b"\n")


def take_up(report: FindReport, folder: Path) -> Ticket | None:
    """Fill the report with the levels that the same call left in `folder`; the ticket that comes next, if
    any.

    Another call's levels, or a file that does not fit, are ignored: they will be written over.
    """
    try:
        before = json.loads((folder / "report.json").read_text())
        levels, report.search = before.pop("levels"), before.pop("search", None)
        expected = json.loads(json.dumps(report.to_dict()))
        expected.pop("search", None)
        if before != {name: value for name, value in expected.items() if name != "levels"}:
            return None
        found = [Ticket.read(folder / entry["ticket"]) for entry in levels]
        if [ticket.digest for ticket in found] != [entry["digest"] for entry in levels]:
            return None
        report.levels, report.tickets = levels, found
        following = level_of(found[-1]) + 1 if found else 1
        return None if is_finished(report) else Ticket.read(folder / f"level-{following:02d}.ticket")
    except (OSError, ValueError, KeyError, NirvanaError):
        report.levels, report.tickets, report.search = [], [], None
        return None
