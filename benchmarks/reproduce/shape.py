"""What the literature and our calibration let one expect, beside what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproduce import plan
from benchmarks.reproduce.sizes import Size
from nirvana import lab, tasks
from nirvana.format.ticket import Ticket
from nirvana.verification.statistics import paired_difference, ratio_interval, welch_difference

Arms = dict[str, Any]
Pool = Callable[[Sequence[Arms], str], tuple[list[float], list[float]]]
Read = Callable[[Path, Path, int, Size], Arms]


def expected_shape(size: Size, out: Path, read: Read, pool: Pool) -> str:
    """A table of expectations on MNIST (Frankle & Carbin 2019, at a fifth of its steps); empty without it."""
    if "mnist" not in size.seeds:
        return ""
    arms = {
        level: [
            read(out, plan.ticket_path("mnist", seed, level), size.replicates, size)
            for seed in size.seeds["mnist"]
        ]
        for level in (3, 7, 15)
    }
    sooner = ratio_interval(pool(arms[7], "reinit")[1], pool(arms[7], "ticket")[1])
    better = paired_difference(pool(arms[7], "ticket")[0], pool(arms[7], "reinit")[0])
    over_dense = welch_difference(pool(arms[15], "ticket")[0], pool(arms[15], "dense")[0])
    verdicts = _verdicts(size, out, 3, arms[3])
    is_ratio_only = set(verdicts) == {"LAYER_RATIO_ONLY"}
    rows = [
        (
            "21 %: steps of the re-init / steps of the ticket",
            ">= 1.8",
            f"{sooner[0]:.2f} [{sooner[1]:.2f}, {sooner[2]:.2f}]",
            sooner[0] >= 1.8,
        ),
        ("21 %: ticket - re-init", ">= 0.4 pp", f"{100 * better.mean:+.2f} pp", better.mean >= 0.004),
        (
            "3.6 %: ticket - dense",
            "> 0",
            f"{100 * over_dense.mean:+.2f} [{100 * over_dense.lower:+.2f}, {100 * over_dense.upper:+.2f}] pp",
            over_dense.lower > 0,
        ),
        ("51 %: verdicts", "LAYER_RATIO_ONLY", ", ".join(verdicts), is_ratio_only),
    ]
    lines = [f"| {what} | {expected} | {found} | {_yes(met)} |" for what, expected, found, met in rows]
    head = ["## Expected shape, MNIST", "", "| what | expected | measured | met |", "|---|---|---|---|"]
    return "\n".join([*head, *lines])


def _verdicts(size: Size, out: Path, level: int, found: Sequence[Arms]) -> list[str]:
    tickets = [Ticket.read(out / plan.ticket_path("mnist", seed, level)) for seed in size.seeds["mnist"]]
    margin = tasks.get("mnist").margin
    return [lab.judge(ticket, arms, margin).verdict for ticket, arms in zip(tickets, found, strict=True)]


def _yes(met: bool) -> str:
    return "yes" if met else "no"
