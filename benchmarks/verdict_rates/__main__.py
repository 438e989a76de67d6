"""`python -m benchmarks.verdict_rates [--out FOLDER] [--jobs N] [--write FILE]`.

Plants tickets, trains every arm of each with 20 data orders (once: FOLDER keeps them), draws verifications
from these pools and prints how they ended; runs whole verifications of other tickets as a check, and of
adversaries; measures gate 0's spectrum test; and simulates the looks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.verdict_rates import attacks, gate, report, simulation
from benchmarks.verdict_rates.drawing import POOL
from benchmarks.verdict_rates.ends import WholeVerification
from benchmarks.verdict_rates.planting import KINDS, Planting, ticket_path
from benchmarks.working import Arm, work_off
from nirvana.verification.protocol import ARMS

SEEDS = range(100, 120)  # no recipe was chosen by them
END_SEEDS = range(120, 122)  # of the whole verifications: one of each kind a seed


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is missing, then print the rates."""
    asked = _parse(arguments)
    out, seeds = Path(asked.out), SEEDS[: asked.tickets]
    work_off("planting", [Planting(seed) for seed in (*seeds, *END_SEEDS)], out, asked.jobs)
    pools = [Arm(path, arm, POOL) for path in report.pooled(out, seeds) for arm in ARMS]
    work_off("pools", pools, out, asked.jobs)
    ends = [WholeVerification(ticket_path(kind, seed)) for seed in END_SEEDS for kind in KINDS]
    work_off("whole verifications", ends, out, asked.jobs)
    attacked = [attacks.Attack(kind, seed) for seed in seeds[: asked.attacks] for kind in attacks.PLANTED]
    work_off("adversaries", attacked, out, asked.jobs)
    work_off("gate 0", [gate.GateTables()], out, asked.jobs)
    parts = [
        report.write_up(out, seeds, asked.draws, ends),
        attacks.write_up(out, attacked),
        gate.write_up(out),
        simulation.write_up(),
    ]
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    if asked.write:
        Path(asked.write).write_text(text)
    print(text)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.verdict_rates", description=__doc__)
    parser.add_argument("--out", default=os.environ.get("NIRVANA_BENCH_OUT") or ".verdict-rates")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--tickets", type=int, default=len(SEEDS), help="of each kind, at most 20")
    parser.add_argument("--attacks", type=int, default=len(SEEDS), help="of each adversary, at most 20")
    parser.add_argument("--draws", type=int, default=100, help="verifications drawn for each ticket")
    parser.add_argument("--write", help="a file for the tables")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
