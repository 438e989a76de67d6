"""Working off many small pieces in several processes, so that a benchmark can be stopped and taken up.

A piece writes one file or folder below `out` and is skipped where that is there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from nirvana.files import write_atomically


class Piece(Protocol):
    """What can be done by itself."""

    def is_done(self, out: Path) -> bool: ...

    def run(self, out: Path) -> None: ...


@dataclass(frozen=True)
class Arm:
    """One arm of one ticket's verification.

    Attributes:
        ticket: its file, below `out`.
        arm: one of `nirvana.verification.protocol.ARMS`.
        replicates: from 0 on.
    """

    ticket: Path
    arm: str
    replicates: int

    def path(self, out: Path) -> Path:
        name = "-".join(self.ticket.with_suffix("").parts)
        return out / "arms" / f"{name}-{self.arm}-{self.replicates}.json"

    def is_done(self, out: Path) -> bool:
        return self.path(out).exists()

    def run(self, out: Path) -> None:
        from nirvana import lab, tasks
        from nirvana.format.ticket import Ticket
        from nirvana.verification.runs import RunCache

        ticket, cache = Ticket.read(out / self.ticket), RunCache(out / "runs")
        data, sealed = tasks.load(ticket.task), tasks.load_sealed(ticket.task)
        count = self.replicates
        result = lab.run_arm(ticket, self.arm, data, None, count, sealed=sealed, cache=cache, threads=1)
        write_json(self.path(out), result.to_dict())


def work_off(stage: str, pieces: Sequence[Piece], out: Path, jobs: int) -> None:
    """Do what is missing, each piece in one of `jobs` processes of one thread; what fails stops it all."""
    missing = [piece for piece in pieces if not piece.is_done(out)]
    say(f"{stage}: {len(pieces) - len(missing)} of {len(pieces)} are there")
    if not missing:
        return
    started = time.monotonic()
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_one_thread) as pool:
        running = {pool.submit(piece.run, out): piece for piece in missing}
        try:
            for number, future in enumerate(as_completed(running), 1):
                future.result()
                minutes = (time.monotonic() - started) / 60
                say(f"{stage}: {number} of {len(missing)} after {minutes:.1f} min: {running[future]}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def say(text: str) -> None:
    """Talk: to standard error."""
    print(text[:160], file=sys.stderr, flush=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """An object that `write_json` wrote."""
    return dict(json.loads(path.read_text()))
