"""`python -m benchmarks.verdict_rates [--only PAGE] [--out FOLDER] [--jobs N] [--write FOLDER]`.

Two pages. `verdict-rates`: plants tickets, trains every arm of each with 20 data orders (once: `--out` keeps
them), draws verifications from these pools and prints how they ended; runs whole verifications of other
tickets as a check; measures gate 0's spectrum test; and simulates the looks. `adversary-rates`: whole
verifications of adversaries' tickets, and a record of each (adversary-rates.jsonl), with which `--take-up`
goes on elsewhere.
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
    for page in [asked.only] if asked.only else PAGES:
        text = PAGES[page](out, seeds, asked)
        if asked.write:
            (Path(asked.write) / f"{page}.md").write_text(text)
        print(text)
    return 0


def _planted(out: Path, seeds: Sequence[int], asked: argparse.Namespace) -> str:
    work_off("planting", [Planting(seed) for seed in (*seeds, *END_SEEDS)], out, asked.jobs)
    pools = [Arm(path, arm, POOL) for path in report.pooled(out, seeds) for arm in ARMS]
    work_off("pools", pools, out, asked.jobs)
    ends = [WholeVerification(ticket_path(kind, seed)) for seed in END_SEEDS for kind in KINDS]
    work_off("whole verifications", ends, out, asked.jobs)
    work_off("gate 0", [gate.GateTables()], out, asked.jobs)
    parts = [report.write_up(out, seeds, asked.draws, ends), gate.write_up(out), simulation.write_up()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _adversaries(out: Path, seeds: Sequence[int], asked: argparse.Namespace) -> str:
    if asked.take_up:
        attacks.take_up(out, Path(asked.take_up))
    attacked = [attacks.Attack(kind, seed) for seed in seeds for kind in attacks.PLANTED]
    work_off("adversaries", attacked, out, asked.jobs)
    if asked.write:
        attacks.write_records(out, attacked, Path(asked.write) / "adversary-rates.jsonl")
    return attacks.write_up(out, attacked)


PAGES = {"verdict-rates": _planted, "adversary-rates": _adversaries}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.verdict_rates", description=__doc__)
    parser.add_argument("--only", choices=PAGES, help="one page alone")
    parser.add_argument("--take-up", metavar="FILE", help="records of adversaries that are not run again")
    parser.add_argument("--out", default=os.environ.get("NIRVANA_BENCH_OUT") or ".verdict-rates")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--tickets", type=int, default=len(SEEDS), help="of each kind, at most 20")
    parser.add_argument("--draws", type=int, default=100, help="verifications drawn for each ticket")
    parser.add_argument("--write", help="a folder for the pages")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
