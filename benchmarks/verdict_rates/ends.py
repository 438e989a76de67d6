"""Whole verifications of planted tickets, from gate 0 to the verdict: a check of the drawn ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.working import write_json
from nirvana import lab
from nirvana.format.ticket import Ticket
from nirvana.verification.protocol import draw_seed
from nirvana.verification.runs import RunCache

REPLICATES, MOST = 5, 20


@dataclass(frozen=True)
class WholeVerification:
    """`lab.verify` as the service calls it, with a pool of dense runs of its own."""

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
        write_json(self.path(out), verify_alone(ticket, REPLICATES, MOST).to_dict())


def verify_alone(
    ticket: Ticket, replicates: int, most: int, known: Iterable[tuple[str, Ticket]] = ()
) -> lab.Evaluation:
    """Verify with drawn seeds, those of the pools too: verifications say the more, the less they share."""
    with TemporaryDirectory() as folder:
        return lab.verify(
            ticket,
            replicates=replicates,
            max_replicates=most,
            pool_seed=draw_seed(),
            known=known,
            cache=RunCache(Path(folder)),
            threads=1,
        )
