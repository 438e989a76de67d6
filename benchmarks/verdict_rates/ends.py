"""Whole verifications of planted tickets, from gate 0 to the verdict: a check of the drawn ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.working import write_json
from nirvana import lab
from nirvana.ticket import Ticket

REPLICATES, MOST = 5, 20


@dataclass(frozen=True)
class WholeVerification:
    """`lab.verify` as the service calls it, without a cache of runs."""

    ticket: Path

    @property
    def kind(self) -> str:
        return self.ticket.stem.rpartition("-")[0]

    def path(self, out: Path) -> Path:
        return out / "whole" / f"{self.ticket.stem}.json"

    def is_done(self, out: Path) -> bool:
        return self.path(out).exists()

    def run(self, out: Path) -> None:
        ticket = Ticket.read(out / self.ticket)
        found = lab.verify(ticket, replicates=REPLICATES, max_replicates=MOST, cache=None)
        write_json(self.path(out), found.to_dict())
