"""The single pieces of a reproduction. Each writes one file or folder and returns at once where it is there,
so a reproduction that was stopped goes on where it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.reproduce.sizes import ARCHITECTURE, METHOD_DENSITY, Size
from benchmarks.working import read_json, write_json
from nirvana import lab, tasks
from nirvana.format.ticket import Ticket
from nirvana.training.recipe import Recipe
from nirvana.verification.runs import RunCache


@dataclass(frozen=True)
class Levels:
    """IMP from one seed: tickets of every level."""

    task: str
    seed: int
    size: Size

    def folder(self, out: Path) -> Path:
        return out / f"imp-{self.task}-{self.seed}"

    def is_done(self, out: Path) -> bool:
        return _has_level(self.folder(out), self.size.levels[-1])

    def run(self, out: Path) -> None:
        levels = self.size.levels[-1]
        lab.find(
            self.task,
            ARCHITECTURE,
            "imp",
            levels=levels,
            seed=self.seed,
            recipe=self.size.recipe,
            out=self.folder(out),
        )


@dataclass(frozen=True)
class ByMethod:
    """One method's ticket at 10 % density, by a constant learning rate or by one that drops."""

    method: str
    size: Size
    has_drops: bool = False

    def folder(self, out: Path) -> Path:
        return out / f"{'retraining' if self.has_drops else 'method'}-{self.method}"

    def is_done(self, out: Path) -> bool:
        path = self.folder(out) / "report.json"
        return path.exists() and bool(last_ticket(self.folder(out)))

    def run(self, out: Path) -> None:
        drops = {"schedule": {"kind": "step", "at": list(self.size.drops), "factor": 0.1}}
        lab.find(
            self.size.method_task,
            ARCHITECTURE,
            self.method,
            density=METHOD_DENSITY,
            seed=0,
            recipe=self.size.recipe | (drops if self.has_drops else {}),
            out=self.folder(out),
        )


@dataclass(frozen=True)
class Transfer:
    """A ticket of one task on another, beside that one's own."""

    source: Path
    own: Path
    task: str
    replicates: int

    def path(self, out: Path) -> Path:
        return out / "transfers" / f"{self.source.parts[0]}-to-{self.task}-{self.replicates}.json"

    def is_done(self, out: Path) -> bool:
        return self.path(out).exists()

    def run(self, out: Path) -> None:
        source, own = (Ticket.read(out / path) for path in (self.source, self.own))
        recipe = Recipe.from_dict(dict(own.recipe))
        found = lab.transfer(
            source,
            self.task,
            own=own,
            replicates=self.replicates,
            recipe=recipe,
            cache=RunCache(out / "runs"),
        )
        write_json(self.path(out), found.to_dict())


@dataclass(frozen=True)
class Stability:
    """The barrier between trainings of one ticket in different data orders."""

    ticket: Path

    def path(self, out: Path) -> Path:
        return out / "stability" / f"{'-'.join(self.ticket.with_suffix('').parts)}.json"

    def is_done(self, out: Path) -> bool:
        return self.path(out).exists()

    def run(self, out: Path) -> None:
        ticket = Ticket.read(out / self.ticket)
        write_json(self.path(out), lab.barrier(ticket, tasks.load(ticket.task)).to_dict())


def last_ticket(folder: Path) -> Path | None:
    """The file of the last level that a finished search lists; None where it has none."""
    levels = read_json(folder / "report.json")["levels"]
    goal = METHOD_DENSITY + 0.005  # early-bird cuts whole units: at most this density
    return folder / levels[-1]["ticket"] if levels and levels[-1]["density"] <= goal else None


def _has_level(folder: Path, level: int) -> bool:
    report = folder / "report.json"
    return report.exists() and any(entry["level"] == level for entry in read_json(report)["levels"])
